/**
 * Zstd frames and skippable frames (RFC 8878) by libzstd, which checks the content checksum where there is one. A frame
 * can only be entered at its start.
 */
import { LaminaError } from '../errors.js';
import { Decompressor, WINDOW_LOG_MAX, WINDOW_TOO_LARGE } from '../native/zstd.js';
import type { Codec, Failure, StepResult } from './codec.js';

const FRAME = [0x28, 0xb5, 0x2f, 0xfd] as const;
/** The first byte's low half is free. */
const SKIPPABLE = [0x50, 0x2a, 0x4d, 0x18] as const;

/** Whether the first `length` (at most 4) bytes of `bytes` at `at` begin a frame or a skippable frame. */
export function isZstdMagic(bytes: Uint8Array, at: number, length: number): boolean {
  const first = bytes[at]!;
  const magic = (first & 0xf0) === SKIPPABLE[0] ? SKIPPABLE : FRAME;
  if (magic === FRAME && first !== FRAME[0]) return false;
  for (let i = 1; i < length; i++) if (bytes[at + i] !== magic[i]) return false;
  return true;
}

export class ZstdCodec implements Codec {
  readonly unit = 'zstd frame';
  readonly magicLength = 4;
  readonly unusedBits = 0;
  readonly #decompressor: Decompressor;
  #error = 0;

  constructor(outputSize: number) {
    this.#decompressor = new Decompressor(outputSize);
  }

  isMagic(bytes: Uint8Array, at: number, length: number): boolean {
    return isZstdMagic(bytes, at, length);
  }

  holdsData(bytes: Uint8Array, at: number): boolean {
    return bytes[at] === FRAME[0];
  }

  begin(): void {
    this.#decompressor.reset();
  }

  resume(): never {
    throw new LaminaError(
      'COMPRESSION_CORRUPT',
      'Cannot decompress from a restart point: a zstd frame has none inside',
    );
  }

  get output(): Buffer {
    return this.#decompressor.output;
  }

  get consumed(): number {
    return this.#decompressor.consumed;
  }

  get produced(): number {
    return this.#decompressor.produced;
  }

  step(input: Uint8Array, from: number, room: number): StepResult {
    const result = this.#decompressor.run(input, from, room);
    if (result > 0) return 'more';
    if (result === 0) return 'end';
    this.#error = result;
    return 'failed';
  }

  get failure(): Failure {
    const reason = this.#decompressor.errorName(this.#error);
    if (this.#error !== WINDOW_TOO_LARGE) return { code: 'COMPRESSION_CORRUPT', reason };
    return {
      code: 'LIMIT_EXCEEDED',
      reason: `its window is larger than ${2 ** (WINDOW_LOG_MAX - 20)} MiB`,
      hint: `Compress the layer again without --ultra or --long above ${WINDOW_LOG_MAX}.`,
    };
  }

  window(): Uint8Array {
    return new Uint8Array(0);
  }

  get memory(): number {
    return this.#decompressor.memory;
  }

  close(): void {
    this.#decompressor.close();
  }
}
