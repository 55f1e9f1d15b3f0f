/** What one tar entry says, after PAX and GNU extensions are applied. Names are bytes, held as latin1 strings. */

export type EntryType = 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

/** A run of a file's data in the tar stream. */
export interface DataRun {
  /** Bytes from the start of the file. */
  readonly offset: number;
  /** Bytes, at least 1. */
  readonly length: number;
  /** Bytes from the start of the tar stream. A multiple of 512 but for the later runs of some sparse files. */
  readonly position: number;
}

export interface TarEntry {
  readonly type: EntryType;
  /** As the archive has it: not cleaned, may be absolute or hold "..". */
  readonly name: string;
  /** Hard link or symlink target as the archive has it, else "". */
  readonly linkName: string;
  /** Permission bits only (07777). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds, may be negative. */
  readonly mtime: number;
  readonly mtimeNsec: number;
  /** Bytes of content as a reader of the file sees it (real size for sparse files); 0 unless a file. */
  readonly size: number;
  readonly devMajor: number;
  readonly devMinor: number;
  /** `SCHILY.xattr.*` of the PAX header: full names in latin1 to raw values. No policy applied. */
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** Where the content is; a plain file has one run, a sparse file one per segment with data, an empty file none. */
  readonly data: readonly DataRun[];
  /** 1 for the first entry of the archive. */
  readonly order: number;
  /** Where the reader was asked for it. */
  readonly origin?: EntryOrigin;
}

/** What only a description of the archive itself has a use for. */
export interface EntryOrigin {
  /** Bytes of the stream before the entry's data, or before where it would be: the end of its header. */
  readonly position: number;
  /** All bits that the header has. */
  readonly mode: number;
  readonly uname: string;
  readonly gname: string;
  /** All records of the PAX header; values are bytes as latin1. */
  readonly records: ReadonlyMap<string, string>;
}
