/**
 * Verified bytes of one layer. A chunk of 64 KiB comes from memory, else from the layer's `data` file, else it is filled:
 * the span of the blob that holds it is decompressed from the nearest restart point, hashed, and written to `data`.
 *
 * `data` has no journal and no map of what is in it: a chunk is there if and only if it hashes right. A hole, a torn
 * write and a flipped bit look the same and are filled again. When the source gives wrong bytes too, the read fails.
 */
import { closeSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { decodeFrom } from '../compress/index.js';
import { sha256, type Digest } from '../digest/index.js';
import { LaminaError, errnoOf } from '../errors.js';
import { openBlob, type BlobLocation, type RandomAccessBlob } from '../source/blob.js';
import type { ByteRange } from '../source/fetch/block-file.js';
import { CHUNK, appendixStart, chunkLength, readChunks, type Chunks } from './chunks.js';
import { openData, readData } from './data-file.js';
import type { Copy } from './extents.js';
import { LayerMap } from './map.js';
import type { ChunkMemory } from './memory.js';
import { contentWithin, type Unit } from './parts.js';
import { SpanChunks } from './span-chunks.js';

/** Hash cached bytes on every read that reaches us, or once in a reader's life. Plain blobs are hashed on every read. */
export type VerifyMode = 'every-read' | 'first-read';

export interface ChunkReaderOptions {
  /** Names the layer in `memory`. */
  readonly id: number;
  /** `layers/sha256-..` of the store. */
  readonly directory: string;
  readonly mapPath: string;
  readonly blob: BlobLocation;
  readonly verify: VerifyMode;
  readonly memory: ChunkMemory;
  /** A chunk in `data` was wrong, and has been filled again. */
  readonly onHeal?: ((offset: number, got: string) => void) | undefined;
}

/**
 * Chunks that begin further than this from the restart point before them would be slow to come by again: `data` gets them
 * when the layer is indexed.
 */
export const KEEP_AFTER = 4 * 1024 * 1024;

const DIGEST = 32;
const ZEROS = Buffer.alloc(CHUNK);
const ZERO_DIGEST = sha256(ZEROS);

/** What a chunk in the data file turned out to be. */
type Found = 'right' | 'absent' | 'wrong';

export class ChunkReader {
  /** Bytes since the reader was opened. */
  readonly counters = { verified: 0, filled: 0 };
  readonly #options: ChunkReaderOptions;
  readonly #chunks: Chunks;
  readonly #map: LayerMap;
  readonly #blob: RandomAccessBlob | undefined;
  readonly #dataFd: number;
  readonly #writable: boolean;
  /** One bit a chunk: hashed before (`first-read` only). */
  readonly #seen: Uint8Array;
  readonly #scratch = Buffer.allocUnsafeSlow(CHUNK);
  readonly #byte = Buffer.alloc(1);
  #got = '';

  private constructor(
    options: ChunkReaderOptions,
    chunks: Chunks,
    map: LayerMap,
    blob: RandomAccessBlob | undefined,
    data: { fd: number; writable: boolean },
  ) {
    this.#options = options;
    this.#chunks = chunks;
    this.#map = map;
    this.#blob = blob;
    this.#dataFd = data.fd;
    this.#writable = data.writable;
    this.#seen = new Uint8Array(options.verify === 'first-read' ? Math.ceil(chunks.digests.length / DIGEST / 8) : 0);
  }

  /** A blob that is gone is no failure until its bytes are needed. Throws STORE_CORRUPT, IO. */
  static open(options: ChunkReaderOptions): ChunkReader {
    const chunks = readChunks(join(options.directory, 'chunks'));
    const map = LayerMap.open(options.mapPath);
    if (map === undefined) throw new LaminaError('STORE_CORRUPT', `${options.mapPath} is gone from the store`);
    let data: ReturnType<typeof openData> | undefined;
    try {
      data = openData(join(options.directory, 'data'));
      return new ChunkReader(options, chunks, map, openIfThere(options.blob), data);
    } catch (e) {
      map.close();
      if (data !== undefined) closeSync(data.fd);
      throw e;
    }
  }

  close(): void {
    this.#map.close();
    this.#blob?.close();
    closeSync(this.#dataFd);
  }

  /** Copies verified bytes into `into` where all of them are at hand; false where something has to be filled. */
  readCached(position: number, length: number, into: Buffer, at: number): boolean {
    return this.#read(position, length, into, at, false);
  }

  /** The same, filling what is missing. Throws CHUNK_DIGEST_MISMATCH, BLOB_MISSING, IO. */
  read(position: number, length: number, into: Buffer, at: number): void {
    this.#read(position, length, into, at, true);
  }

  contentOf(parts: readonly ByteRange[]): ByteRange[] {
    const map = this.#map;
    // What is not compressed is read where it lies.
    if (map.facts.compression === 'none') return [];
    const at = (index: number): Unit => {
      const content = { start: map.output(index), end: map.output(index + 1) };
      return { from: map.input(content.start, Math.max(content.end, content.start + 1)), content };
    };
    return contentWithin({ count: map.count, at }, parts);
  }

  fill({ start, end }: ByteRange): void {
    // With the first chunk that begins in a span all others that do are stored.
    const first = Math.ceil(start / CHUNK) * CHUNK;
    if (this.#writable && first < Math.min(end, this.#chunks.streamSize)) this.#read(first, 1, this.#byte, 0, true);
  }

  #read(position: number, length: number, into: Buffer, at: number, fill: boolean): boolean {
    for (let done = 0; done < length;) {
      const here = position + done;
      const chunk = Math.floor(here / CHUNK);
      const within = here - chunk * CHUNK;
      const n = Math.min(CHUNK - within, length - done);
      if (!this.#part(chunk, within, n, into, at + done, fill)) return false;
      done += n;
    }
    return true;
  }

  #part(chunk: number, within: number, length: number, into: Buffer, at: number, fill: boolean): boolean {
    const size = chunkLength(this.#chunks, chunk);
    const wanted = Math.min(length, Math.max(size - within, 0));
    // Between the stream's end and the appendix there is nothing.
    if (wanted < length) into.fill(0, at + wanted, at + length);
    if (wanted === 0) return true;
    if (size === CHUNK && this.#expects(chunk, ZERO_DIGEST)) {
      into.fill(0, at, at + wanted);
      return true;
    }
    const { id, memory } = this.#options;
    const remembered = memory.get(id, chunk);
    if (remembered !== undefined) {
      remembered.copy(into, at, within, within + wanted);
      return true;
    }
    // A whole chunk is read and hashed where it is wanted.
    const whole = wanted === size;
    const buffer = whole ? into.subarray(at, at + size) : this.#scratch.subarray(0, size);
    const found = this.#find(chunk, buffer);
    if (found !== 'right') {
      if (!fill) return false;
      this.#fill(chunk, buffer);
      if (found === 'wrong') this.#options.onHeal?.(chunk * CHUNK, this.#got);
    }
    if (!whole) {
      memory.put(id, chunk, buffer);
      buffer.copy(into, at, within, within + wanted);
    }
    return true;
  }

  #expects(chunk: number, digest: Buffer): boolean {
    return digest.compare(this.#chunks.digests, chunk * DIGEST, (chunk + 1) * DIGEST) === 0;
  }

  /** Looks for a chunk where it lies uncompressed: in the blob itself when that is a plain tar, else in the data file. */
  #find(chunk: number, buffer: Buffer): Found {
    const plain = this.#map.facts.compression === 'none' && chunk * CHUNK < this.#chunks.streamSize;
    if (plain && this.#blob?.has(chunk * CHUNK, buffer.length) === false) return 'absent';
    const n = plain ? (this.#blob?.read(chunk * CHUNK, buffer) ?? 0) : readData(this.#dataFd, buffer, chunk * CHUNK);
    if (n < buffer.length || (!plain && buffer.equals(ZEROS.subarray(0, buffer.length)))) {
      return this.#isZeroTail(chunk, buffer) ? 'right' : 'absent';
    }
    // Only the store is ours alone: whoever owns a plain blob can change it after the first read.
    const once = this.#options.verify === 'first-read' && !plain;
    const bit = 1 << (chunk & 7);
    if (once && ((this.#seen[chunk >> 3] ?? 0) & bit) !== 0) return 'right';
    if (!this.#matches(chunk, buffer)) return 'wrong';
    if (once) this.#seen[chunk >> 3] = (this.#seen[chunk >> 3] ?? 0) | bit;
    return 'right';
  }

  /** A short chunk of zeros is a hole, and right all the same when its digest says so. */
  #isZeroTail(chunk: number, buffer: Buffer): boolean {
    return buffer.length < CHUNK && buffer.equals(ZEROS.subarray(0, buffer.length)) && this.#matches(chunk, buffer);
  }

  #matches(chunk: number, buffer: Buffer): boolean {
    this.counters.verified += buffer.length;
    const got = sha256(buffer);
    if (this.#expects(chunk, got)) return true;
    this.#got = `sha256:${got.toString('hex')}`;
    return false;
  }

  /** Brings chunk `wanted` from the source into `buffer`, and its neighbours of the same span into the data file. */
  #fill(wanted: number, buffer: Buffer): void {
    if (wanted * CHUNK >= this.#chunks.streamSize) {
      // Not in `buffer`: that may be the scratch buffer, which reading the pieces uses.
      const assembled = Buffer.allocUnsafe(buffer.length);
      this.#assemble(wanted, assembled);
      if (!this.#matches(wanted, assembled)) throw this.#mismatch(wanted, this.#got);
      this.#store(wanted, assembled);
      assembled.copy(buffer);
      return;
    }
    const cached = this.#got;
    if (this.#blob === undefined) {
      const { path } = this.#options.blob;
      throw new LaminaError(
        'BLOB_MISSING',
        `Cannot read the layer ${this.#map.facts.diffId}: its blob ${path} is gone`,
        {
          details: { layer: this.#map.facts.diffId, offset: wanted * CHUNK, path },
        },
      );
    }
    let fate = this.#decodeSpan(this.#blob, wanted, buffer);
    // A registry's blob lies in a file of ours: it may be that which is damaged.
    const { start, end } = this.#inputOf(wanted);
    if (fate !== undefined && this.#blob.discard(start, end - start))
      fate = this.#decodeSpan(this.#blob, wanted, buffer);
    if (fate !== undefined) throw fate;
    this.#got = cached;
  }

  /** Where in the blob the bytes are that chunk `wanted` is decoded from. */
  #inputOf(wanted: number): { start: number; end: number } {
    const first = wanted * CHUNK;
    const beyond = first + chunkLength(this.#chunks, wanted);
    if (this.#map.facts.compression === 'none') return { start: first, end: beyond };
    return this.#map.input(first, beyond);
  }

  /** Why chunk `wanted` could not be had; undefined when it is in `buffer`. */
  #decodeSpan(blob: RandomAccessBlob, wanted: number, buffer: Buffer): LaminaError | undefined {
    const { streamSize } = this.#chunks;
    const plain = this.#map.facts.compression === 'none';
    const index = plain ? -1 : this.#map.find(wanted * CHUNK);
    if (!plain && index < 0) return this.#mismatch(wanted, 'no restart point');
    const start = plain ? wanted * CHUNK : this.#map.output(index);
    const first = Math.ceil(start / CHUNK);
    // Every chunk that begins in the span and was not kept; those that were too, once one of them is lost.
    const next = plain ? start : this.#map.output(index + 1);
    const end = wanted * CHUNK < start + KEEP_AFTER ? Math.min(next, start + KEEP_AFTER) : next;
    const beyond = Math.max(Math.ceil(end / CHUNK), wanted + 1);
    const length = Math.min(beyond * CHUNK, streamSize) - start;
    const input = this.#inputOf(wanted);
    blob.need(input.start, input.end - input.start);
    const span = new SpanChunks(start, first, streamSize, (chunk, bytes) => {
      const right = this.#matches(chunk, bytes);
      if (right && !plain) this.#store(chunk, bytes);
      if (chunk !== wanted) return;
      if (right) bytes.copy(buffer);
      fate = right ? undefined : this.#mismatch(wanted, this.#got);
    });
    let fate: LaminaError | undefined = this.#mismatch(wanted, 'no such bytes in the blob');
    try {
      const point = plain
        ? { input: start, output: start, bits: 0, kind: 'member' as const, window: EMPTY }
        : this.#map.point(index);
      this.counters.filled += decodeFrom(this.#map.facts.compression, point, blob, length, (output) =>
        span.push(output),
      );
    } catch (e) {
      if (fate === undefined) return undefined;
      if (e instanceof LaminaError && (e.code === 'COMPRESSION_CORRUPT' || e.code === 'COMPRESSION_TRUNCATED')) {
        return this.#mismatch(wanted, 'compressed data that cannot be decoded', e);
      }
      throw e;
    }
    return fate;
  }

  #mismatch(chunk: number, got: string, cause?: unknown): LaminaError {
    const wanted = `sha256:${this.#chunks.digests.toString('hex', chunk * DIGEST, (chunk + 1) * DIGEST)}`;
    const layer: Digest = this.#map.facts.diffId;
    const offset = chunk * CHUNK;
    return new LaminaError('CHUNK_DIGEST_MISMATCH', `Layer ${layer} at byte ${offset}: wanted ${wanted}, got ${got}`, {
      details: { layer, offset, wanted, got, path: this.#options.blob.path },
      cause,
    });
  }

  /** A cache that cannot be written is slow, not broken. */
  #store(chunk: number, bytes: Buffer): void {
    if (!this.#writable) return;
    try {
      writeSync(this.#dataFd, bytes, 0, bytes.length, chunk * CHUNK);
    } catch (e) {
      if (!['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'].includes(errnoOf(e) ?? '')) throw e;
    }
  }

  /** A chunk of the appendix, put together from verified bytes of the stream. */
  #assemble(chunk: number, buffer: Buffer, copies: readonly Copy[] = this.#chunks.copies): void {
    const start = chunk * CHUNK - appendixStart(this.#chunks.streamSize);
    const end = start + buffer.length;
    buffer.fill(0);
    // Copies ascend and do not overlap: the first that ends beyond `start`.
    let low = 0;
    for (let high = copies.length; low < high;) {
      const middle = (low + high) >>> 1;
      const copy = copies[middle];
      if (copy !== undefined && copy.to + copy.length <= start) low = middle + 1;
      else high = middle;
    }
    for (let copy = copies[low]; copy !== undefined && copy.to < end; copy = copies[++low]) {
      const from = Math.max(copy.to, start);
      const to = Math.min(copy.to + copy.length, end);
      this.read(copy.from + from - copy.to, to - from, buffer, from - start);
    }
  }

  /** For the index: assembles the appendix of `copies`, stores it, and gives its chunks' digests. */
  storeAppendix(copies: readonly Copy[], addressSpace: number): Buffer {
    const digests: Buffer[] = [];
    const buffer = Buffer.allocUnsafe(CHUNK);
    for (let at = appendixStart(this.#chunks.streamSize); at < addressSpace; at += CHUNK) {
      const part = buffer.subarray(0, Math.min(CHUNK, addressSpace - at));
      this.#assemble(at / CHUNK, part, copies);
      this.#store(at / CHUNK, part);
      digests.push(sha256(part));
    }
    return Buffer.concat(digests);
  }
}

const EMPTY = Buffer.alloc(0);

/** Undefined where the blob is gone. */
function openIfThere(location: BlobLocation): RandomAccessBlob | undefined {
  try {
    return openBlob(location);
  } catch (e) {
    if (e instanceof LaminaError && e.code === 'BLOB_MISSING') return undefined;
    throw e;
  }
}
