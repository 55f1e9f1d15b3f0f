/**
 * `toc`: the chunks of a layer that is known by its table of contents alone: where each is in the address space and in the
 * blob, and its digest. Little-endian, sealed (src/store/sealed.ts):
 *
 *     0   magic "LAMTOC01"   8 u8 compression (1 gzip, 2 zstd)   16 u64 bytes of the address space   24 u32 chunks
 *     32  chunks, 80 bytes each, by ascending addresses:
 *         u64 address, u64 size, u64 offset and u64 end in the blob, u64 bytes of the member before the content,
 *         u8 1 for zeros, 7 bytes zero, SHA-256
 */
import { setU64 } from '../erofs/layout.js';
import { LaminaError } from '../errors.js';
import type { Compression, RestartPoint } from '../compress/types.js';
import type { ByteRange } from '../source/fetch/block-file.js';
import type { TocChunk, TocDocument } from '../source/toc/document.js';

const MAGIC = Buffer.from('LAMTOC01');
const HEADER = 32;
const RECORD = 80;
const DIGEST_AT = 48;
const DIGEST = 32;
const compressions: readonly Compression[] = ['none', 'gzip', 'zstd'];

export function encodeTocTable({ chunks, addressSpace }: TocDocument, compression: Compression): Buffer {
  const bytes = Buffer.alloc(HEADER + chunks.length * RECORD);
  MAGIC.copy(bytes);
  bytes.writeUInt8(compressions.indexOf(compression), 8);
  bytes.writeUInt32LE(chunks.length, 24);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  setU64(view, 16, addressSpace);
  let at = HEADER;
  for (const { address, size, offset, end, inner, digest } of chunks) {
    setU64(view, at, address);
    setU64(view, at + 8, size);
    setU64(view, at + 16, offset);
    setU64(view, at + 24, end);
    setU64(view, at + 32, inner);
    if (digest === undefined) bytes.writeUInt8(1, at + 40);
    else bytes.set(digest, at + DIGEST_AT);
    at += RECORD;
  }
  return bytes;
}

/** Bytes of the blob between two parts that are fetched together all the same. */
const GAP = 32 * 1024;

/** The parts of the blob that have some chunks. */
export function blobParts(chunks: Iterable<TocChunk>): ByteRange[] {
  const parts: { start: number; end: number }[] = [];
  const there = [...chunks].filter(({ digest }) => digest !== undefined).sort((a, b) => a.offset - b.offset);
  for (const { offset, end } of there) {
    const last = parts.at(-1);
    if (last !== undefined && offset <= last.end + GAP) last.end = Math.max(last.end, end);
    else parts.push({ start: offset, end });
  }
  return parts;
}

/** A chunk of an index from elsewhere, and how it is had. */
export interface LayerChunk extends TocChunk {
  /** Where decompression starts: `inner` bytes come before the content. */
  readonly point: RestartPoint;
  /** What the digest is of: the content, or bytes `offset` to `end` of the blob. */
  readonly digestOf: 'content' | 'blob';
}

export interface ChunkTable {
  readonly compression: Compression;
  /** Bytes. */
  readonly addressSpace: number;
  readonly count: number;
  /** By ascending addresses. */
  chunk(index: number): LayerChunk;
  /** Chunks that have bytes in `start` to `end` of the address space. */
  overlapping(start: number, end: number): Iterable<LayerChunk>;
}

const NO_WINDOW = Buffer.alloc(0);

export class TocTable implements ChunkTable {
  readonly compression: Compression;
  /** Bytes. */
  readonly addressSpace: number;
  readonly count: number;
  readonly #bytes: Buffer;

  /** `bytes`: what was sealed, perhaps with padding behind. Throws STORE_CORRUPT. */
  constructor(bytes: Buffer, path: string) {
    const compression = bytes.length < HEADER ? undefined : compressions[bytes.readUInt8(8)];
    const count = bytes.length < HEADER ? 0 : bytes.readUInt32LE(24);
    if (compression === undefined || !bytes.subarray(0, 8).equals(MAGIC) || HEADER + count * RECORD > bytes.length) {
      throw new LaminaError('STORE_CORRUPT', `Cannot use ${path}: it is no table of chunks`, { details: { path } });
    }
    this.#bytes = bytes;
    this.compression = compression;
    this.addressSpace = Number(bytes.readBigUInt64LE(16));
    this.count = count;
  }

  chunk(index: number): LayerChunk {
    const at = HEADER + index * RECORD;
    const number = (k: number): number => getU64(this.#bytes, at + 8 * k);
    const zeros = this.#bytes.readUInt8(at + 40) === 1;
    const digest = zeros ? undefined : this.#bytes.subarray(at + DIGEST_AT, at + DIGEST_AT + DIGEST);
    const [offset, inner] = [number(2), number(4)];
    const point = { input: offset, output: 0, bits: 0, kind: 'member' as const, window: NO_WINDOW };
    return { address: number(0), size: number(1), offset, end: number(3), inner, digest, point, digestOf: 'content' };
  }

  *overlapping(start: number, end: number): Generator<LayerChunk> {
    for (let i = this.#firstBehind(start); i < this.count; i++) {
      const chunk = this.chunk(i);
      if (chunk.address >= end) return;
      yield chunk;
    }
  }

  /** The first chunk that ends behind `address`. */
  #firstBehind(address: number): number {
    let low = 0;
    for (let high = this.count; low < high;) {
      const middle = (low + high) >>> 1;
      const at = HEADER + middle * RECORD;
      const end = getU64(this.#bytes, at) + getU64(this.#bytes, at + 8);
      if (end <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Of up to 53 bits: a table is made of such. */
function getU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}
