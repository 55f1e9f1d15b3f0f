/**
 * The kernel's FUSE protocol as bytes: offsets and numbers of include/uapi/linux/fuse.h (protocol 7.45). Little-endian
 * only, as every platform of Node's that we support is.
 *
 *     request   0 len u32 | 4 opcode u32 | 8 unique u64 | 16 nodeid u64 | 24 uid | 28 gid | 32 pid | 36 extlen u16 | 38 -
 *     reply     0 len u32 | 4 error i32 (negative errno) | 8 unique u64
 */

export const IN_HEADER = 40;
export const OUT_HEADER = 16;
export const ROOT_NODE = 1;

/** What statfs and stat say. */
export const BLOCK_SIZE = 4096;
export const NAME_MAX = 255;

export const opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  READLINK: 5,
  OPEN: 14,
  READ: 15,
  STATFS: 17,
  RELEASE: 18,
  GETXATTR: 22,
  LISTXATTR: 23,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  READDIRPLUS: 44,
  LSEEK: 46,
} as const;

/** Operations that would change the tree: answered EROFS, should the kernel ever pass one on. */
export const mutating: ReadonlySet<number> = new Set([
  4, // SETATTR
  6, // SYMLINK
  8, // MKNOD
  9, // MKDIR
  10, // UNLINK
  11, // RMDIR
  12, // RENAME
  13, // LINK
  16, // WRITE
  21, // SETXATTR
  24, // REMOVEXATTR
  35, // CREATE
  43, // FALLOCATE
  45, // RENAME2
  47, // COPY_FILE_RANGE
  51, // TMPFILE
]);

/** Bits of INIT; those from 32 on are in flags2. */
export const initFlag = {
  ASYNC_READ: 1 << 0,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  NO_OPEN_SUPPORT: 1 << 17,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  NO_OPENDIR_SUPPORT: 1 << 24,
  EXPLICIT_INVAL_DATA: 1 << 25,
  HANDLE_KILLPRIV_V2: 1 << 28,
  INIT_EXT: 1 << 30,
} as const;

export const initFlag2 = {
  HAS_RESEND: 1 << 7,
  ALLOW_IDMAP: 1 << 8,
} as const;

/** fuse_open_out.open_flags. */
export const openFlag = { KEEP_CACHE: 2, CACHE_DIR: 8 } as const;

/** Negative codes of unsolicited messages: unique 0, the code where a reply has its error. */
export const notify = { RESEND: 7 } as const;

export const PROTOCOL_MAJOR = 7;
/** The newest minor that this file describes. */
export const PROTOCOL_MINOR = 45;

export const ATTR_SIZE = 88;
export const ENTRY_OUT_SIZE = 128;
export const ATTR_OUT_SIZE = 104;

/** Sizes of a READ: 256 pages of 4 KiB, what the kernel's own limit (fs.fuse.max_pages_limit) allows by default. */
export const MAX_PAGES = 256;
export const MAX_READ = MAX_PAGES * 4096;

/** The largest time the protocol's u64 seconds can give that the kernel does not overflow: valid for ever. */
export const FOREVER_SECONDS = 0x7fffffff;

export function getU64(b: Buffer, at: number): number {
  return b.readUInt32LE(at) + b.readUInt32LE(at + 4) * 0x1_0000_0000;
}

/** Writes an integer of up to 53 bits, negative ones as two's complement. */
export function putU64(b: Buffer, value: number, at: number): void {
  b.writeInt32LE(value | 0, at);
  b.writeInt32LE(Math.floor(value / 0x1_0000_0000) | 0, at + 4);
}
