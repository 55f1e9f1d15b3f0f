/**
 * The on-disk layout that the writer and the reader share (Linux Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h):
 *
 *     0      1024          1152                  meta_blkaddr * 512                     data area
 *     | zero | superblock  | device slots (128)  | slot 0 | root inode (nid 1) | inodes .. | directory and symlink blocks |
 *
 * An inode is 64 bytes at meta_blkaddr * 512 + nid * 32, then its xattrs, then its chunk indexes or the inline tail of its
 * directory or symlink data. File data is never in the image: chunk indexes name a device and a block of it.
 *
 * Two things are ours, where the kernel looks at nothing: the volume name says what the tree has, and the reserved end
 * of a regular file's inode says how many of its blocks are holes (st_blocks without walking the chunk indexes).
 */
import { LaminaError } from '../errors.js';

export const BLOCK_BITS = 9;
export const BLOCK = 1 << BLOCK_BITS;

export const SUPER_AT = 1024;
export const SUPER_SIZE = 128;
export const MAGIC = 0xe0f5e1e2;
/** Byte offsets within the superblock. */
export const sb = {
  magic: 0,
  featureCompat: 8,
  blkszbits: 12,
  rootNid: 14,
  inos: 16,
  blocks: 36,
  metaBlkaddr: 40,
  volumeName: 64,
  featureIncompat: 80,
  extraDevices: 86,
  devtSlotoff: 88,
} as const;
/** Inodes hold an mtime, not a ctime (EROFS_FEATURE_COMPAT_MTIME). */
export const COMPAT_MTIME = 2;
/** CHUNKED_FILE | DEVICE_TABLE. */
export const INCOMPAT = 0x4 | 0x8;

/** The volume name: this, then a flag character for each thing that some inode of the tree has. */
export const VOLUME = 'lamina-1';
export const VOLUME_SIZE = 16;
export const volumeFlag = { xattrs: 'x', acls: 'a' } as const;
/** The volume name as a reader must find it; its groups are the flags, or empty. */
export const VOLUME_PATTERN = /^lamina-1(x?)(a?)\0+$/;

export const DEVICE_SLOT = 128;
/** Byte offset of a device's u32 block count within its slot. */
export const DEVICE_BLOCKS = 64;
/** Bytes of a value: e_value_size is 16 bits wide, one byte less than Linux allows (XATTR_SIZE_MAX). */
export const XATTR_VALUE_MAX = 0xffff;

/** extra_devices is 16 bits wide. */
export const DEVICES_MAX = 0xffff;

export const ROOT_NID = 1;
/** Bytes; nids count in these. */
export const INODE_SLOT = 32;
export const INODE_SIZE = 64;
/** Byte offsets within an extended inode. */
export const ino = {
  format: 0,
  xattrCount: 2,
  mode: 4,
  size: 8,
  /** Start block of flat data, rdev, or chunk format. */
  union: 16,
  ino: 20,
  uid: 24,
  gid: 28,
  mtime: 32,
  mtimeNsec: 40,
  nlink: 44,
  /** u64 in the reserved end, ours: blocks of a regular file that are holes. */
  holes: 48,
} as const;

/** i_format of extended inodes: bit 0, and the data layout from bit 1. */
export const format = { plain: 1 | (0 << 1), inline: 1 | (2 << 1), chunked: 1 | (4 << 1) } as const;

export const CHUNK_INDEX = 8;
/** Bytes from the start of a chunk index. */
export const chunk = { device: 2, block: 4 } as const;
/** Chunk format: the low 5 bits are the chunk's size, log2 of blocks. */
export const CHUNK_BITS_MASK = 0x1f;
/** Chunk format: 8-byte indexes. */
export const CHUNK_INDEXES = 0x20;
/** The block of a chunk that is a hole. */
export const HOLE = 0xffffffff;

export const DIRENT = 12;
/** Byte offsets within a dirent. */
export const dirent = { nid: 0, nameOffset: 8, fileType: 10 } as const;
export const NAME_MAX = 255;
/** PATH_MAX - 1: what a symlink may hold. */
export const TARGET_MAX = 4095;

/** EROFS file types by S_IFMT >> 12: fifo, character device, directory, block device, regular, symlink, socket. */
export const fileTypes = Uint8Array.of(0, 5, 3, 0, 2, 0, 4, 0, 1, 0, 7, 0, 6, 0, 0, 0);
/** The reverse of {@link fileTypes}, 0 for what is none. */
export const modeTypes = Uint8Array.of(0, 8, 4, 2, 6, 1, 12, 10);

export const XATTR_HEADER = 12;
export const XATTR_ENTRY = 4;
export const ACL_ACCESS = 2;
export const ACL_DEFAULT = 3;
/** Index and prefix of the xattr namespaces; the two ACLs are whole names. */
const namespaces: readonly (readonly [index: number, prefix: string])[] = [
  [1, 'user.'],
  [ACL_ACCESS, 'system.posix_acl_access'],
  [ACL_DEFAULT, 'system.posix_acl_default'],
  [4, 'trusted.'],
  [6, 'security.'],
];

/** The index of a full name's namespace, 0 for an unknown one and for a name that is only a prefix. */
export function xattrIndex(name: string): number {
  for (const [index, prefix] of namespaces) {
    const whole = index === ACL_ACCESS || index === ACL_DEFAULT;
    if (whole ? name === prefix : name.startsWith(prefix) && name.length > prefix.length) return index;
  }
  return 0;
}

/** What is before the on-disk part of a name, undefined for an index that is none. */
export function xattrPrefix(index: number): string | undefined {
  return namespaces.find((n) => n[0] === index)?.[1];
}

export function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}

/** A 64-bit little-endian number; negative ones as two's complement. */
export function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setInt32(at + 4, Math.floor(value / 0x1_0000_0000), true);
}

/** Exact up to 2^53, and too large beyond. */
export function getU64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
}

export function getS64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getInt32(at + 4, true) * 0x1_0000_0000;
}

export function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

export function erofsInvalid(why: string, nid?: number): LaminaError {
  const where = nid === undefined ? '' : ` (inode ${nid})`;
  return new LaminaError('EROFS_INVALID', `Cannot read the file system tree: ${why}${where}`, {
    hint: 'The store is damaged: remove the image from it and mount again.',
    details: nid === undefined ? {} : { nid },
  });
}
