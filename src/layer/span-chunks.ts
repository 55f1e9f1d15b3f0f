import { CHUNK } from './chunks.js';

/** Cuts a run of output into chunks; what comes before the first border is dropped. */
export class SpanChunks {
  readonly #chunk = Buffer.allocUnsafe(CHUNK);
  readonly #streamSize: number;
  readonly #onChunk: (chunk: number, bytes: Buffer) => void;
  #drop: number;
  #index: number;
  #filled = 0;

  constructor(start: number, first: number, streamSize: number, onChunk: (chunk: number, bytes: Buffer) => void) {
    this.#drop = first * CHUNK - start;
    this.#index = first;
    this.#streamSize = streamSize;
    this.#onChunk = onChunk;
  }

  push(output: Uint8Array): void {
    let at = Math.min(this.#drop, output.length);
    this.#drop -= at;
    while (at < output.length) {
      const size = Math.min(CHUNK, this.#streamSize - this.#index * CHUNK);
      if (size <= 0) return;
      const n = Math.min(size - this.#filled, output.length - at);
      this.#chunk.set(output.subarray(at, at + n), this.#filled);
      this.#filled += n;
      at += n;
      if (this.#filled < size) continue;
      this.#filled = 0;
      this.#onChunk(this.#index++, this.#chunk.subarray(0, size));
    }
  }
}
