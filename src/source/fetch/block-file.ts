/**
 * What is there of a registry's blob: a sparse file of the blob's size, and beside it `.blocks`, one byte for each block of
 * 4 KiB: 1 where the block has been fetched. The byte is written after the block. Both are only a cache: what is read is
 * verified by who reads it, and a block that turns out to be wrong, after a power failure say, is fetched again. So nothing
 * is synced, and several processes may write the same blob at once.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf, toLaminaError } from '../../errors.js';

/** Bytes. */
export const BLOCK = 4096;

const PRESENT = 1;
/** Blocks looked at in one read. */
const LOOK = 256 * 1024;

/** Bytes from `start` up to `end`. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export class BlockFile {
  /** Bytes of the blob. */
  readonly size: number;
  readonly #fd: number;
  readonly #blocks: number;
  readonly #path: string;

  private constructor(path: string, size: number, fd: number, blocks: number) {
    this.#path = path;
    this.size = size;
    this.#fd = fd;
    this.#blocks = blocks;
  }

  /** Undefined where nothing of the blob has been fetched. Throws PERMISSION_DENIED, IO. */
  static open(path: string, size: number): BlockFile | undefined {
    return BlockFile.#open(path, size, constants.O_RDONLY);
  }

  /** To be written to. Makes what is missing. Throws PERMISSION_DENIED, DISK_FULL, IO. */
  static create(path: string, size: number): BlockFile {
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    } catch (e) {
      throw toLaminaError(e, `Cannot make ${path}`);
    }
    const file = BlockFile.#open(path, size, constants.O_RDWR | constants.O_CREAT)!;
    try {
      grow(file.#blocks, Math.ceil(size / BLOCK));
      grow(file.#fd, size);
    } catch (e) {
      file.close();
      throw toLaminaError(e, `Cannot make ${path}`);
    }
    return file;
  }

  static #open(path: string, size: number, flags: number): BlockFile | undefined {
    let blocks: number | undefined;
    try {
      blocks = openSync(`${path}.blocks`, flags, 0o600);
      return new BlockFile(path, size, openSync(path, flags, 0o600), blocks);
    } catch (e) {
      if (blocks !== undefined) closeSync(blocks);
      if (errnoOf(e) === 'ENOENT') return undefined;
      throw toLaminaError(e, `Cannot open ${path}`);
    }
  }

  /** Whether it is still what has its name. */
  isInPlace(): boolean {
    const there = statSync(this.#path, { throwIfNoEntry: false });
    return there !== undefined && there.ino === fstatSync(this.#fd).ino;
  }

  close(): void {
    closeSync(this.#fd);
    closeSync(this.#blocks);
  }

  has(start: number, end: number): boolean {
    return this.missing(start, end) === undefined;
  }

  /** The first run of blocks in `start` to `end` that are not there: whole blocks, or up to the end of the blob. */
  missing(start: number, end: number): ByteRange | undefined {
    if (start >= Math.min(end, this.size)) return undefined;
    const last = Math.ceil(Math.min(end, this.size) / BLOCK);
    const first = this.#find(Math.floor(start / BLOCK), last, false);
    if (first >= last) return undefined;
    const beyond = this.#find(first, last, true);
    return { start: first * BLOCK, end: Math.min(beyond * BLOCK, this.size) };
  }

  /** The first block from `first` up to `last` that is there, or is not; `last` where there is no such block. */
  #find(first: number, last: number, present: boolean): number {
    const piece = Buffer.alloc(Math.min(LOOK, Math.max(last - first, 0)));
    for (let at = first; at < last;) {
      const wanted = Math.min(piece.length, last - at);
      piece.fill(0);
      readSync(this.#blocks, piece, 0, wanted, at);
      const i = piece.subarray(0, wanted).indexOf(present ? PRESENT : 0);
      if (i >= 0) return at + i;
      at += wanted;
    }
    return last;
  }

  /** Bytes of the blob that are there. */
  count(): number {
    const all = Math.ceil(this.size / BLOCK);
    const piece = Buffer.alloc(Math.min(LOOK, all));
    let present = 0;
    for (let at = 0; at < all; at += piece.length) {
      const n = readSync(this.#blocks, piece, 0, Math.min(piece.length, all - at), at);
      for (let i = 0; i < n; i++) present += piece[i] === PRESENT ? 1 : 0;
    }
    return Math.min(present * BLOCK, this.size);
  }

  /** Bytes read, whether they are there or not; fewer than asked only at the end. Throws IO. */
  read(offset: number, into: Uint8Array): number {
    const want = Math.min(into.length, this.size - offset);
    let done = 0;
    try {
      while (done < want) {
        const n = readSync(this.#fd, into, done, want - done, offset + done);
        if (n === 0) break;
        done += n;
      }
    } catch (e) {
      throw toLaminaError(e, `Reading ${this.#path}`);
    }
    return done;
  }

  /** Throws DISK_FULL, IO. */
  write(offset: number, bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length;) {
        done += writeSync(this.#fd, bytes, done, bytes.length - done, offset + done);
      }
    } catch (e) {
      throw toLaminaError(e, `Writing ${this.#path}`);
    }
  }

  /** Says that the blocks that lie in `start` to `end` as a whole are there. The last one may be short. */
  mark(start: number, end: number): void {
    this.#set(Math.ceil(start / BLOCK), end >= this.size ? Math.ceil(end / BLOCK) : Math.floor(end / BLOCK), PRESENT);
  }

  /** Says that no block that `start` to `end` touches is there. */
  unmark(start: number, end: number): void {
    this.#set(Math.floor(start / BLOCK), Math.ceil(Math.min(end, this.size) / BLOCK), 0);
  }

  #set(first: number, last: number, value: number): void {
    if (last <= first) return;
    try {
      writeSync(this.#blocks, Buffer.alloc(last - first, value), 0, last - first, first);
    } catch (e) {
      throw toLaminaError(e, `Writing ${this.#path}.blocks`);
    }
  }
}

/** Never cuts anything: what is there may be right. */
function grow(fd: number, size: number): void {
  if (fstatSync(fd).size < size) ftruncateSync(fd, size);
}

/** Bytes of a blob that have been fetched. */
export function fetchedBytes(path: string, size: number): number {
  const file = BlockFile.open(path, size);
  try {
    return file?.count() ?? 0;
  } finally {
    file?.close();
  }
}
