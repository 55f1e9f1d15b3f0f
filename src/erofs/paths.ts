/** Paths in a tree in memory: cleaning archive names, finding directories through symlinks, never leaving the root. */
import { LaminaError } from '../errors.js';
import { S_IFDIR, S_IFLNK, S_IFMT, type Inode } from './tree.js';

/** Symlinks followed on the way to one directory; more are a loop (securejoin, which the other image tools use, allows 255). */
const HOPS_MAX = 255;
/** Components of all their targets: 255 targets of 4,095 bytes would make every name behind them cost milliseconds. */
const FOLLOWED_MAX = 8192;

/** Directories within each other, however they were named: what walks up a path does so step by step. */
export const DEPTH_MAX = 8192;

/** No file of an image has a name that starts like this (image-spec layer.md, "Whiteouts"). */
export const WHITEOUT = '.wh.';

/** The file in a directory that makes it opaque. */
export const OPAQUE = '.wh..wh..opq';

export function isDirectory(inode: Inode): boolean {
  return (inode.mode & S_IFMT) === S_IFDIR;
}

export function isSymlink(inode: Inode): boolean {
  return (inode.mode & S_IFMT) === S_IFLNK;
}

/** A directory as it is made when only its children are known (image-spec layer.md leaves its attributes open). */
export function impliedDirectory(): Inode {
  return {
    mode: S_IFDIR | 0o755,
    uid: 0,
    gid: 0,
    mtime: 0,
    mtimeNsec: 0,
    size: 0,
    rdev: 0,
    order: 0,
    children: new Map(),
  };
}

/**
 * The components of an archive name, cleaned by the letter before any symlink is looked at: no "", ".", "..". A ".."
 * above the root is dropped and `escapes` says so.
 */
export function cleanPath(name: string): { components: string[]; escapes: boolean } {
  const components: string[] = [];
  let escapes = false;
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') components.push(part);
    else if (components.pop() === undefined) escapes = true;
  }
  return { components, escapes };
}

/** Whether a symlink is on the way from `root`, or at its end. */
export function meetsSymlink(root: Inode, components: readonly string[]): boolean {
  let here: Inode | undefined = root;
  for (const name of components) {
    here = here.children?.get(name);
    if (here === undefined) return false;
    if (isSymlink(here)) return true;
  }
  return false;
}

export interface ResolveOptions {
  /** False: a symlink is not a directory. */
  readonly follow: boolean;
  /** Makes what is missing, in place of whatever is there instead; without it the answer is undefined then. */
  readonly make?: ((replaced: Inode | undefined, parent: Inode, name: string) => Inode) | undefined;
  /** Given empty; holds the names from the root to where the way has led, without symlinks: in `make`, to `parent`. */
  readonly trail?: string[] | undefined;
}

/**
 * The directory at `components` below `root`. A name that is no directory and that a ".." takes back, as in a symlink to
 * "d/../a", need not be one and is left alone. Throws PATH_LOOP, LIMIT_EXCEEDED.
 */
export function resolveDirectory(
  root: Inode,
  components: readonly string[],
  options: ResolveOptions,
): Inode | undefined {
  const { make, trail } = options;
  const straight = components.length < DEPTH_MAX ? straightWay(root, components) : undefined;
  if (straight !== undefined) {
    trail?.push(...components);
    return straight;
  }
  const { here: last, missing } = walk(root, components, options);
  let here = last;
  if (make === undefined) return missing.length === 0 ? here : undefined;
  for (const name of missing) {
    const made = make(here.children?.get(name), here, name);
    here.children?.set(name, made);
    trail?.push(name);
    here = made;
  }
  return here;
}

/** Where there are directories all the way, as nearly always. */
function straightWay(root: Inode, components: readonly string[]): Inode | undefined {
  let here = root;
  for (const name of components) {
    const child = here.children?.get(name);
    if (child === undefined || !isDirectory(child)) return undefined;
    here = child;
  }
  return here;
}

/** `components` without the symlinks and ".." on the way, as far as there is one. Throws PATH_LOOP. */
export function withoutSymlinks(root: Inode, components: readonly string[], follow: boolean): string[] {
  const trail: string[] = [];
  const { missing } = walk(root, components, { follow, trail });
  return trail.concat(missing);
}

/** As far as there are directories, and what has to be below. */
function walk(
  root: Inode,
  components: readonly string[],
  { follow, make, trail }: ResolveOptions,
): { readonly here: Inode; readonly missing: readonly string[] } {
  // Directories from the root to here, for ".."; names below that are to be made; and what is still to be walked, last first.
  const stack: Inode[] = [root];
  const missing: string[] = [];
  const todo = components.toReversed();
  let here = root;
  let hops = 0;
  let followed = 0;
  for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
    if (name === '..') {
      if (missing.pop() !== undefined) continue;
      if (stack.length > 1) {
        stack.pop();
        trail?.pop();
      }
      here = stack.at(-1) ?? root;
      continue;
    }
    const child = missing.length === 0 ? here.children?.get(name) : undefined;
    if (follow && child !== undefined && isSymlink(child)) {
      if (++hops > HOPS_MAX) throw loop(components);
      const target = child.target ?? '';
      if (target.startsWith('/')) {
        stack.length = 1;
        if (trail !== undefined) trail.length = 0;
        here = root;
      }
      const parts = target.split('/');
      followed += parts.length;
      if (followed > FOLLOWED_MAX) throw loop(components);
      for (let i = parts.length - 1; i >= 0; i--) if (parts[i] !== '' && parts[i] !== '.') todo.push(parts[i] ?? '');
      continue;
    }
    if (child !== undefined && isDirectory(child)) {
      stack.push(child);
      trail?.push(name);
      here = child;
    } else missing.push(name);
    if (make !== undefined && stack.length + missing.length > DEPTH_MAX) throw tooDeep(components);
  }
  return { here, missing };
}

function tooDeep(components: readonly string[]): LaminaError {
  const path = textOf(components);
  return new LaminaError('LIMIT_EXCEEDED', `More than ${DEPTH_MAX} directories within each other: /${path}`, {
    details: { path },
  });
}

function textOf(components: readonly string[]): string {
  return Buffer.from(components.join('/').slice(0, 200), 'latin1').toString('utf8');
}

function loop(components: readonly string[]): LaminaError {
  const path = textOf(components);
  return new LaminaError('PATH_LOOP', `Too many symlinks on the way to ${JSON.stringify(`/${path}`)}`, {
    details: { path },
  });
}
