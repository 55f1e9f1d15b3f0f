/** The inode that a tar entry describes. */
import { LaminaError } from '../errors.js';
import { NAME_MAX, TARGET_MAX } from '../erofs/layout.js';
import { MARKED, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, marker, type Inode } from '../erofs/tree.js';
import type { EntryType, TarEntry } from '../tar/entry.js';
import { printable, type Notes } from '../tar/notes.js';
import type { Appendix } from './extents.js';
import { keptXattrs } from './xattr-policy.js';

const typeBits: Readonly<Record<Exclude<EntryType, 'hardlink'>, number>> = {
  file: S_IFREG,
  directory: S_IFDIR,
  symlink: S_IFLNK,
  char: S_IFCHR,
  block: S_IFBLK,
  fifo: S_IFIFO,
};

/** Throws LINK_INVALID, METADATA_INVALID. */
export function inodeOf(entry: TarEntry, appendix: Appendix, notes: Notes): Inode {
  const inode: Inode = {
    mode: typeBits[entry.type as Exclude<EntryType, 'hardlink'>],
    uid: 0,
    gid: 0,
    mtime: 0,
    mtimeNsec: 0,
    size: 0,
    rdev: 0,
    order: 0,
  };
  switch (entry.type) {
    case 'file':
      inode.size = entry.size;
      inode.extents = appendix.extentsOf(entry);
      break;
    case 'directory':
      inode.children = new Map();
      break;
    case 'symlink':
      if (entry.linkName === '' || entry.linkName.length > TARGET_MAX || entry.linkName.includes('\0')) {
        throw new LaminaError('LINK_INVALID', `The symlink ${printable(entry.name)} has an empty or too long target`);
      }
      inode.target = entry.linkName;
      inode.size = entry.linkName.length;
      break;
    case 'char':
    case 'block':
      inode.rdev = encodeDevice(entry);
      break;
    case 'fifo':
    case 'hardlink':
  }
  setAttributes(inode, entry, entry.name, notes);
  if (entry.type === 'char' && inode.rdev === 0) (inode.xattrs ??= new Map()).set(marker.device, MARKED);
  return inode;
}

/** A component of the path `about`. Throws METADATA_INVALID. */
export function checkName(name: string, about: string): void {
  if (name.length > NAME_MAX || name.includes('\0')) {
    throw new LaminaError('METADATA_INVALID', `A name of more than ${NAME_MAX} bytes: ${printable(about)}`);
  }
}

/** Those of an entry, for an inode that may have had others. Throws METADATA_INVALID. */
export function setAttributes(inode: Inode, entry: TarEntry, path: string, notes: Notes): void {
  // Linux has no modes of symlinks: lstat(2) shows 0777 on every file system that writes them.
  inode.mode = (inode.mode & ~0o7777) | (entry.type === 'symlink' ? 0o777 : entry.mode);
  inode.uid = entry.uid;
  inode.gid = entry.gid;
  inode.mtime = entry.mtime;
  inode.mtimeNsec = entry.mtimeNsec;
  if (inode.order === 0) inode.order = entry.order;
  const xattrs = keptXattrs(entry.xattrs, inode.mode, path, notes);
  if (xattrs === undefined) delete inode.xattrs;
  else inode.xattrs = xattrs;
}

/** The kernel's dev_t of 12 bits major and 20 bits minor, as EROFS and FUSE carry it. Throws METADATA_INVALID. */
function encodeDevice({ devMajor, devMinor, name }: TarEntry): number {
  const fits = devMajor >= 0 && devMajor < 1 << 12 && devMinor >= 0 && devMinor < 1 << 20;
  if (!fits) {
    throw new LaminaError('METADATA_INVALID', `The device numbers of ${printable(name)} are out of range`, {
      details: { major: devMajor, minor: devMinor },
    });
  }
  return ((devMinor & 0xff) | (devMajor << 8) | ((devMinor & ~0xff) << 12)) >>> 0;
}
