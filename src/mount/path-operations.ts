/**
 * A file system of nodes as one of paths, in the form that fuse-native wants: callbacks with a negative errno. What that
 * form cannot carry is lost, and listed in the README: names that are not UTF-8, nanoseconds, times before 1970.
 */
import { constants } from 'node:os';
import { errnoFor } from '../fuse/errno.js';
import { emptyAttributes, type Attributes, type FileSystem } from '../fuse/file-system.js';
import { BLOCK_SIZE, NAME_MAX, ROOT_NODE } from '../fuse/wire.js';

const { ENOENT, ENODATA, ENOTDIR } = constants.errno;
const DIRECTORY = 4;

/** As fuse-native takes it; times in milliseconds. */
export interface PathStat extends Omit<Attributes, 'mtimeNsec'> {
  ino: number;
  dev: number;
  blksize: number;
  atime: number;
  ctime: number;
}

type Done<T extends unknown[] = []> = (errno: number, ...result: T) => void;

export interface PathOperations {
  readonly getattr: (path: string, done: Done<[PathStat?]>) => void;
  readonly readdir: (path: string, done: Done<[string[]?]>) => void;
  readonly readlink: (path: string, done: Done<[string?]>) => void;
  readonly read: (
    path: string,
    fd: number,
    into: Buffer,
    length: number,
    offset: number,
    done: Done<[number?]>,
  ) => void;
  readonly open: (path: string, flags: number, done: Done<[number?]>) => void;
  readonly statfs: (path: string, done: Done<[object?]>) => void;
  readonly getxattr?: (path: string, name: string, position: number, done: Done<[Buffer?]>) => void;
  readonly listxattr?: (path: string, done: Done<[string[]?]>) => void;
}

/** `onError` hears of failures that are not an absent name. */
export function pathOperations(fs: FileSystem, onError: (path: string, error: unknown) => void): PathOperations {
  const failure = (path: string, e: unknown): number => {
    const errno = errnoFor(e);
    if (errno !== ENOENT) onError(path, e);
    return -errno;
  };
  /** Runs `what` on the node of a path; its result is the callback's. */
  const answer = <T>(path: string, done: Done<[T?]>, what: (node: number) => T | number): void => {
    let result: T | number;
    try {
      const node = nodeOf(fs, path);
      result = node === 0 ? -ENOENT : what(node);
    } catch (e) {
      result = failure(path, e);
    }
    if (typeof result === 'number' && result < 0) done(result);
    else done(0, result as T);
  };
  return {
    getattr: (path, done) => answer(path, done, (node) => statOf(fs, node) ?? -ENOENT),
    readdir: (path, done) => answer(path, done, (node) => namesIn(fs, node)),
    readlink: (path, done) => answer(path, done, (node) => Buffer.from(fs.readlink(node)).toString('utf8')),
    open: (path, _flags, done) => answer(path, done, (node) => node),
    read: (path, node, into, length, offset, done) => {
      try {
        done(fs.read(node, offset, length, into, 0, true));
      } catch (e) {
        done(failure(path, e));
      }
    },
    statfs: (path, done) => {
      const { blocks, files } = fs.statfs();
      const size = Math.ceil(blocks / (BLOCK_SIZE / 512));
      answer(path, done, () => ({ bsize: BLOCK_SIZE, frsize: BLOCK_SIZE, blocks: size, files, namemax: NAME_MAX }));
    },
    ...(fs.capabilities.xattrs
      ? {
          getxattr: (path, name, _position, done) =>
            answer(path, done, (node) => (fs.getxattr(node, name) as Buffer | undefined) ?? -ENODATA),
          listxattr: (path, done) => answer(path, done, (node) => [...fs.listxattr(node)]),
        }
      : {}),
  };
}

/** 0 where there is none. */
function nodeOf(fs: FileSystem, path: string): number {
  let node = ROOT_NODE;
  for (const name of path.split('/')) {
    if (name === '') continue;
    const bytes = Buffer.from(name, 'utf8');
    node = fs.lookup(node, bytes, 0, bytes.length);
    if (node === 0) return 0;
  }
  return node;
}

function statOf(fs: FileSystem, node: number): PathStat | undefined {
  const a = emptyAttributes();
  if (!fs.getattr(node, a)) return undefined;
  const { mtimeNsec, ...rest } = a;
  const mtime = Math.max(a.mtime, 0) * 1000 + (a.mtime < 0 ? 0 : Math.floor(mtimeNsec / 1e6));
  return { ...rest, mtime, atime: mtime, ctime: mtime, ino: node, dev: 0, blksize: BLOCK_SIZE };
}

/** Without names that are not UTF-8: they could be listed as others only. */
function namesIn(fs: FileSystem, node: number): string[] | number {
  const a = emptyAttributes();
  if (!fs.getattr(node, a)) return -ENOENT;
  if (a.mode >>> 12 !== DIRECTORY) return -ENOTDIR;
  const names: string[] = [];
  fs.readdir(node, 0, (_node, _type, bytes, start, end) => {
    const raw = Buffer.from(bytes.subarray(start, end));
    const name = raw.toString('utf8');
    if (Buffer.from(name, 'utf8').equals(raw)) names.push(name);
    return true;
  });
  return names;
}
