/**
 * Reads a tree from the bytes of its EROFS image, without a parse step and without an object per inode: a node id is a
 * nid, and every method goes to the bytes (a mapping of the file).
 *
 * The bytes may be damaged: every offset is checked before it is used, and every loop has a bound within the image.
 * All methods throw EROFS_INVALID then. Those of the FUSE hot path allocate nothing.
 */
import { findEntry, listEntries, type EntryVisitor } from './directory-reader.js';
import { ImageBytes } from './image-bytes.js';
import {
  BLOCK,
  CHUNK_INDEX,
  HOLE,
  TARGET_MAX,
  chunk,
  erofsInvalid,
  getS64,
  getU64,
  ino,
  xattrIndex,
  xattrPrefix,
} from './layout.js';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG } from './tree.js';

export type { EntryVisitor };

/** A run of a file's bytes. */
export interface RangeResult {
  /** 1-based; 0: a hole. */
  device: number;
  /** Bytes from the start of the device's address space; 0 in a hole. */
  position: number;
  /** Bytes; 0 only at or after the end of the file. */
  length: number;
}

/** A run need not be longer than a read: beyond this, neighbouring chunks are not joined. Bytes. */
const RUN_MAX = 2 * 1024 * 1024;
/** File sizes from 2^53 on are not exact. */
const SIZE_MAX = Number.MAX_SAFE_INTEGER;
const DOT = 0x2e;

export class ErofsReader {
  /** Some inode has xattrs. */
  readonly hasXattrs: boolean;
  /** Some inode has a POSIX ACL. */
  readonly hasAcls: boolean;
  readonly inodeCount: number;
  /** Units of 512 bytes: the image and its devices, as the kernel's statfs counts. */
  readonly totalBlocks: number;
  readonly deviceCount: number;
  /** Bytes of the image. */
  readonly length: number;
  readonly #image: ImageBytes;
  readonly #view: DataView;
  /** Reused by {@link mapRange}. */
  readonly #range: RangeResult = { device: 0, position: 0, length: 0 };

  /** `bytes` is a whole image, and must stay as long as the reader is used. */
  constructor(bytes: Buffer) {
    const image = new ImageBytes(bytes);
    this.#image = image;
    this.#view = image.view;
    this.hasXattrs = image.hasXattrs;
    this.hasAcls = image.hasAcls;
    this.inodeCount = image.inodeCount;
    this.totalBlocks = image.totalBlocks;
    this.deviceCount = image.deviceCount;
    this.length = bytes.length;
  }

  /**
   * The nid of `name[start, end)` in a directory, 0 where there is no such name. "." of anything is itself: the kernel
   * asks for it to find an inode by its file handle (fuse_get_dentry).
   */
  lookup(parent: number, name: Uint8Array, start: number, end: number): number {
    const at = this.#image.inode(parent);
    if (end - start === 1 && name[start] === DOT) return parent;
    return this.#image.type(at) === S_IFDIR ? findEntry(this.#image, at, name, start, end) : 0;
  }

  mode(node: number): number {
    return this.#view.getUint16(this.#image.inode(node) + ino.mode, true);
  }

  uid(node: number): number {
    return this.#view.getUint32(this.#image.inode(node) + ino.uid, true);
  }

  gid(node: number): number {
    return this.#view.getUint32(this.#image.inode(node) + ino.gid, true);
  }

  nlink(node: number): number {
    return this.#view.getUint32(this.#image.inode(node) + ino.nlink, true);
  }

  /** Linux encoding; 0 for what is no device. */
  rdev(node: number): number {
    const at = this.#image.inode(node);
    const type = this.#image.type(at);
    return type === S_IFCHR || type === S_IFBLK ? this.#view.getUint32(at + ino.union, true) : 0;
  }

  /** Bytes. Of a directory: of its entries as they are in the image. */
  size(node: number): number {
    return this.#image.sizeOf(this.#image.inode(node), SIZE_MAX);
  }

  /** Units of 512 bytes, without a file's holes. */
  blocks(node: number): number {
    const at = this.#image.inode(node);
    const blocks = Math.ceil(this.#image.sizeOf(at, SIZE_MAX) / BLOCK);
    if (this.#image.type(at) !== S_IFREG) return blocks;
    return Math.max(0, blocks - getU64(this.#view, at + ino.holes));
  }

  /** Seconds since 1970. */
  mtime(node: number): number {
    return getS64(this.#view, this.#image.inode(node) + ino.mtime);
  }

  mtimeNsec(node: number): number {
    return this.#view.getUint32(this.#image.inode(node) + ino.mtimeNsec, true);
  }

  /** The inode's place in its layer's tar, 0 for none: see {@link Inode.order}. */
  order(node: number): number {
    return this.#view.getUint32(this.#image.inode(node) + ino.ino, true);
  }

  /** Entries from `cookie` on: 0, or the `next` of the entry before. */
  readdir(node: number, cookie: number, visit: EntryVisitor): void {
    const at = this.#image.inode(node);
    if (this.#image.type(at) !== S_IFDIR) throw erofsInvalid('not a directory', node);
    listEntries(this.#image, at, cookie, visit);
  }

  /** A symlink's target: the image's bytes where they lie together, else a copy. */
  readlink(node: number): Buffer {
    const image = this.#image;
    const at = image.inode(node);
    if (image.type(at) !== S_IFLNK) throw erofsInvalid('not a symlink', node);
    const size = image.sizeOf(at, TARGET_MAX);
    if (size === 0) throw erofsInvalid('a symlink without a target', node);
    const before = (Math.ceil(size / BLOCK) - 1) * BLOCK;
    const last = image.block(at, size, before / BLOCK);
    const start = image.block(at, size, 0);
    if (last === start + before) return image.bytes.subarray(start, start + size);
    return Buffer.concat([
      image.bytes.subarray(start, start + before),
      image.bytes.subarray(last, last + size - before),
    ]);
  }

  /** The value of the xattr with this full name (latin1), part of the image's bytes; undefined where there is none. */
  xattr(node: number, name: string): Buffer | undefined {
    const image = this.#image;
    const at = image.inode(node);
    const index = xattrIndex(name);
    if (index === 0) return undefined;
    const suffix = name.slice(xattrPrefix(index)?.length);
    const end = image.xattrEnd(at);
    for (let entry = image.firstXattr(at), next; entry < end; entry = next) {
      next = image.nextXattr(entry, end);
      if (image.bytes[entry + 1] === index && image.xattrSuffix(entry) === suffix) return image.xattrValue(entry);
    }
    return undefined;
  }

  /** Full names in latin1, ascending. */
  xattrNames(node: number): string[] {
    const names: string[] = [];
    this.eachXattr(node, (name) => names.push(name));
    return names;
  }

  /** All xattrs, with full names in latin1, ascending; values are part of the image's bytes. */
  eachXattr(node: number, visit: (name: string, value: Buffer) => void): void {
    const image = this.#image;
    const at = image.inode(node);
    const end = image.xattrEnd(at);
    for (let entry = image.firstXattr(at), next; entry < end; entry = next) {
      next = image.nextXattr(entry, end);
      const prefix = xattrPrefix(image.bytes[entry + 1]!);
      if (prefix === undefined) throw erofsInvalid('an xattr of an unknown namespace', node);
      visit(prefix + image.xattrSuffix(entry), image.xattrValue(entry));
    }
  }

  /**
   * Where a regular file's bytes from `offset` on are, as far as they lie together (chunks are joined up to
   * {@link RUN_MAX}). The result is one object, used again by the next call.
   */
  mapRange(node: number, offset: number): RangeResult {
    const image = this.#image;
    const range = this.#range;
    range.device = 0;
    range.position = 0;
    range.length = 0;
    const at = image.inode(node);
    const size = image.sizeOf(at, SIZE_MAX);
    if (offset >= size) return range;
    const bytes = image.chunkBytes(at);
    const table = image.chunkTable(at, size, bytes);
    const first = Math.floor(offset / bytes);
    const block = this.#block(table, first);
    const device = this.#device(table, first);
    const step = block === HOLE ? 0 : bytes / BLOCK;
    let i = first + 1;
    while (i * bytes < size && i * bytes - offset < RUN_MAX) {
      if (this.#block(table, i) !== block + (i - first) * step || this.#device(table, i) !== device) break;
      i++;
    }
    const end = Math.min(i * bytes, size);
    range.length = end - offset;
    if (block === HOLE) return range;
    if (device === 0 || device > image.deviceCount) throw erofsInvalid(`data on device ${device}, which is none`, node);
    if (block + Math.ceil((end - first * bytes) / BLOCK) > image.deviceBlocks(device)) {
      throw erofsInvalid(`data beyond the end of device ${device}`, node);
    }
    range.device = device;
    range.position = block * BLOCK + (offset - first * bytes);
    return range;
  }

  /** The first byte of data at or after `offset`, -1 where only a hole is left or the file has ended. */
  seekData(node: number, offset: number): number {
    return this.#seek(node, offset, false);
  }

  /** The first byte of a hole at or after `offset`; the end of the file is one. -1 at or after that end. */
  seekHole(node: number, offset: number): number {
    return this.#seek(node, offset, true);
  }

  #seek(node: number, offset: number, hole: boolean): number {
    const at = this.#image.inode(node);
    const size = this.#image.sizeOf(at, SIZE_MAX);
    if (offset >= size) return -1;
    const bytes = this.#image.chunkBytes(at);
    const table = this.#image.chunkTable(at, size, bytes);
    for (let i = Math.floor(offset / bytes); i * bytes < size; i++) {
      if ((this.#block(table, i) === HOLE) === hole) return Math.max(offset, i * bytes);
    }
    return hole ? size : -1;
  }

  #block(table: number, i: number): number {
    return this.#view.getUint32(table + i * CHUNK_INDEX + chunk.block, true);
  }

  /** 0 for a hole. */
  #device(table: number, i: number): number {
    return this.#block(table, i) === HOLE ? 0 : this.#view.getUint16(table + i * CHUNK_INDEX + chunk.device, true);
  }

  /** Bytes of the image that only this inode uses. The sum over all inodes is within the image's length. */
  footprint(node: number): number {
    const image = this.#image;
    const at = image.inode(node);
    const size = image.sizeOf(at, SIZE_MAX);
    const own = image.xattrEnd(at) - at;
    switch (image.type(at)) {
      case S_IFREG:
        return size === 0 ? own : own + Math.ceil(size / image.chunkBytes(at)) * CHUNK_INDEX;
      case S_IFDIR:
      case S_IFLNK:
        return own + size;
      default:
        return own;
    }
  }
}
