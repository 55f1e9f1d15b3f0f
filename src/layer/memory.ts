/** Verified chunks in memory: the least recently used go first. One memory serves all layers of a thread. */
import { LRUCache } from 'lru-cache';
import { CHUNK } from './chunks.js';

/** Chunks of one layer: what is left of 2^53 for layers is more than a daemon will ever number. */
const KEYS_PER_LAYER = 2 ** 26;

export class ChunkMemory {
  readonly #chunks: LRUCache<number, Buffer>;
  /** Buffers of chunks that have gone, to be used again. */
  readonly #spare: Buffer[] = [];

  /** `bytes` to hold at most, of at least one chunk. */
  constructor(bytes: number) {
    this.#chunks = new LRUCache<number, Buffer>({
      max: Math.max(Math.floor(bytes / CHUNK), 1),
      dispose: (buffer) => this.#spare.push(buffer),
    });
  }

  get(layer: number, chunk: number): Buffer | undefined {
    return this.#chunks.get(layer * KEYS_PER_LAYER + chunk);
  }

  /** Copies a verified chunk in; what is behind a short chunk's end is not to be looked at. */
  put(layer: number, chunk: number, bytes: Buffer): void {
    const buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK);
    bytes.copy(buffer);
    this.#chunks.set(layer * KEYS_PER_LAYER + chunk, buffer);
  }
}
