/**
 * What the writer decides before it writes: the order of the inodes and the place of each. The walk is breadth first,
 * so that the inodes of a directory lie together in name order and a listing with attributes reads few pages. Nothing
 * here is recursive: a path may be thousands of names deep.
 *
 * Inodes and names are rows of parallel arrays, not objects: a tree may have a million of them.
 */
import { LaminaError } from '../errors.js';
import { planChunks } from './chunk-index.js';
import { directorySize } from './directory.js';
import {
  BLOCK,
  CHUNK_INDEX,
  INODE_SIZE,
  INODE_SLOT,
  NAME_MAX,
  ROOT_NID,
  TARGET_MAX,
  fileTypes,
  format,
  roundUp,
} from './layout.js';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Inode } from './tree.js';
import { isAcl, xattrAreaSize } from './xattr-area.js';

const U32_MAX = 0xffffffff;
/** Chunk indexes of a whole tree: 256 MiB of them. A sparse file of 1 KiB of tar may ask for 32 MiB. */
const INDEXES_MAX = 32 * 1024 * 1024;

export class TreePlan {
  readonly devices: readonly number[];

  // By inode, in the order of their nids.
  readonly inodes: Inode[] = [];
  readonly nlinks: number[] = [];
  /** A directory's names are `names[from, to)`. */
  readonly from: number[] = [];
  readonly to: number[] = [];
  /** Bytes from the start of the inode area. */
  readonly at: number[] = [];
  readonly xattrSize: number[] = [];
  /** i_format: the data layout. */
  readonly format: number[] = [];
  /** First block in the data area, of directories and symlinks that have some there. */
  readonly block: number[] = [];

  // By name: every directory's names, sorted, and the inodes that they lead to.
  readonly names: string[] = [];
  readonly leadsTo: number[] = [];

  inodeBytes = ROOT_NID * INODE_SLOT;
  dataBlocks = 0;
  hasXattrs = false;
  hasAcls = false;
  #indexes = 0;

  // For messages: the first name that leads to an inode, and the directory that it is in.
  readonly #name: number[] = [];
  readonly #parent: number[] = [];

  /** Throws METADATA_INVALID, LIMIT_EXCEEDED. */
  constructor(root: Inode, devices: readonly number[]) {
    this.devices = devices;
    this.#walk(root);
    for (const [i, inode] of this.inodes.entries()) this.#place(i, inode);
    this.inodeBytes = roundUp(this.inodeBytes, BLOCK);
  }

  nid(i: number): number {
    return this.at[i]! / INODE_SLOT;
  }

  /** The inode's path as text, for messages. */
  about(i: number): string {
    const parts: string[] = [];
    for (let k = i; k > 0 && parts.length < 100; k = this.#parent[k]!) parts.push(this.names[this.#name[k]!]!);
    const path = `/${parts.reverse().join('/')}`.slice(-300);
    return JSON.stringify(Buffer.from(path, 'latin1').toString('utf8'));
  }

  #walk(root: Inode): void {
    const seen = new Map<Inode, number>([[root, 0]]);
    this.#add(root, 0, -1);
    if (root.children === undefined) throw this.#invalid(0, 'the root is not a directory');
    for (let parent = 0; parent < this.inodes.length; parent++) {
      const { children } = this.inodes[parent]!;
      this.from.push(this.names.length);
      if (children !== undefined) this.#walkDirectory(parent, children, seen);
      this.to.push(this.names.length);
    }
  }

  #walkDirectory(parent: number, children: ReadonlyMap<string, Inode>, seen: Map<Inode, number>): void {
    if (children.has('.') || children.has('..')) throw this.#invalid(parent, 'it has an entry named "." or ".."');
    // The default order is by UTF-16 code units: of latin1 strings, by bytes.
    for (const name of ['.', '..', ...children.keys()].sort()) {
      const place = this.names.push(name) - 1;
      const child = children.get(name);
      if (child === undefined) {
        this.leadsTo.push(name === '.' ? parent : this.#parent[parent]!);
        continue;
      }
      if (!/^[^\0/\u0100-\uffff]+$/.test(name) || name.length > NAME_MAX) {
        throw this.#invalid(parent, `it has an entry named ${JSON.stringify(name.slice(0, 300))}`);
      }
      const known = seen.get(child);
      this.leadsTo.push(known ?? this.inodes.length);
      if (known === undefined) {
        seen.set(child, this.inodes.length);
        this.#add(child, parent, place);
      } else if (child.children === undefined) {
        this.nlinks[known]!++;
      } else {
        throw this.#invalid(known, 'it is a directory with two names');
      }
      if (child.children !== undefined) this.nlinks[parent]!++;
    }
  }

  #add(inode: Inode, parent: number, name: number): void {
    const i = this.inodes.push(inode) - 1;
    this.#parent.push(parent);
    this.#name.push(name);
    this.nlinks.push(inode.children === undefined ? 1 : 2);
    const type = inode.mode & S_IFMT;
    if (inode.mode >>> 16 !== 0 || fileTypes[type >> 12] === 0) {
      throw this.#invalid(i, `its mode is ${inode.mode.toString(8)}`);
    }
    if ((type === S_IFDIR) !== (inode.children !== undefined)) {
      throw this.#invalid(i, 'it has children and is no directory, or the other way round');
    }
    if (type === S_IFLNK) this.#checkTarget(i, inode.target ?? '');
    if (type === S_IFREG && !(Number.isSafeInteger(inode.size) && inode.size >= 0)) {
      throw this.#invalid(i, `its size is ${inode.size}`);
    }
    if (type !== S_IFREG && inode.extents !== undefined && inode.extents.length > 0) {
      throw this.#invalid(i, 'it has data and is no regular file');
    }
    if (!Number.isSafeInteger(inode.mtime) || !(inode.mtimeNsec >= 0 && inode.mtimeNsec < 1e9)) {
      throw this.#invalid(i, `its time is ${inode.mtime} s and ${inode.mtimeNsec} ns`);
    }
    for (const field of ['uid', 'gid', 'rdev', 'order'] as const) {
      const value = inode[field];
      if (!(value >= 0 && value <= U32_MAX)) throw this.#tooLarge(i, field, value, U32_MAX);
    }
  }

  #checkTarget(i: number, target: string): void {
    if (!/^[^\0\u0100-\uffff]+$/.test(target)) throw this.#invalid(i, 'a symlink needs a target without NUL');
    if (target.length > TARGET_MAX) throw this.#tooLarge(i, 'target length', target.length, TARGET_MAX);
  }

  #place(i: number, inode: Inode): void {
    const about = (): string => this.about(i);
    const xattrSize = xattrAreaSize(inode.xattrs, about);
    this.xattrSize.push(xattrSize);
    if (xattrSize > 0 && inode.xattrs !== undefined) {
      this.hasXattrs = true;
      for (const name of inode.xattrs.keys()) this.hasAcls ||= isAcl(name);
    }
    const head = INODE_SIZE + xattrSize;
    switch (inode.mode & S_IFMT) {
      case S_IFDIR:
        this.#placeFlat(head, directorySize(this.names, this.from[i]!, this.to[i]!));
        break;
      case S_IFLNK:
        this.#placeFlat(head, inode.target!.length);
        break;
      case S_IFREG: {
        const { count } = planChunks(inode.size, inode.extents, this.devices, about);
        this.#indexes += count;
        if (this.#indexes > INDEXES_MAX)
          throw this.#tooLarge(i, 'number of chunks in the tree', this.#indexes, INDEXES_MAX);
        if (count === 0) this.#take(this.inodeBytes, head, format.plain, 0);
        else this.#take(this.inodeBytes, roundUp(head, CHUNK_INDEX) + count * CHUNK_INDEX, format.chunked, 0);
        break;
      }
      default:
        this.#take(this.inodeBytes, head, format.plain, 0);
    }
  }

  /**
   * Directory or symlink data: whole blocks in the data area, the rest behind the inode. That inline part must lie in
   * one block (erofs_map_blocks), so the inode may have to move on. Where moving would waste more than a block of its
   * own does, or cannot help, all of it goes to the data area. The root never moves: its nid is 1.
   */
  #placeFlat(head: number, size: number): void {
    const tail = size % BLOCK;
    const start = (this.inodeBytes + head) % BLOCK;
    const move = start + tail > BLOCK ? roundUp(BLOCK - start, INODE_SLOT) : 0;
    const fits = ((start + move) % BLOCK) + tail <= BLOCK;
    const inline = tail > 0 && fits && move <= BLOCK - tail && (move === 0 || this.at.length > 0);
    if (inline) this.#take(this.inodeBytes + move, head + tail, format.inline, Math.floor(size / BLOCK));
    else this.#take(this.inodeBytes, head, format.plain, Math.ceil(size / BLOCK));
  }

  #take(at: number, bytes: number, layout: number, blocks: number): void {
    this.at.push(at);
    this.format.push(layout);
    this.block.push(this.dataBlocks);
    this.dataBlocks += blocks;
    this.inodeBytes = roundUp(at + bytes, INODE_SLOT);
  }

  #invalid(i: number, why: string): LaminaError {
    return new LaminaError('METADATA_INVALID', `Cannot write ${this.about(i)} into the tree: ${why}`);
  }

  #tooLarge(i: number, what: string, got: number, most: number): LaminaError {
    return new LaminaError(
      'LIMIT_EXCEEDED',
      `Cannot write ${this.about(i)} into the tree: its ${what} is ${got} (0 to ${most} can be stored)`,
    );
  }
}
