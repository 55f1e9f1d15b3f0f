/** The digests of one indexing pass: the blob's, the stream's (diffID) and one per chunk of the stream. */
import { createHasher, sha256, type Digest, type Hasher } from '../digest/index.js';
import type { RestartPoint } from '../compress/types.js';
import { CHUNK } from './chunks.js';
import { packPoint, type PackedPoint } from './map.js';

export interface HashResult {
  readonly blob: Digest;
  readonly diffId: Digest;
  /** SHA-256 of the chunks, one after the other. */
  readonly chunks: Buffer;
  readonly points: readonly PackedPoint[];
}

/** Takes what an indexing pass sees, in this thread or in another. */
export interface PassSink {
  /** Compressed bytes, in order. */
  blob(bytes: Buffer): void;
  /** Uncompressed bytes, in order. */
  stream(bytes: Buffer): void;
  point(point: RestartPoint): void;
  /** Ends the pass; the sink can then take the next. */
  end(): HashResult;
}

const DIGEST = 32;

export class PassHasher implements PassSink {
  readonly #blob: Hasher;
  readonly #stream: Hasher;
  readonly #chunk = Buffer.alloc(CHUNK);
  #filled = 0;
  #chunks = Buffer.alloc(256 * DIGEST);
  #count = 0;
  readonly #points: PackedPoint[] = [];

  /** Digests by the algorithms that these name; sha256 where they are unknown. */
  constructor(blob: Digest | undefined, diffId: Digest) {
    this.#blob = createHasher(blob ?? 'sha256');
    this.#stream = createHasher(diffId);
  }

  blob(bytes: Buffer): void {
    this.#blob.update(bytes);
  }

  stream(bytes: Buffer): void {
    this.#stream.update(bytes);
    let at = 0;
    while (at < bytes.length) {
      if (this.#filled === 0 && bytes.length - at >= CHUNK) {
        this.#addChunk(bytes.subarray(at, at + CHUNK));
        at += CHUNK;
        continue;
      }
      const n = Math.min(CHUNK - this.#filled, bytes.length - at);
      bytes.copy(this.#chunk, this.#filled, at, at + n);
      this.#filled += n;
      at += n;
      if (this.#filled === CHUNK) {
        this.#filled = 0;
        this.#addChunk(this.#chunk);
      }
    }
  }

  point(point: RestartPoint): void {
    this.#points.push(packPoint(point));
  }

  end(): HashResult {
    if (this.#filled > 0) this.#addChunk(this.#chunk.subarray(0, this.#filled));
    return {
      blob: this.#blob.digest(),
      diffId: this.#stream.digest(),
      chunks: this.#chunks.subarray(0, this.#count * DIGEST),
      points: this.#points,
    };
  }

  #addChunk(bytes: Buffer): void {
    if ((this.#count + 1) * DIGEST > this.#chunks.length) {
      this.#chunks = Buffer.concat([this.#chunks, Buffer.alloc(this.#chunks.length)]);
    }
    sha256(bytes).copy(this.#chunks, this.#count++ * DIGEST);
  }
}
