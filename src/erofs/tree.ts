/**
 * A file system tree in memory: what the tar reader's entries become, what the union merges, what the EROFS writer
 * writes and what the EROFS reader gives back for a merge. Names, link targets and xattr names are bytes, held as
 * latin1 strings (one character a byte), never as UTF-8 text.
 */

/** File type bits of a mode (stat(2)). */
export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;
export const S_IFSOCK = 0o140000;

/** A run of a file's bytes that has data; what no extent covers reads as zeros. */
export interface Extent {
  /** Bytes from the start of the file; a multiple of 512. */
  readonly offset: number;
  /** Bytes; a multiple of 512 unless it is the file's last. */
  readonly length: number;
  /** 1-based: 1 in a layer's own tree, the layer's place in the image (base = 1) in a merged tree. */
  readonly device: number;
  /** Bytes from the start of the layer's address space (its uncompressed tar stream); a multiple of 512. */
  readonly position: number;
}

/** One inode. Names that are hard links of each other hold the same object. */
export interface Inode {
  /** Type and permission bits. */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970, may be negative. */
  mtime: number;
  /** 0 to 999,999,999. */
  mtimeNsec: number;
  /** Bytes: of a file's content or of a symlink's target; 0 else. */
  size: number;
  /** Linux encoding: (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12). Devices only. */
  rdev: number;
  /** Place of the entry in its tar, from 1; 0 in a merged tree. Kept in the on-disk inode number of a layer's tree. */
  order: number;
  /** Symlinks only: latin1. */
  target?: string;
  /** Full names ("user.x") in latin1 to raw values. */
  xattrs?: Map<string, Buffer>;
  /** Regular files only: ascending, not overlapping. */
  extents?: Extent[];
  /** Directories only. */
  children?: Map<string, Inode>;
}

/** Xattrs by which a layer's tree carries what only the merge may see. Images cannot set them: trusted.* is dropped. */
export const marker = {
  /** "y": a directory whose lower children are hidden (the overlayfs convention). */
  opaque: 'trusted.overlay.opaque',
  /** "y": a directory that has no entry of its own in the layer; a lower entry's attributes stay. */
  implied: 'trusted.lamina.implied',
  /** "y": a directory whose name the layer also whites out: whatever is below goes, a symlink included. */
  whiteout: 'trusted.lamina.whiteout',
  /** An absolute path inside the image (raw bytes): an empty regular file standing for a hard link to a lower layer's inode. */
  link: 'trusted.lamina.link',
  /** "y": more than one entry of the layer has named it, though the others may have been replaced. */
  linked: 'trusted.lamina.linked',
  /** On a directory: "ORDER/NAME", NUL-separated, of its names of linked files. */
  names: 'trusted.lamina.names',
  /** On a directory: "NAME/PATH", NUL-separated: what the hard links in it to files of the layer name. */
  targets: 'trusted.lamina.targets',
  /** "y": a directory in another one that holds, numbered, directories whose lists go on with its own of the former two and `whiteouts`. */
  more: 'trusted.lamina.more',
  /** On a directory: the places in the archive of further entries for it, with commas; the inode's order is the first's. */
  again: 'trusted.lamina.again',
  /** On a directory: names, NUL-separated, that the layer whites out and has something else than a directory at. */
  whiteouts: 'trusted.lamina.whiteouts',
  /** "y": a directory in the root that holds, numbered, further trees: of what the layer has replaced itself. */
  superseded: 'trusted.lamina.superseded',
  /** "y": such a directory of what goes through symlinks of the layer, at its path as written. */
  unresolved: 'trusted.lamina.unresolved',
  /** "y": such a directory with one tree: the layer as it is without any below; with none, the value says why. With the former only. */
  alone: 'trusted.lamina.alone',
  /** "y": a real character device 0:0 of the image, which without this would read as a whiteout. */
  device: 'trusted.lamina.device',
  /**
   * "y": such a directory with one tree, of directories marked `whiteout` and `opaque`: what has no place in the layer's own.
   * In trees from before it, on the root: paths, NUL-separated; of opaque directories, those of the file that says so.
   */
  detached: 'trusted.lamina.detached',
} as const;

/** The value of the markers that only are there or not. */
export const MARKED = Buffer.from('y');

/** A whiteout in a layer's tree: a character device 0:0 (the overlayfs convention) that is not marked as a real one. */
export function isWhiteout(inode: Inode): boolean {
  return (inode.mode & S_IFMT) === S_IFCHR && inode.rdev === 0 && inode.xattrs?.has(marker.device) !== true;
}
