/** Paths of an image as the listing commands show them. Names, paths and targets are bytes in latin1 strings. */
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../erofs/tree.js';
import type { ImageTree } from '../image/tree.js';
import { deviceNumber, fileType, isoTime, octalMode, type DeviceNumber, type FileType } from './format.js';
import { bytesField } from './text.js';

export interface Entry {
  readonly path: string;
  readonly name: string;
  readonly nid: number;
  readonly type: FileType;
  /** Type and permission bits. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes. */
  readonly size: number;
  readonly device: DeviceNumber | undefined;
  /** Seconds since 1970. */
  readonly mtime: number;
  readonly mtimeNsec: number;
  readonly target: string | undefined;
  /** From 1, base first: where the file's first byte lies. Undefined for what has no bytes of its own. */
  readonly layer: number | undefined;
}

export function describe(tree: ImageTree, nid: number, path: string): Entry {
  const { reader } = tree;
  const mode = reader.mode(nid);
  const type = mode & S_IFMT;
  return {
    path,
    name: path === '/' ? '/' : path.slice(path.lastIndexOf('/') + 1),
    nid,
    type: fileType(mode),
    mode,
    nlink: reader.nlink(nid),
    uid: reader.uid(nid),
    gid: reader.gid(nid),
    size: reader.size(nid),
    device: type === S_IFCHR || type === S_IFBLK ? deviceNumber(reader.rdev(nid)) : undefined,
    mtime: reader.mtime(nid),
    mtimeNsec: reader.mtimeNsec(nid),
    target: type === S_IFLNK ? Buffer.from(reader.readlink(nid)).toString('latin1') : undefined,
    layer: type === S_IFREG ? layerOf(tree, nid) : undefined,
  };
}

function layerOf(tree: ImageTree, nid: number): number | undefined {
  for (const { layer } of extents(tree, nid)) return layer;
  return undefined;
}

export interface FileExtent {
  /** Bytes from the start of the file. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** From 1, base first. */
  readonly layer: number;
  /** Bytes from the start of the layer's uncompressed tar stream. */
  readonly position: number;
}

/** Where a regular file's bytes lie; neighbours are joined, holes left out. */
export function* extents(tree: ImageTree, nid: number): Generator<FileExtent> {
  const { reader } = tree;
  const size = reader.size(nid);
  let pending: FileExtent | undefined;
  for (let offset = 0; offset < size;) {
    const { device: layer, position, length: run } = reader.mapRange(nid, offset);
    const length = Math.min(run, size - offset);
    if (length <= 0) break;
    if (pending?.layer === layer && pending.position + pending.length === position) {
      pending = { ...pending, length: pending.length + length };
    } else {
      if (pending !== undefined) yield pending;
      pending = layer === 0 ? undefined : { offset, length, layer, position };
    }
    offset += length;
  }
  if (pending !== undefined) yield pending;
}

export interface WalkOptions {
  /** How far below the start: 1 is its children. */
  readonly depth: number;
  /** Names that start with a dot, too. */
  readonly all: boolean;
}

export interface Visited {
  readonly nid: number;
  readonly path: string;
  /** From 1. */
  readonly depth: number;
  /** For this entry and each directory above it: whether it is the last of its siblings. */
  readonly last: readonly boolean[];
}

interface Level {
  readonly entries: readonly { readonly name: string; readonly nid: number }[];
  readonly path: string;
  next: number;
}

/** Everything below a directory, depth first, in the order of the names' bytes. An image may nest deeper than a stack. */
export function* walk(tree: ImageTree, start: number, path: string, options: WalkOptions): Generator<Visited> {
  const levels: Level[] = [{ entries: children(tree, start, options.all), path, next: 0 }];
  for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
    const entry = level.entries[level.next++];
    if (entry === undefined) {
      levels.pop();
      continue;
    }
    const below = join(level.path, entry.name);
    const last = levels.map(({ entries, next }) => next >= entries.length);
    yield { nid: entry.nid, path: below, depth: levels.length, last };
    const isDirectory = (tree.reader.mode(entry.nid) & S_IFMT) === S_IFDIR;
    if (isDirectory && levels.length < options.depth) {
      levels.push({ entries: children(tree, entry.nid, options.all), path: below, next: 0 });
    }
  }
}

/** Sorted by the names' bytes. */
export function children(tree: ImageTree, nid: number, all: boolean): { name: string; nid: number }[] {
  return tree
    .entries(nid)
    .filter(({ name }) => name !== '.' && name !== '..' && (all || !name.startsWith('.')))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

export function join(directory: string, name: string): string {
  return directory === '/' ? `/${name}` : `${directory}/${name}`;
}

/** What `--json` says of an entry. */
export function entryDocument(entry: Entry): Record<string, unknown> {
  return {
    ...bytesField('path', entry.path),
    ...bytesField('name', entry.name),
    type: entry.type,
    mode: octalMode(entry.mode),
    nlink: entry.nlink,
    uid: entry.uid,
    gid: entry.gid,
    size: entry.size,
    device: entry.device ?? null,
    mtime: isoTime(entry.mtime, entry.mtimeNsec),
    mtimeSeconds: entry.mtime,
    mtimeNanoseconds: entry.mtimeNsec,
    ...(entry.target === undefined ? { target: null } : bytesField('target', entry.target)),
    layer: entry.layer ?? null,
  };
}
