/** An image's tree as one tar archive, which gives the same tree again when it is read. */
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../erofs/tree.js';
import { LaminaError } from '../errors.js';
import type { EntryType } from '../tar/entry.js';
import { END_OF_ARCHIVE, encodeMember, paddingOf, type SparseRun, type TarMember } from '../tar/writer.js';
import type { ImageTree } from './tree.js';

export interface ExportOptions {
  /** Files with holes as such (GNU format 1.0), not as zeros. */
  readonly sparse: boolean;
  /** Called with the path of what a tar cannot hold: a socket. */
  readonly onSkip: (path: string) => void;
}

/** Bytes of one piece of a file's data. */
const PIECE = 1 << 20;
/** A file is worth being called sparse from this many bytes of holes on. */
const HOLES_MIN = 4096;

/**
 * The bytes of the archive, in pieces that the caller may keep. `start` is its root, "./"; what is no directory is the
 * archive's only entry, under `name`. Entries are in the order of their names' bytes, each directory before what is in
 * it. Throws what reading throws.
 */
export function* exportTree(tree: ImageTree, start: number, name: string, options: ExportOptions): Generator<Buffer> {
  const { reader } = tree;
  /** First names of files that have several. */
  const links = new Map<number, string>();
  const isDirectory = (nid: number): boolean => (reader.mode(nid) & S_IFMT) === S_IFDIR;
  const todo = [{ nid: start, name: isDirectory(start) ? '.' : name }];
  for (let item = todo.pop(); item !== undefined; item = todo.pop()) {
    const { nid, name: path } = item;
    const type = entryType(reader.mode(nid));
    if (type === undefined) {
      options.onSkip(path);
      continue;
    }
    const first = type === 'directory' ? undefined : links.get(nid);
    if (first !== undefined) {
      yield encodeMember({ ...memberOf(tree, nid, path, 'hardlink'), linkName: first, size: 0, xattrs: [] }).bytes;
      continue;
    }
    if (type === 'directory') {
      yield encodeMember(memberOf(tree, nid, path, type)).bytes;
      const prefix = path === '.' ? '' : `${path}/`;
      for (const entry of tree.entries(nid).reverse()) todo.push({ nid: entry.nid, name: prefix + entry.name });
      continue;
    }
    if (reader.nlink(nid) > 1) links.set(nid, path);
    const member = memberOf(tree, nid, path, type);
    if (type === 'file') yield* file(tree, nid, member, options.sparse);
    else yield encodeMember(member).bytes;
  }
  yield END_OF_ARCHIVE;
}

function* file(tree: ImageTree, nid: number, member: TarMember, sparse: boolean): Generator<Buffer> {
  const runs = sparse ? sparseRuns(tree, nid) : undefined;
  const { bytes, dataSize } = encodeMember({ ...member, runs });
  yield bytes;
  for (const { offset, length } of runs ?? [{ offset: 0, length: member.size }]) {
    for (let done = 0; done < length;) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE, length - done));
      const n = tree.readRange(nid, offset + done, piece.length, piece);
      if (n <= 0) throw new LaminaError('INTERNAL', `A file ends at ${offset + done} of ${member.size} bytes`);
      yield piece.subarray(0, n);
      done += n;
    }
  }
  yield paddingOf(dataSize);
}

/** Where a file has data; undefined where it has hardly any holes. */
function sparseRuns(tree: ImageTree, nid: number): SparseRun[] | undefined {
  const runs = dataRuns(tree, nid);
  const data = runs.reduce((n, { length }) => n + length, 0);
  return tree.reader.size(nid) - data < HOLES_MIN ? undefined : runs;
}

/** The runs of a regular file that have data, ascending; neighbours are joined. */
export function dataRuns({ reader }: ImageTree, nid: number): SparseRun[] {
  const size = reader.size(nid);
  const runs: SparseRun[] = [];
  for (let at = 0; at < size;) {
    const offset = reader.seekData(nid, at);
    if (offset < 0) break;
    at = reader.seekHole(nid, offset);
    runs.push({ offset, length: at - offset });
  }
  return runs;
}

function memberOf({ reader }: ImageTree, nid: number, name: string, type: EntryType): TarMember {
  const mode = reader.mode(nid);
  const rdev = reader.rdev(nid);
  const xattrs: [string, Buffer][] = [];
  reader.eachXattr(nid, (key, value) => xattrs.push([key, value]));
  return {
    type,
    name,
    linkName: type === 'symlink' ? reader.readlink(nid).toString('latin1') : '',
    mode: mode & 0o7777,
    uid: reader.uid(nid),
    gid: reader.gid(nid),
    mtime: reader.mtime(nid),
    mtimeNsec: reader.mtimeNsec(nid),
    size: type === 'file' ? reader.size(nid) : 0,
    devMajor: (rdev >>> 8) & 0xfff,
    devMinor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00),
    xattrs,
  };
}

function entryType(mode: number): EntryType | undefined {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return 'file';
    case S_IFDIR:
      return 'directory';
    case S_IFLNK:
      return 'symlink';
    case S_IFCHR:
      return 'char';
    case S_IFBLK:
      return 'block';
    case S_IFIFO:
      return 'fifo';
    default:
      return undefined;
  }
}
