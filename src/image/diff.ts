/** Differences: what each layer of an image changes, and what is not the same in two images. */
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Inode } from '../erofs/tree.js';
import type { Compat, MergeObserver } from '../union/merge.js';
import type { PreparedImage } from './prepare.js';
import { replayMerge, Whereabouts } from './replay.js';
import type { ImageTree } from './tree.js';

export type ChangeKind = 'added' | 'changed' | 'deleted';

/** What of an entry is not the same. */
export const changedFields = [
  'type',
  'mode',
  'uid',
  'gid',
  'size',
  'mtime',
  'device',
  'target',
  'xattrs',
  'content',
] as const;
export type ChangedField = (typeof changedFields)[number];

export interface Change {
  /** Bytes in latin1. */
  readonly path: string;
  readonly kind: ChangeKind;
  /** Type and permission bits: of what is there now, or of what was deleted. */
  readonly mode: number;
}

/** By path, bytewise; what a deleted directory held is not listed. */
export interface LayerChanges {
  /** From 1, base first. */
  readonly layer: number;
  readonly changes: readonly Change[];
}

/**
 * What each layer does to those below it. "changed" is what a layer has an entry for, equal or not; of a directory, only
 * new attributes. Throws what merging throws.
 */
export function layerChanges(prepared: PreparedImage, compat: Compat): LayerChanges[] {
  const observer = new ChangeObserver();
  replayMerge(prepared, compat, observer);
  return observer.layers;
}

class ChangeObserver implements MergeObserver {
  readonly layers: LayerChanges[] = [];
  readonly #where = new Whereabouts();
  readonly #now = new Map<string, Change>();
  /** What whiteouts took away, by path. */
  readonly #removed = new Map<string, Inode>();
  /** Directories of the layers below in whose place the layer has put something, if only for a while; by path. */
  readonly #covered = new Map<string, Inode>();
  /** By directory: names under which the layers below had nothing. */
  readonly #fresh = new Map<Inode, Set<string>>();

  place(parent: Inode, name: string, inode: Inode, before: Inode | undefined, implied: boolean): void {
    const path = this.#where.path(parent, name);
    this.#where.placed(parent, name, inode);
    const known = this.#now.get(path);
    const was = before ?? this.#removed.get(path);
    if (before === undefined) this.#fresh.set(parent, (this.#fresh.get(parent) ?? new Set()).add(name));
    else if (isDirectory(before) && this.#fresh.get(parent)?.has(name) !== true && !this.#covered.has(path)) {
      this.#covered.set(path, before);
    }
    // A directory that is implied where one was removed is the same to whoever looks.
    if (implied && was !== undefined && isDirectory(was)) return;
    const kind = known?.kind === 'added' || was === undefined ? 'added' : 'changed';
    this.#now.set(path, { path, kind, mode: inode.mode });
  }

  attributes(parent: Inode | undefined, name: string, directory: Inode, entry: Inode): void {
    if (sameAttributes(directory, entry)) return;
    const path = parent === undefined ? '/' : this.#where.path(parent, name);
    if (!this.#now.has(path)) this.#now.set(path, { path, kind: 'changed', mode: entry.mode });
  }

  remove(parent: Inode, name: string, inode: Inode): void {
    this.#removed.set(this.#where.path(parent, name), inode);
  }

  layerDone(root: Inode, layer: number): void {
    for (const [path, was] of this.#removed) {
      const parent = find(root, path.slice(0, path.lastIndexOf('/')));
      if (parent !== undefined && isDirectory(parent)) this.#deletions(path, was, find(root, path));
    }
    for (const [path, was] of this.#covered) {
      const now = find(root, path);
      if (now !== undefined && isDirectory(now)) this.#deletions(path, was, now);
    }
    // Through symlinks of its own a layer can put something where it then puts something else.
    const lasting = [...this.#now.values()].filter(({ path, kind }) => kind === 'deleted' || find(root, path));
    const changes = lasting.sort((a, b) => (a.path < b.path ? -1 : 1));
    this.layers.push({ layer, changes });
    this.#now.clear();
    this.#removed.clear();
    this.#covered.clear();
    this.#fresh.clear();
  }

  /** What was removed and is not there again; of a directory that is, what was in it. */
  #deletions(path: string, was: Inode, now: Inode | undefined): void {
    const todo = [{ path, was, now }];
    for (let item = todo.pop(); item !== undefined; item = todo.pop()) {
      if (item.now === undefined) {
        this.#now.set(item.path, { path: item.path, kind: 'deleted', mode: item.was.mode });
        continue;
      }
      const change = this.#now.get(item.path);
      if (change?.kind === 'added') this.#now.set(item.path, { ...change, kind: 'changed' });
      if (!isDirectory(item.was) || !isDirectory(item.now)) continue;
      const fresh = this.#fresh.get(item.was);
      for (const [name, child] of item.was.children ?? []) {
        if (fresh?.has(name) !== true)
          todo.push({ path: `${item.path}/${name}`, was: child, now: item.now.children?.get(name) });
      }
    }
  }
}

function isDirectory({ mode }: { readonly mode: number }): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

function find(root: Inode, path: string): Inode | undefined {
  let here: Inode | undefined = root;
  for (const name of path.split('/')) if (name !== '') here = here?.children?.get(name);
  return here;
}

function sameAttributes(a: Inode, b: Inode): boolean {
  const simple = (['mode', 'uid', 'gid', 'mtime', 'mtimeNsec'] as const).every((field) => a[field] === b[field]);
  const [left, right] = [imageXattrs(a), imageXattrs(b)];
  return simple && left.size === right.size && [...left].every(([name, value]) => right.get(name)?.equals(value));
}

/** Without the merge's markers, all of them trusted.*, of which images have none. */
function imageXattrs({ xattrs }: Inode): ReadonlyMap<string, Buffer> {
  return new Map([...(xattrs ?? [])].filter(([name]) => !name.startsWith('trusted.')));
}

export interface ImageChange extends Change {
  /** What differs, for "changed". */
  readonly fields: readonly ChangedField[];
}

/**
 * What has to be done to `from` to make it `to`, by path, bytewise. `ignored` fields do not make a change. Files that
 * are the same bytes of the same layer are not read. A directory that is only in one of the two is listed with all that
 * is in it. Throws what reading throws.
 */
export function* compareImages(
  from: ImageTree,
  to: ImageTree,
  ignored: ReadonlySet<ChangedField> = new Set(),
): Generator<ImageChange> {
  const todo: Pair[] = [{ path: '', from: ROOT, to: ROOT }];
  for (let pair = todo.pop(); pair !== undefined; pair = todo.pop()) {
    const { path, from: a, to: b } = pair;
    const mode = b === 0 ? from.reader.mode(a) : to.reader.mode(b);
    const shown = path === '' ? '/' : path;
    if (a === 0 || b === 0) yield { path: shown, kind: a === 0 ? 'added' : 'deleted', mode, fields: [] };
    else {
      const fields = differences(from, a, to, b).filter((field) => !ignored.has(field));
      if (fields.length > 0) yield { path: shown, kind: 'changed', mode, fields };
    }
    // One by one: a directory may have more names than a call takes arguments.
    for (const child of childPairs(from, to, pair).reverse()) todo.push(child);
  }
}

const ROOT = 1;

/** 0: not there. */
interface Pair {
  readonly path: string;
  readonly from: number;
  readonly to: number;
}

function childPairs(from: ImageTree, to: ImageTree, { path, from: a, to: b }: Pair): Pair[] {
  const left = childrenOf(from, a);
  const right = childrenOf(to, b);
  const names = [...new Set([...left.keys(), ...right.keys()])].sort();
  return names.map((name) => ({ path: `${path}/${name}`, from: left.get(name) ?? 0, to: right.get(name) ?? 0 }));
}

function childrenOf(tree: ImageTree, nid: number): Map<string, number> {
  if (nid === 0 || !isDirectory({ mode: tree.reader.mode(nid) })) return new Map();
  return new Map(tree.entries(nid).map((entry) => [entry.name, entry.nid]));
}

function differences(treeA: ImageTree, nidA: number, treeB: ImageTree, nidB: number): ChangedField[] {
  const [a, b] = [treeA.reader, treeB.reader];
  const [modeA, modeB] = [a.mode(nidA), b.mode(nidB)];
  if ((modeA & S_IFMT) !== (modeB & S_IFMT)) return ['type'];
  const type = modeA & S_IFMT;
  const fields: ChangedField[] = [];
  if (modeA !== modeB) fields.push('mode');
  if (a.uid(nidA) !== b.uid(nidB)) fields.push('uid');
  if (a.gid(nidA) !== b.gid(nidB)) fields.push('gid');
  if (type === S_IFREG && a.size(nidA) !== b.size(nidB)) fields.push('size');
  if (a.mtime(nidA) !== b.mtime(nidB) || a.mtimeNsec(nidA) !== b.mtimeNsec(nidB)) fields.push('mtime');
  if (a.rdev(nidA) !== b.rdev(nidB)) fields.push('device');
  if (type === S_IFLNK && !a.readlink(nidA).equals(b.readlink(nidB))) fields.push('target');
  if (!sameXattrs(treeA, nidA, treeB, nidB)) fields.push('xattrs');
  if (type === S_IFREG && a.size(nidA) === b.size(nidB) && !sameContent(treeA, nidA, treeB, nidB))
    fields.push('content');
  return fields;
}

function sameXattrs(treeA: ImageTree, nidA: number, treeB: ImageTree, nidB: number): boolean {
  const names = treeA.reader.xattrNames(nidA);
  if (names.join('\0') !== treeB.reader.xattrNames(nidB).join('\0')) return false;
  return names.every((name) => {
    const value = treeA.reader.xattr(nidA, name);
    return value !== undefined && treeB.reader.xattr(nidB, name)?.equals(value) === true;
  });
}

const STEP = 1 << 20;

function sameContent(treeA: ImageTree, nidA: number, treeB: ImageTree, nidB: number): boolean {
  const size = treeA.reader.size(nidA);
  let buffers: readonly [Buffer, Buffer] | undefined;
  for (let offset = 0; offset < size;) {
    // The result of mapRange is one object a reader.
    const { ...a } = treeA.reader.mapRange(nidA, offset);
    const { ...b } = treeB.reader.mapRange(nidB, offset);
    const length = Math.min(a.length, b.length, STEP);
    if (length <= 0) return false;
    if (!sameRun(treeA, a, treeB, b)) {
      buffers ??= [Buffer.allocUnsafe(STEP), Buffer.allocUnsafe(STEP)];
      const [left, right] = buffers;
      treeA.readRange(nidA, offset, length, left);
      treeB.readRange(nidB, offset, length, right);
      if (left.compare(right, 0, length, 0, length) !== 0) return false;
    }
    offset += length;
  }
  return true;
}

interface Run {
  readonly device: number;
  readonly position: number;
}

function sameRun(treeA: ImageTree, a: Run, treeB: ImageTree, b: Run): boolean {
  if (a.device === 0 || b.device === 0) return a.device === b.device;
  const diffId = treeA.prepared.layers[a.device - 1]?.diffId;
  return a.position === b.position && diffId !== undefined && diffId === treeB.prepared.layers[b.device - 1]?.diffId;
}
