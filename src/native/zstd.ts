/**
 * Streaming zstd decompression, which node:zlib has not had before 22.15: from the zstd that Node itself exports since
 * then, else from libzstd.so.1. Sizes are size_t; an error is a size_t near 2^64 (zstd_errors.h), here a negative number.
 */
import { LaminaError } from '../errors.js';
import { koffi } from './koffi.js';
import { bindLibrary } from './library.js';

interface Zstd {
  readonly createDCtx: () => bigint | null;
  readonly freeDCtx: (context: bigint) => void;
  readonly sizeofDCtx: (context: bigint) => number;
  readonly reset: (context: bigint, directive: number) => number;
  readonly setParameter: (context: bigint, parameter: number, value: number) => number;
  readonly decompressStream: (context: bigint, output: bigint, input: bigint) => number;
  readonly getErrorName: (code: number) => string;
}

let loaded: Zstd | undefined;

function zstd(): Zstd {
  loaded ??= bindLibrary('libzstd.so.1', 'libzstd1', (lib) => ({
    createDCtx: lib.func('void *ZSTD_createDCtx(void)'),
    freeDCtx: lib.func('int64_t ZSTD_freeDCtx(void *context)'),
    sizeofDCtx: lib.func('int64_t ZSTD_sizeof_DCtx(void *context)'),
    reset: lib.func('int64_t ZSTD_DCtx_reset(void *context, int directive)'),
    setParameter: lib.func('int64_t ZSTD_DCtx_setParameter(void *context, int parameter, int value)'),
    decompressStream: lib.func('int64_t ZSTD_decompressStream(void *context, void *output, void *input)'),
    getErrorName: lib.func('const char *ZSTD_getErrorName(int64_t code)'),
  }));
  return loaded;
}

const ZSTD_RESET_SESSION_ONLY = 1;
const ZSTD_D_WINDOW_LOG_MAX = 100;

/** Largest window that a frame may ask for, log2 of bytes: 128 MiB, as `zstd -d` without options. */
export const WINDOW_LOG_MAX = 27;

/** The error for a frame whose window is larger than {@link WINDOW_LOG_MAX}. */
export const WINDOW_TOO_LARGE = -16;

/** One ZSTD_DCtx. */
export class Decompressor {
  /** What {@link run} decodes into. */
  readonly output: Buffer;
  /** Bytes of input used by the last {@link run}. */
  consumed = 0;
  /** Bytes of output made by the last {@link run}. */
  produced = 0;
  readonly #zstd = zstd();
  // ZSTD_inBuffer and ZSTD_outBuffer: pointer, size, position.
  readonly #in = new BigUint64Array(new ArrayBuffer(24));
  readonly #out = new BigUint64Array(new ArrayBuffer(24));
  readonly #inAddress = koffi().address(this.#in);
  readonly #outAddress = koffi().address(this.#out);
  #context: bigint | undefined;
  /** Held until the next: zstd has only its address. */
  #input: Uint8Array | undefined;

  /** `outputSize` is in bytes. Throws NATIVE_UNAVAILABLE. */
  constructor(outputSize: number) {
    this.output = Buffer.from(new ArrayBuffer(outputSize));
    this.#out[0] = koffi().address(this.output);
    const context = this.#zstd.createDCtx();
    if (context === null) throw new LaminaError('NATIVE_UNAVAILABLE', 'zstd refused to start: out of memory');
    this.#context = context;
    this.#zstd.setParameter(context, ZSTD_D_WINDOW_LOG_MAX, WINDOW_LOG_MAX);
  }

  /** Forgets everything; the next byte of input starts a frame. */
  reset(): void {
    this.#zstd.reset(this.#open(), ZSTD_RESET_SESSION_ONLY);
  }

  /**
   * Decodes `input` from `from` on into `output`, at most `room` bytes. Returns 0 at the end of a frame (a skippable one
   * too), a positive number within one, or an error below 0.
   */
  run(input: Uint8Array, from: number, room: number): number {
    const context = this.#open();
    if (this.#input !== input) {
      this.#input = input;
      this.#in[0] = koffi().address(input);
    }
    this.#in[1] = BigInt(input.length);
    this.#in[2] = BigInt(from);
    this.#out[1] = BigInt(room);
    this.#out[2] = 0n;
    const result = this.#zstd.decompressStream(context, this.#outAddress, this.#inAddress);
    this.consumed = Number(this.#in[2]) - from;
    this.produced = Number(this.#out[2]);
    return result;
  }

  /** zstd's words for an error that {@link run} returned. */
  errorName(code: number): string {
    return this.#zstd.getErrorName(code);
  }

  /** Bytes of native memory in use; it grows to the largest window seen. */
  get memory(): number {
    return this.#zstd.sizeofDCtx(this.#open());
  }

  /** Frees zstd's memory. May be called again. */
  close(): void {
    if (this.#context !== undefined) this.#zstd.freeDCtx(this.#context);
    this.#context = undefined;
  }

  #open(): bigint {
    if (this.#context !== undefined) return this.#context;
    throw new LaminaError('INTERNAL', 'The zstd decoder is closed');
  }
}
