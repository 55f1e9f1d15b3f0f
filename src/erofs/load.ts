/**
 * A whole tree back as objects, for the merge. Unlike the reader, which checks what it touches, this checks everything:
 * directories form a tree, names ascend, and the counts in inodes and superblock are right.
 */
import { erofsInvalid } from './layout.js';
import type { ErofsReader } from './reader.js';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Extent, type Inode } from './tree.js';

/** The tree of `reader`; it shares no bytes with the image. Throws EROFS_INVALID. */
export function loadTree(reader: ErofsReader): Inode {
  return new TreeLoader(reader).load();
}

const ROOT = 1;

interface Directory {
  readonly nid: number;
  readonly parent: number;
  readonly children: Map<string, Inode>;
}

class TreeLoader {
  readonly #reader: ErofsReader;
  readonly #inodes = new Map<number, Inode>();
  /** Names still to come of inodes with several. */
  readonly #linksLeft = new Map<number, number>();
  readonly #queue: Directory[] = [];
  /** Bytes of the image that no inode has claimed: a damaged image cannot cost more than its size. */
  #unclaimed: number;

  constructor(reader: ErofsReader) {
    this.#reader = reader;
    this.#unclaimed = reader.length;
  }

  load(): Inode {
    const root = this.#inode(ROOT, ROOT);
    // The queue grows while it is walked.
    for (const directory of this.#queue) this.#readDirectory(directory);
    if (this.#linksLeft.size > 0) throw erofsInvalid('an inode has fewer names than its link count');
    if (this.#inodes.size !== this.#reader.inodeCount) {
      throw erofsInvalid(`it has ${this.#inodes.size} inodes where its superblock says ${this.#reader.inodeCount}`);
    }
    return root;
  }

  #readDirectory({ nid, parent, children }: Directory): void {
    let before = '';
    let dots = 0;
    let subdirectories = 0;
    this.#reader.readdir(nid, 0, (child, fileType, bytes, start, end) => {
      const name = bytes.toString('latin1', start, end);
      if (name <= before || name.includes('/') || name.includes('\0'))
        throw erofsInvalid('a directory out of order', nid);
      before = name;
      if (name === '.' || name === '..') {
        dots++;
        if (child !== (name === '.' ? nid : parent)) throw erofsInvalid('"." or ".." leads elsewhere', nid);
        return true;
      }
      const inode = this.#inode(child, nid);
      if (inode.mode >> 12 !== fileType) throw erofsInvalid("a file type that is not the inode's", child);
      if (inode.children !== undefined) subdirectories++;
      children.set(name, inode);
      return true;
    });
    if (dots !== 2) throw erofsInvalid('a directory without "." or ".."', nid);
    if (this.#reader.nlink(nid) !== 2 + subdirectories) throw erofsInvalid('a directory with a wrong link count', nid);
  }

  /** The inode of a name: made, or the one that an earlier name made. */
  #inode(nid: number, parent: number): Inode {
    const known = this.#inodes.get(nid);
    if (known === undefined) return this.#make(nid, parent);
    const left = this.#linksLeft.get(nid);
    if (left === undefined) throw erofsInvalid('an inode has more names than its link count', nid);
    if (left === 1) this.#linksLeft.delete(nid);
    else this.#linksLeft.set(nid, left - 1);
    return known;
  }

  #make(nid: number, parent: number): Inode {
    const reader = this.#reader;
    this.#unclaimed -= reader.footprint(nid);
    if (this.#unclaimed < 0) throw erofsInvalid('its inodes overlap', nid);
    const mode = reader.mode(nid);
    const type = mode & S_IFMT;
    const inode: Inode = {
      mode,
      uid: reader.uid(nid),
      gid: reader.gid(nid),
      mtime: reader.mtime(nid),
      mtimeNsec: reader.mtimeNsec(nid),
      size: type === S_IFREG || type === S_IFLNK ? reader.size(nid) : 0,
      rdev: reader.rdev(nid),
      order: reader.order(nid),
    };
    const xattrs = this.#xattrs(nid);
    if (xattrs !== undefined) inode.xattrs = xattrs;
    if (type === S_IFLNK) inode.target = reader.readlink(nid).toString('latin1');
    if (type === S_IFREG && inode.size > 0) inode.extents = this.#extents(nid, inode.size);
    this.#inodes.set(nid, inode);
    if (type === S_IFDIR) {
      inode.children = new Map();
      this.#queue.push({ nid, parent, children: inode.children });
    } else {
      const nlink = reader.nlink(nid);
      if (nlink === 0) throw erofsInvalid('an inode without links', nid);
      if (nlink > 1) this.#linksLeft.set(nid, nlink - 1);
    }
    return inode;
  }

  #xattrs(nid: number): Map<string, Buffer> | undefined {
    const xattrs = new Map<string, Buffer>();
    this.#reader.eachXattr(nid, (name, value) => {
      if (xattrs.has(name)) throw erofsInvalid('an xattr twice', nid);
      xattrs.set(name, Buffer.from(value));
    });
    if (xattrs.size === 0) return undefined;
    if (!this.#reader.hasXattrs) throw erofsInvalid('xattrs, which the superblock denies', nid);
    return xattrs;
  }

  #extents(nid: number, size: number): Extent[] {
    const extents: Extent[] = [];
    for (let offset = 0; offset < size;) {
      const { device, position, length } = this.#reader.mapRange(nid, offset);
      const last = extents.at(-1);
      if (last !== undefined && follows(last, offset, device, position)) {
        extents[extents.length - 1] = { ...last, length: last.length + length };
      } else if (device !== 0) {
        extents.push({ offset, length, device, position });
      }
      offset += length;
    }
    return extents;
  }
}

function follows(last: Extent, offset: number, device: number, position: number): boolean {
  return device === last.device && offset === last.offset + last.length && position === last.position + last.length;
}
