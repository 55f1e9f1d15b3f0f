/**
 * What a file system must answer for {@link Session} to serve it. Node ids, names and offsets come as numbers and byte
 * ranges, results go into reused objects: the serve loop allocates nothing per request. An implementation holds no
 * state about what the kernel knows (node ids are pure functions of the tree), so FORGET is nothing and a restarted
 * server continues where the dead one stopped.
 *
 * Methods throw a LaminaError for a broken image; `errno.ts` turns it into the errno of the reply.
 */

/** Attributes of one node, filled by {@link FileSystem.getattr} and re-used. */
export interface Attributes {
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  rdev: number;
  /** Bytes. */
  size: number;
  /** Units of 512 bytes. */
  blocks: number;
  mtime: number;
  mtimeNsec: number;
}

/** To be filled. */
export function emptyAttributes(): Attributes {
  return { mode: 0, uid: 0, gid: 0, nlink: 0, rdev: 0, size: 0, blocks: 0, mtime: 0, mtimeNsec: 0 };
}

export interface Capabilities {
  /** False when no node has an extended attribute: the kernel then never asks again. */
  readonly xattrs: boolean;
  /** True when some node has a POSIX ACL: the kernel then checks permissions by them. */
  readonly acls: boolean;
}

export interface StatFs {
  /** Units of 512 bytes. */
  readonly blocks: number;
  readonly files: number;
}

/** Called for each directory entry; false stops. The name is `bytes[start, end)`. `next` continues after this entry. */
export type Visit = (
  node: number,
  fileType: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  next: number,
) => boolean;

/** {@link FileSystem.read}'s answer where the bytes are not at hand: somebody who may wait must do the read. */
export const MISS = -1;

export interface FileSystem {
  readonly capabilities: Capabilities;
  /** The node of a name; 0 where there is none and never will be. Throws PATH_NOT_FOUND where there may be one later. */
  lookup(parent: number, bytes: Uint8Array, start: number, end: number): number;
  /** False where there is no such node. */
  getattr(node: number, into: Attributes): boolean;
  /** Entries from `cookie` on (0 = from the start), "." and ".." among them. `fileType` is S_IFMT >> 12. */
  readdir(node: number, cookie: number, visit: Visit): void;
  readlink(node: number): Uint8Array;
  /** Undefined where the node lacks the attribute. */
  getxattr(node: number, name: string): Uint8Array | undefined;
  /** Full names in latin1. */
  listxattr(node: number): readonly string[];
  /**
   * Verified bytes of a file into `into` at `at`: the count, short only at the end of the file, or {@link MISS}.
   * With `wait` the bytes are fetched where need be and MISS is never the answer.
   */
  read(node: number, offset: number, length: number, into: Buffer, at: number, wait: boolean): number;
  /** Waiting reads with equal numbers share work, so they should be done by the same thread, one after the other. */
  affinity(node: number, offset: number): number;
  /** The next data or hole at or after `offset`, -1 for ENXIO. */
  seek(node: number, offset: number, whence: 'data' | 'hole'): number;
  statfs(): StatFs;
}
