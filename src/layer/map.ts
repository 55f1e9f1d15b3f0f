/**
 * `map`: how one blob yields a layer's stream: compression, and the restart points with the windows that deflate needs.
 * Little-endian:
 *
 *     0   magic "LAMMAP01"
 *     8   u8 compression (0 none, 1 gzip, 2 zstd)   9 u8 length of the diffID   10 u8 length of the blob digest
 *     16  u64 bytes of the blob   24 u64 bytes of the stream   32 u32 restart points   36 u32 notes, bytes of JSON
 *     40  u64 bytes of the stream that the layer's data file got while indexing (they are far from a restart point)
 *     48  diffID, blob digest, notes (a JSON array of texts), padded to 8
 *     ..  restart points, 40 bytes each: u64 input, u64 output, u64 window offset, u32 window length as stored,
 *         u32 window length, u8 bits, u8 kind (0 member, 1 block), 6 bytes zero
 *     ..  windows, each raw deflate
 *     ..  SHA-256 of everything before
 *
 * The checksum finds a damaged file; that its bytes are right the chunk digests prove on every fill.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import type { Compression, RestartPoint } from '../compress/types.js';
import { createHasher, digestBytes, parseDigest, sha256, type Digest } from '../digest/index.js';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';

const MAGIC = Buffer.from('LAMMAP01');
const HEADER = 48;
const POINT = 40;
const DIGEST = 32;
const WINDOW_MAX = 32768;
/** Bytes: deflate makes at most a little more of what it cannot compress. */
const PACKED_MAX = 2 * WINDOW_MAX;
/** Bytes hashed at a time. */
const PIECE = 1024 * 1024;
const compressions: readonly Compression[] = ['none', 'gzip', 'zstd'];

export interface MapFacts {
  readonly compression: Compression;
  readonly diffId: Digest;
  readonly blob: Digest;
  /** Bytes. */
  readonly blobSize: number;
  readonly streamSize: number;
  /** Bytes that were put into the layer's data file while indexing. */
  readonly kept: number;
  /** What was odd but not wrong in the layer. */
  readonly notes: readonly string[];
}

/** A restart point whose window is compressed already, so that this is done while other threads hash. */
export interface PackedPoint extends Omit<RestartPoint, 'window'> {
  readonly windowLength: number;
  readonly packed: Buffer;
}

export function packPoint({ window, ...point }: RestartPoint): PackedPoint {
  const packed = window.length === 0 ? Buffer.alloc(0) : deflateRawSync(window, { level: 1 });
  return { ...point, windowLength: window.length, packed };
}

export function encodeMap(facts: MapFacts, points: readonly PackedPoint[]): Buffer[] {
  const notes = Buffer.from(JSON.stringify(facts.notes));
  const header = Buffer.alloc(HEADER);
  MAGIC.copy(header);
  header.writeUInt8(compressions.indexOf(facts.compression), 8);
  header.writeUInt8(facts.diffId.length, 9);
  header.writeUInt8(facts.blob.length, 10);
  header.writeBigUInt64LE(BigInt(facts.blobSize), 16);
  header.writeBigUInt64LE(BigInt(facts.streamSize), 24);
  header.writeUInt32LE(points.length, 32);
  header.writeUInt32LE(notes.length, 36);
  header.writeBigUInt64LE(BigInt(facts.kept), 40);
  const names = Buffer.concat([Buffer.from(facts.diffId + facts.blob, 'latin1'), notes]);
  const padding = Buffer.alloc(-names.length & 7);
  const table = Buffer.alloc(points.length * POINT);
  let offset = HEADER + names.length + padding.length + table.length;
  points.forEach((p, i) => {
    const at = i * POINT;
    table.writeBigUInt64LE(BigInt(p.input), at);
    table.writeBigUInt64LE(BigInt(p.output), at + 8);
    table.writeBigUInt64LE(BigInt(offset), at + 16);
    table.writeUInt32LE(p.packed.length, at + 24);
    table.writeUInt32LE(p.windowLength, at + 28);
    table.writeUInt8(p.bits, at + 32);
    table.writeUInt8(p.kind === 'member' ? 0 : 1, at + 33);
    offset += p.packed.length;
  });
  const body = Buffer.concat([header, names, padding, table, ...points.map((p) => p.packed)]);
  return [body, sha256(body)];
}

/** An open map. What grows with the windows stays in the file: they are read one by one when they are wanted. */
export class LayerMap {
  readonly facts: MapFacts;
  readonly count: number;
  readonly #fd: number;
  readonly #path: string;
  /** The table of restart points. */
  readonly #table: Buffer;

  private constructor(facts: MapFacts, fd: number, path: string, table: Buffer) {
    this.facts = facts;
    this.#fd = fd;
    this.#path = path;
    this.#table = table;
    this.count = table.length / POINT;
  }

  /** Throws STORE_CORRUPT; undefined where there is no such file. The caller closes it. */
  static open(path: string): LayerMap | undefined {
    let fd: number | undefined;
    try {
      fd = openSync(path, 'r');
      return LayerMap.#check(fd, path);
    } catch (e) {
      if (fd !== undefined) closeSync(fd);
      if (errnoOf(e) === 'ENOENT') return undefined;
      if (e instanceof LaminaError && e.code === 'STORE_CORRUPT') throw e;
      // What is damaged is made anew; what cannot be read now may be right.
      if (/^E[A-Z0-9]+$/.test(errnoOf(e) ?? '')) throw toLaminaError(e, `Cannot read ${path}`);
      throw corrupt(path, String(e));
    }
  }

  /** What a map says, apart from its points. Throws STORE_CORRUPT; undefined where there is no such file. */
  static describe(path: string): { readonly facts: MapFacts; readonly count: number } | undefined {
    const map = LayerMap.open(path);
    map?.close();
    return map;
  }

  static #check(fd: number, path: string): LayerMap {
    const end = fstatSync(fd).size - DIGEST;
    const header = readAt(fd, 0, HEADER);
    if (end < HEADER || !header.subarray(0, 8).equals(MAGIC)) throw corrupt(path, 'it is not a map file');
    if (!hashOf(fd, end).equals(readAt(fd, end, DIGEST))) throw corrupt(path, 'its checksum does not match');
    const diffIdEnd = header.readUInt8(9);
    const blobEnd = diffIdEnd + header.readUInt8(10);
    const notesEnd = blobEnd + header.readUInt32LE(36);
    const table = Math.ceil((HEADER + notesEnd) / 8) * 8;
    const count = header.readUInt32LE(32);
    const compression = compressions[header.readUInt8(8)];
    if (compression === undefined || table + count * POINT > end) throw corrupt(path, 'its sizes are wrong');
    const names = readAt(fd, HEADER, notesEnd);
    const facts: MapFacts = {
      compression,
      diffId: parseDigest(names.toString('latin1', 0, diffIdEnd)),
      blob: parseDigest(names.toString('latin1', diffIdEnd, blobEnd)),
      blobSize: Number(header.readBigUInt64LE(16)),
      streamSize: Number(header.readBigUInt64LE(24)),
      kept: Number(header.readBigUInt64LE(40)),
      notes: JSON.parse(names.toString('utf8', blobEnd, notesEnd)) as string[],
    };
    return new LayerMap(facts, fd, path, readAt(fd, table, count * POINT));
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Index of the last point at or before byte `output` of the stream; -1 where there is none. */
  find(output: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.output(middle) <= output) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Bytes of the stream before point `index`; the whole stream's for the point after the last. */
  output(index: number): number {
    if (index >= this.count) return this.facts.streamSize;
    return Number(this.#table.readBigUInt64LE(index * POINT + 8));
  }

  /** Bytes of the blob from which bytes `first` to `beyond` of the stream are decoded. */
  input(first: number, beyond: number): { start: number; end: number } {
    const from = this.find(first);
    const next = this.find(beyond - 1) + 1;
    const at = (index: number): number => Number(this.#table.readBigUInt64LE(index * POINT));
    // The byte before a point may belong to what follows it.
    return { start: from < 0 ? 0 : Math.max(at(from) - 1, 0), end: next < this.count ? at(next) : this.facts.blobSize };
  }

  /**
   * Whether points ascend from the beginning of the stream to its end, none further than `gap` (bytes) from the next, and begin
   * within a byte of the blob.
   */
  isOrderly(gap: { readonly output: number; readonly input: number }): boolean {
    const { blobSize, streamSize } = this.facts;
    const input = (index: number): number => Number(this.#table.readBigUInt64LE(index * POINT));
    if (this.count === 0) return streamSize === 0;
    if (this.output(0) !== 0) return false;
    for (let i = 0; i < this.count; i++) {
      const last = i + 1 === this.count;
      const bits = this.#table.readUInt8(i * POINT + 32);
      if (bits > 7 || (bits > 0 && input(i) === 0)) return false;
      const out = this.output(i + 1) - this.output(i);
      const into = (last ? blobSize : input(i + 1)) - input(i);
      if (!(out > 0 || (last && out === 0)) || out > gap.output || !(into > 0) || into > gap.input) return false;
    }
    return true;
  }

  /** Throws STORE_CORRUPT. */
  point(index: number): RestartPoint {
    const at = index * POINT;
    const b = this.#table;
    const offset = Number(b.readBigUInt64LE(at + 16));
    if (!Number.isSafeInteger(offset)) throw corrupt(this.#path, 'a window is damaged');
    const packed = readAt(this.#fd, offset, Math.min(b.readUInt32LE(at + 24), PACKED_MAX));
    const windowLength = Math.min(b.readUInt32LE(at + 28), WINDOW_MAX);
    const window = windowLength === 0 ? packed : unpacked(packed);
    if (window?.length !== windowLength) throw corrupt(this.#path, 'a window is damaged');
    return {
      input: Number(b.readBigUInt64LE(at)),
      output: Number(b.readBigUInt64LE(at + 8)),
      bits: b.readUInt8(at + 32),
      kind: b.readUInt8(at + 33) === 0 ? 'member' : 'block',
      window,
    };
  }
}

/** Undefined where it is damaged. */
function unpacked(window: Buffer): Buffer | undefined {
  try {
    return inflateRawSync(window, { maxOutputLength: WINDOW_MAX });
  } catch {
    return undefined;
  }
}

/** Exactly `length` bytes, or fewer at the end of the file. */
function readAt(fd: number, position: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const n = readSync(fd, bytes, done, length - done, position + done);
    if (n === 0) break;
    done += n;
  }
  return bytes.subarray(0, done);
}

function hashOf(fd: number, end: number): Buffer {
  const hasher = createHasher();
  for (let at = 0; at < end; at += PIECE) hasher.update(readAt(fd, at, Math.min(PIECE, end - at)));
  return digestBytes(hasher.digest());
}

function corrupt(path: string, why: string): LaminaError {
  return new LaminaError('STORE_CORRUPT', `Cannot use ${path}: ${why}`, {
    details: { path },
    hint: 'The next mount of the image makes it anew.',
  });
}
