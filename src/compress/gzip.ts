/** Gzip members (RFC 1952) by zlib, which checks header CRC, data CRC and length itself. */
import { GZIP, Inflater, RAW, WINDOW, Z_BUF_ERROR, Z_OK, Z_STREAM_END } from '../native/zlib.js';
import { LaminaError } from '../errors.js';
import type { Codec, Failure, StepResult } from './codec.js';
import type { RestartPoint } from './types.js';

/** Bytes of CRC-32 and ISIZE after the deflate data. */
const TRAILER = 8;

export class GzipCodec implements Codec {
  readonly unit = 'gzip member';
  readonly magicLength = 2;
  readonly memory = 2 * WINDOW;
  readonly #inflater: Inflater;
  #raw = false;
  /** Bytes of the trailer to pass over. Of a member entered in its middle the CRC cannot be checked. */
  #trailer = 0;
  #consumed = 0;
  #produced = 0;

  constructor(outputSize: number) {
    this.#inflater = new Inflater(outputSize);
  }

  isMagic(bytes: Uint8Array, at: number, length: number): boolean {
    return bytes[at] === 0x1f && (length < 2 || bytes[at + 1] === 0x8b);
  }

  holdsData(): boolean {
    return true;
  }

  begin(): void {
    this.#inflater.reset(GZIP);
    this.#raw = false;
    this.#trailer = 0;
  }

  resume({ bits, window }: RestartPoint, previous: number): void {
    this.#inflater.reset(RAW);
    this.#raw = true;
    this.#trailer = 0;
    const primed = bits === 0 || this.#inflater.prime(bits, previous >> (8 - bits));
    if (primed && (window.length === 0 || this.#inflater.setWindow(window))) return;
    throw new LaminaError('COMPRESSION_CORRUPT', 'Cannot decompress from a restart point: zlib refuses its window');
  }

  get output(): Buffer {
    return this.#inflater.output;
  }

  get consumed(): number {
    return this.#consumed;
  }

  get produced(): number {
    return this.#produced;
  }

  step(input: Uint8Array, from: number, room: number, stopAtBlock: boolean): StepResult {
    if (this.#trailer > 0) return this.#skipTrailer(input, from);
    const inflater = this.#inflater;
    const result = inflater.run(input, from, room, stopAtBlock);
    this.#consumed = inflater.consumed;
    this.#produced = inflater.produced;
    switch (result) {
      // Z_BUF_ERROR says only that no byte went in or out: the end of a block may have been reached nevertheless.
      case Z_OK:
      case Z_BUF_ERROR:
        return stopAtBlock && inflater.betweenBlocks ? 'block' : 'more';
      case Z_STREAM_END:
        if (!this.#raw) return 'end';
        this.#trailer = TRAILER;
        return 'more';
      default:
        return 'failed';
    }
  }

  #skipTrailer(input: Uint8Array, from: number): StepResult {
    this.#consumed = Math.min(this.#trailer, input.length - from);
    this.#produced = 0;
    this.#trailer -= this.#consumed;
    return this.#trailer === 0 ? 'end' : 'more';
  }

  get failure(): Failure {
    return { code: 'COMPRESSION_CORRUPT', reason: this.#inflater.message };
  }

  get unusedBits(): number {
    return this.#inflater.unusedBits;
  }

  window(): Uint8Array {
    return this.#inflater.window();
  }

  close(): void {
    this.#inflater.close();
  }
}
