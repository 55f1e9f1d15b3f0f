/**
 * Verified bytes of a layer that is known by an index from elsewhere: the table of contents that it brings, or a ztoc of SOCI. A
 * chunk of the index is fetched and decompressed as a whole, and is only believed when its content, or with SOCI its compressed
 * bytes, are what its digest says. Then it lies in `data`, and `digests` gets the SHA-256 of each 64 KiB of the address space
 * that is there as a whole: with it that piece is checked alone, every time that it is read. A piece without a digest, or
 * that does not match it, is filled again.
 */
import { closeSync, existsSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { decodeFrom } from '../compress/index.js';
import type { ByteSource } from '../compress/types.js';
import { createHasher, digestBytes, sha256 } from '../digest/index.js';
import { LaminaError, errnoOf } from '../errors.js';
import { openBlob, type RandomAccessBlob } from '../source/blob.js';
import type { ByteRange } from '../source/fetch/block-file.js';
import { readRange } from '../source/toc/read.js';
import { readSealed } from '../store/sealed.js';
import { CHUNK } from './chunks.js';
import type { LayerReader } from './layer-reader.js';
import { contentWithin, type Unit } from './parts.js';
import { openData } from './data-file.js';
import type { ChunkReaderOptions } from './reader.js';
import { SociTable } from './soci-table.js';
import { TocTable, blobParts, type ChunkTable, type LayerChunk } from './toc-table.js';

const DIGEST = 32;
const UNKNOWN = Buffer.alloc(DIGEST);
/** Bytes of `data` looked at in one read. */
const PIECE = 1024 * 1024;

export class TocReader implements LayerReader {
  readonly counters = { verified: 0, filled: 0 };
  readonly #options: ChunkReaderOptions;
  readonly #table: ChunkTable;
  readonly #blob: RandomAccessBlob;
  readonly #data: { readonly fd: number; readonly writable: boolean };
  readonly #digests: { readonly fd: number; readonly writable: boolean };
  readonly #scratch = Buffer.allocUnsafeSlow(CHUNK);
  readonly #digest = Buffer.allocUnsafeSlow(DIGEST);
  #piece: Buffer | undefined;
  #got = '';

  private constructor(options: ChunkReaderOptions, table: ChunkTable, blob: RandomAccessBlob) {
    this.#options = options;
    this.#table = table;
    this.#blob = blob;
    this.#data = openData(join(options.directory, 'data'));
    this.#digests = openData(join(options.directory, 'digests'));
  }

  /** Throws STORE_CORRUPT, IO. */
  static open(options: ChunkReaderOptions): TocReader {
    const ztoc = join(options.directory, 'ztoc');
    const toc = join(options.directory, 'toc');
    const table = existsSync(ztoc) ? new SociTable(readSealed(ztoc)) : new TocTable(readSealed(toc), toc);
    return new TocReader(options, table, openBlob(options.blob));
  }

  close(): void {
    this.#blob.close();
    closeSync(this.#data.fd);
    closeSync(this.#digests.fd);
  }

  readCached(position: number, length: number, into: Buffer, at: number): boolean {
    return this.#read(position, length, into, at, false);
  }

  read(position: number, length: number, into: Buffer, at: number): void {
    this.#read(position, length, into, at, true);
  }

  contentOf(parts: readonly ByteRange[]): ByteRange[] {
    const table = this.#table;
    const at = (index: number): Unit => {
      const { address, size, offset, end } = table.chunk(index);
      return { from: { start: offset, end }, content: { start: address, end: address + size } };
    };
    return contentWithin({ count: table.count, at }, parts);
  }

  fill({ start, end }: ByteRange): void {
    const { addressSpace } = this.#table;
    for (let index = Math.floor(start / CHUNK); index * CHUNK < Math.min(end, addressSpace); index++) {
      if (this.#isKnown(index)) continue;
      const size = Math.min(CHUNK, addressSpace - index * CHUNK);
      this.#fill(index, this.#scratch.subarray(0, size), index * CHUNK + size);
      // A store that takes nothing is no reason to decompress the chunk for each of its pieces.
      if (!this.#isKnown(index)) return;
    }
  }

  #read(position: number, length: number, into: Buffer, at: number, fill: boolean): boolean {
    const { addressSpace } = this.#table;
    const end = Math.min(position + length, addressSpace);
    into.fill(0, at + Math.max(end - position, 0), at + length);
    // The last piece is filled as a whole.
    const fillTo = fill ? Math.min(Math.ceil(end / CHUNK) * CHUNK, addressSpace) : undefined;
    for (let here = position; here < end;) {
      const index = Math.floor(here / CHUNK);
      const within = here - index * CHUNK;
      const n = Math.min(CHUNK - within, end - here);
      const size = Math.min(CHUNK, addressSpace - index * CHUNK);
      if (!this.#part(index, size, { within, n, into, at: at + here - position }, fillTo)) return false;
      here += n;
    }
    return true;
  }

  /** Bytes `within` to `within + n` of a piece. `fillTo`: what is missing shall be filled; pieces up to there will be wanted next. */
  #part(
    index: number,
    size: number,
    { within, n, into, at }: { within: number; n: number; into: Buffer; at: number },
    fillTo: number | undefined,
  ): boolean {
    const { id, memory } = this.#options;
    const remembered = memory.get(id, index);
    if (remembered !== undefined) {
      remembered.copy(into, at, within, within + n);
      return true;
    }
    const whole = n === size;
    const buffer = whole ? into.subarray(at, at + size) : this.#scratch.subarray(0, size);
    const found = this.#find(index, buffer);
    if (found !== 'right') {
      if (fillTo === undefined) return false;
      const got = this.#got;
      this.#fill(index, buffer, fillTo);
      if (found === 'wrong') this.#options.onHeal?.(index * CHUNK, got);
    }
    if (whole) return true;
    memory.put(id, index, buffer);
    buffer.copy(into, at, within, within + n);
    return true;
  }

  #find(index: number, buffer: Buffer): 'right' | 'wrong' | 'unknown' {
    if (!this.#isKnown(index)) return 'unknown';
    const n = readSync(this.#data.fd, buffer, 0, buffer.length, index * CHUNK);
    buffer.fill(0, n);
    this.counters.verified += buffer.length;
    const got = sha256(buffer);
    if (got.equals(this.#digest)) return 'right';
    this.#got = `sha256:${got.toString('hex')}`;
    return 'wrong';
  }

  /** Whether a piece has been filled; its digest is in `#digest` then. */
  #isKnown(index: number): boolean {
    const known = readSync(this.#digests.fd, this.#digest, 0, DIGEST, index * DIGEST) === DIGEST;
    return known && !this.#digest.equals(UNKNOWN);
  }

  /** Puts a piece together from the chunks of the table that it is made of. */
  #fill(index: number, buffer: Buffer, end: number): void {
    const start = index * CHUNK;
    this.#need(start, end);
    buffer.fill(0);
    for (const chunk of this.#table.overlapping(start, start + buffer.length)) {
      if (chunk.digest === undefined) continue;
      const into = new Window(buffer, start);
      if (chunk.digestOf === 'blob') this.#decodeSpan(chunk, chunk.digest, into);
      else if (!this.#keptChunk(chunk, chunk.digest, into)) this.#decodeChunk(chunk, chunk.digest, into);
    }
    this.#keepDigest(index, sha256(buffer));
  }

  /** All that reading up to `end` will take is asked for at once. */
  #need(start: number, end: number): void {
    for (const part of blobParts(this.#table.overlapping(start, end))) {
      this.#blob.need(part.start, part.end - part.start);
    }
  }

  /** Whether `data` has the chunk; then it is in `into`. */
  #keptChunk({ address, size }: LayerChunk, wanted: Buffer, into: Window): boolean {
    const hasher = createHasher();
    const piece = (this.#piece ??= Buffer.allocUnsafeSlow(PIECE));
    for (let done = 0; done < size;) {
      const n = readSync(this.#data.fd, piece, 0, Math.min(PIECE, size - done), address + done);
      if (n === 0) return false;
      const bytes = piece.subarray(0, n);
      // Most that are not there are holes, which a look at the beginning tells.
      if (done === 0 && bytes.subarray(0, 64).equals(HOLE.subarray(0, Math.min(n, 64))) && n > 64) return false;
      hasher.update(bytes);
      into.put(address + done, bytes);
      done += n;
    }
    this.counters.verified += size;
    return digestBytes(hasher.digest()).equals(wanted);
  }

  /** What is compressed has the digest: nothing of it is decompressed before. */
  #decodeSpan(chunk: LayerChunk, wanted: Buffer, into: Window): void {
    const { offset, end } = chunk;
    let span = readRange(this.#blob, offset, end - offset);
    if (!sha256(span).equals(wanted) && this.#blob.discard(offset, end - offset)) {
      span = readRange(this.#blob, offset, end - offset);
    }
    const got = sha256(span);
    if (!got.equals(wanted)) throw this.#mismatch(offset, wanted, `sha256:${got.toString('hex')}`);
    // From the very bytes that were hashed: those in the store may be fetched anew by another thread.
    const source = {
      size: end,
      read: (from: number, to: Uint8Array): number => (from < offset ? 0 : span.copy(to, 0, from - offset)),
    };
    const { size, pieces } = this.#decode(chunk, source, into);
    if (size !== chunk.size) throw this.#mismatch(offset, wanted, `${size} bytes of content, not ${chunk.size}`);
    for (const [index, of] of pieces.digests) this.#keepDigest(index, of);
  }

  #mismatch(offset: number, digest: Buffer, got: string): LaminaError {
    const wanted = `sha256:${digest.toString('hex')}`;
    const { path } = this.#options.blob;
    return new LaminaError('CHUNK_DIGEST_MISMATCH', `Blob ${path} at byte ${offset}: wanted ${wanted}, got ${got}`, {
      details: { path, offset, wanted, got },
    });
  }

  /** From the blob, and once more from where that came, should it be wrong. */
  #decodeChunk(chunk: LayerChunk, wanted: Buffer, into: Window): void {
    const { offset, end } = chunk;
    let { got, pieces } = this.#decode(chunk, this.#blob, into);
    if (!got.equals(wanted) && this.#blob.discard(offset, end - offset)) {
      this.#blob.need(offset, end - offset);
      ({ got, pieces } = this.#decode(chunk, this.#blob, into));
    }
    if (!got.equals(wanted)) throw this.#mismatch(offset, wanted, `sha256:${got.toString('hex')}`);
    for (const [index, of] of pieces.digests) this.#keepDigest(index, of);
  }

  /**
   * The digest and the bytes of what comes out, fewer than the chunk has where it cannot be decoded; and the digests of the pieces
   * that lie in it as a whole. It is in `data` then.
   */
  #decode(
    { address, size, inner, point }: LayerChunk,
    source: ByteSource,
    into: Window,
  ): { got: Buffer; size: number; pieces: Pieces } {
    const hasher = createHasher();
    const pieces = new Pieces(address);
    let at = -inner;
    try {
      decodeFrom(this.#table.compression, point, source, inner + size, (output) => {
        const bytes = Buffer.from(output.buffer, output.byteOffset, output.length).subarray(Math.max(-at, 0));
        const from = Math.max(at, 0);
        at += output.length;
        if (bytes.length === 0) return;
        const content = bytes.subarray(0, size - from);
        hasher.update(content);
        pieces.push(content);
        into.put(address + from, content);
        this.#write(this.#data, content, address + from);
        this.counters.filled += content.length;
      });
    } catch (e) {
      if (!(e instanceof LaminaError) || !e.code.startsWith('COMPRESSION_')) throw e;
    }
    this.counters.verified += size;
    return { got: digestBytes(hasher.digest()), size: Math.min(Math.max(at, 0), size), pieces };
  }

  #keepDigest(index: number, digest: Buffer): void {
    this.#write(this.#digests, digest, index * DIGEST);
  }

  /** A cache that cannot be written is slow, not broken. */
  #write({ fd, writable }: { readonly fd: number; readonly writable: boolean }, bytes: Buffer, position: number): void {
    if (!writable) return;
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
    } catch (e) {
      if (!['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'].includes(errnoOf(e) ?? '')) throw e;
    }
  }
}

const HOLE = Buffer.alloc(64);

/** A part of the address space that is wanted; of all bytes that come, its own are kept. */
class Window {
  readonly #buffer: Buffer;
  readonly #start: number;

  constructor(buffer: Buffer, start: number) {
    this.#buffer = buffer;
    this.#start = start;
  }

  put(address: number, bytes: Buffer): void {
    const from = Math.max(this.#start - address, 0);
    const to = Math.min(this.#start + this.#buffer.length - address, bytes.length);
    if (from < to) bytes.copy(this.#buffer, address + from - this.#start, from, to);
  }
}

/** The digests of the pieces of 64 KiB that lie in a run of the address space as a whole. */
class Pieces {
  readonly digests: [number, Buffer][] = [];
  #at: number;
  #hasher = createHasher();
  #filled = 0;

  constructor(start: number) {
    this.#at = start;
  }

  push(bytes: Buffer): void {
    for (let done = 0; done < bytes.length;) {
      const border = (Math.floor(this.#at / CHUNK) + 1) * CHUNK;
      const n = Math.min(border - this.#at, bytes.length - done);
      this.#hasher.update(bytes.subarray(done, done + n));
      this.#filled += n;
      this.#at += n;
      done += n;
      if (this.#at < border) continue;
      if (this.#filled === CHUNK) this.digests.push([border / CHUNK - 1, digestBytes(this.#hasher.digest())]);
      this.#hasher = createHasher();
      this.#filled = 0;
    }
  }
}
