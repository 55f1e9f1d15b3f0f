/**
 * Inflate with the calls that node:zlib does not offer and that restart points need: Z_BLOCK, inflatePrime and the
 * dictionary, from the zlib that Node itself exports (1.6 times as fast as Debian's), else from libz.so.1.
 *
 * z_stream on 64-bit Linux (zlib.h), 112 bytes:
 *
 *     0 next_in    8 avail_in (u32)   16 total_in    24 next_out   32 avail_out (u32)   40 total_out   48 msg
 *    56 state     64 zalloc           72 zfree       80 opaque     88 data_type (i32)   96 adler      104 reserved
 */
import { LaminaError } from '../errors.js';
import { koffi } from './koffi.js';
import { bindLibrary } from './library.js';

interface Zlib {
  readonly version: string;
  readonly inflateInit2: (stream: bigint, windowBits: number, version: string, size: number) => number;
  readonly inflate: (stream: bigint, flush: number) => number;
  readonly inflatePrime: (stream: bigint, bits: number, value: number) => number;
  readonly inflateSetDictionary: (stream: bigint, dictionary: Uint8Array, length: number) => number;
  readonly inflateGetDictionary: (stream: bigint, dictionary: Uint8Array, length: Uint32Array) => number;
  readonly inflateReset2: (stream: bigint, windowBits: number) => number;
  readonly inflateEnd: (stream: bigint) => number;
}

let loaded: Zlib | undefined;

function zlib(): Zlib {
  loaded ??= bindLibrary('libz.so.1', 'zlib1g', (lib) => ({
    version: (lib.func('const char *zlibVersion(void)') as () => string)(),
    inflateInit2: lib.func('int inflateInit2_(void *stream, int windowBits, const char *version, int size)'),
    inflate: lib.func('int inflate(void *stream, int flush)'),
    inflatePrime: lib.func('int inflatePrime(void *stream, int bits, int value)'),
    inflateSetDictionary: lib.func('int inflateSetDictionary(void *stream, const void *dictionary, uint32_t length)'),
    inflateGetDictionary: lib.func('int inflateGetDictionary(void *stream, void *dictionary, void *length)'),
    inflateReset2: lib.func('int inflateReset2(void *stream, int windowBits)'),
    inflateEnd: lib.func('int inflateEnd(void *stream)'),
  }));
  return loaded;
}

/** Results of inflate (zlib.h); every other one is an error. */
export const Z_OK = 0;
export const Z_STREAM_END = 1;
export const Z_BUF_ERROR = -5;

/** Values of `windowBits`, both for a 32 KiB window: a gzip member with its header and checked CRC, or deflate data alone. */
export const GZIP = 15 + 16;
export const RAW = -15;

/** Bytes that deflate can refer back to (RFC 1951, 3.2.5). */
export const WINDOW = 32_768;

const Z_STREAM_SIZE = 112;
const Z_NO_FLUSH = 0;
const Z_BLOCK = 5;
const LAST_BLOCK = 64;
const BLOCK_END = 128;
/** avail_in has 32 bits; what is longer is given piece by piece. */
const MAX_INPUT = 2 ** 30;

/** One z_stream. After an error only {@link reset} and {@link close} make sense; zlib itself refuses other calls. */
export class Inflater {
  /** What {@link run} decodes into. */
  readonly output: Buffer;
  /** Bytes of input used by the last {@link run}. */
  consumed = 0;
  /** Bytes of output made by the last {@link run}. */
  produced = 0;
  readonly #zlib = zlib();
  // ArrayBuffers of their own: V8 keeps small typed arrays on its heap, where they move.
  readonly #struct = new ArrayBuffer(Z_STREAM_SIZE);
  readonly #words = new Uint32Array(this.#struct);
  readonly #pointers = new BigUint64Array(this.#struct);
  readonly #stream = koffi().address(this.#words);
  readonly #outputAddress: bigint;
  /** Held until the next: zlib has only its address. */
  #input: Uint8Array | undefined;
  #inputAddress = 0n;

  /** `outputSize` is in bytes. Throws NATIVE_UNAVAILABLE. */
  constructor(outputSize: number) {
    this.output = Buffer.from(new ArrayBuffer(outputSize));
    this.#outputAddress = koffi().address(this.output);
    const result = this.#zlib.inflateInit2(this.#stream, GZIP, this.#zlib.version, Z_STREAM_SIZE);
    if (result === Z_OK) return;
    throw new LaminaError('NATIVE_UNAVAILABLE', `zlib ${this.#zlib.version} refused to start (result ${result})`);
  }

  /** Forgets everything; the next byte of input starts what `windowBits` (GZIP or RAW) says. */
  reset(windowBits: number): void {
    this.#zlib.inflateReset2(this.#stream, windowBits);
  }

  /**
   * Decodes `input` from `from` on into `output`, at most `room` bytes, and returns zlib's result. With `stopAtBlock` it
   * also stops at the end of each deflate block.
   */
  run(input: Uint8Array, from: number, room: number, stopAtBlock: boolean): number {
    const available = Math.min(input.length - from, MAX_INPUT);
    if (this.#input !== input) {
      this.#input = input;
      this.#inputAddress = koffi().address(input);
    }
    this.#pointers[0] = this.#inputAddress + BigInt(from);
    this.#words[2] = available;
    this.#pointers[3] = this.#outputAddress;
    this.#words[8] = room;
    const result = this.#zlib.inflate(this.#stream, stopAtBlock ? Z_BLOCK : Z_NO_FLUSH);
    this.consumed = available - this.#words[2];
    this.produced = room - this.#words[8];
    return result;
  }

  /** After a {@link run} with `stopAtBlock`: stands between two blocks of a member. */
  get betweenBlocks(): boolean {
    return (this.#words[22]! & (BLOCK_END | LAST_BLOCK)) === BLOCK_END;
  }

  /** Between blocks: how many high bits of the last byte used are not decoded yet. */
  get unusedBits(): number {
    return this.#words[22]! & 7;
  }

  /** A copy of the last at most 32 KiB of output of this member. */
  window(): Uint8Array {
    const window = Buffer.alloc(WINDOW);
    const length = new Uint32Array(1);
    this.#zlib.inflateGetDictionary(this.#stream, window, length);
    return length[0] === WINDOW ? window : Buffer.from(window.subarray(0, length[0]));
  }

  /** After a reset to RAW: the `bits` low bits of `value` come before the input. False when zlib refuses. */
  prime(bits: number, value: number): boolean {
    return this.#zlib.inflatePrime(this.#stream, bits, value) === Z_OK;
  }

  /** After a reset to RAW: the output that came before. False when zlib refuses. */
  setWindow(window: Uint8Array): boolean {
    return this.#zlib.inflateSetDictionary(this.#stream, window, window.length) === Z_OK;
  }

  /** zlib's words for the last error. */
  get message(): string {
    if (this.#pointers[6] === 0n) return 'zlib gives no reason';
    return koffi().decode(this.#words, 48, 'const char *') as string;
  }

  /** Frees zlib's memory. May be called again. */
  close(): void {
    this.#zlib.inflateEnd(this.#stream);
  }
}
