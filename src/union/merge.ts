/**
 * The tree of an image from the trees of its layers, base first. Pure: no clock, no files.
 *
 * Per layer, in this order (image-spec layer.md):
 * 1. its whiteouts and opaque directories take away from what the layers below made, found there by path;
 * 2. its entries are applied in the order of its archive: a directory keeps the children of the one it meets, anything
 *    else replaces what was there;
 * 3. hard links whose target came later in the archive are resolved.
 *
 * What a symlink in a lower layer means for a path of an upper one is the one thing on which the world is divided.
 * "spec" follows it, as the specification's text, umoci and containerd's native snapshotter do: `lib/x` over
 * `lib -> usr/lib` is `usr/lib/x`. "overlay" does what engines on overlayfs show: a directory `lib` replaces the link.
 */
import { LaminaError } from '../errors.js';
import { WHITEOUT, impliedDirectory, isDirectory, isSymlink, resolveDirectory } from '../erofs/paths.js';
import { isWhiteout, marker, type Inode } from '../erofs/tree.js';
import { printable } from '../tar/notes.js';

export type Compat = 'spec' | 'overlay';

/** A name in a layer's tree; its path is found by walking up. */
interface Place {
  readonly parent: Place | undefined;
  readonly name: string;
  readonly inode: Inode;
  /** Where the directory is in the image, and in which {@link Merge.epoch} that was found. */
  resolved?: Inode;
  epoch?: number;
}

/**
 * Merges; layer N's extents get device N. The layers' inodes become the image's: they must not be used again.
 * Throws LINK_INVALID, PATH_LOOP, LIMIT_EXCEEDED.
 */
export function mergeLayers(layers: readonly Inode[], compat: Compat): Inode {
  const merge = new Merge(compat === 'spec');
  layers.forEach((layer, i) => merge.apply(layer, i + 1));
  return merge.root;
}

class Merge {
  readonly root = impliedDirectory();
  readonly #follow: boolean;
  /** Changes when a directory or symlink is replaced: places found before may be wrong then. */
  #epoch = 0;
  /** What a symlink to a name like a whiteout's has made; taken out when the layer is done. */
  readonly #hidden: { readonly parent: Inode; readonly name: string }[] = [];

  constructor(follow: boolean) {
    this.#follow = follow;
  }

  apply(layer: Inode, device: number): void {
    const rootPlace: Place = { parent: undefined, name: '', inode: layer };
    const { entries, whiteouts, opaques } = survey(rootPlace);
    this.#removeLower(whiteouts, opaques, detachedPaths(layer));
    if (layer.xattrs?.has(marker.implied) !== true) copyAttributes(layer, this.root);
    entries.sort((a, b) => a.inode.order - b.inode.order);
    const deferred: Place[] = [];
    for (const entry of entries) if (!this.#put(entry, device)) deferred.push(entry);
    for (const entry of deferred) if (!this.#put(entry, device)) throw missingTarget(entry);
    for (const { parent, name } of this.#hidden.splice(0)) parent.children?.delete(name);
  }

  /** All is looked up before anything is removed: the layers below are one view. */
  #removeLower(whiteouts: readonly Place[], opaques: readonly Place[], detached: readonly string[][]): void {
    const follow = this.#follow;
    const names: { parent: Inode; name: string }[] = [];
    const emptied: Inode[] = [];
    const whiteout = (path: string[]): void => {
      const name = path.pop() ?? '';
      const parent = resolveDirectory(this.root, path, { follow });
      if (parent?.children?.has(name) === true) names.push({ parent, name });
    };
    for (const place of whiteouts) whiteout(pathOf(place));
    for (const path of detached) whiteout(path);
    for (const place of opaques) {
      const path = pathOf(place);
      // A directory of the layer's own replaces a symlink; only an implied one stands for what the link names.
      const implied = place.inode.xattrs?.has(marker.implied) === true;
      const last = implied ? undefined : path.pop();
      const above = resolveDirectory(this.root, path, { follow });
      const directory = last === undefined ? above : above?.children?.get(last);
      if (directory !== undefined && isDirectory(directory)) emptied.push(directory);
    }
    for (const { parent, name } of names) parent.children?.delete(name);
    for (const directory of emptied) directory.children?.clear();
    if (names.length > 0 || emptied.length > 0) this.#epoch++;
  }

  /** False: the target of a hard link is not there yet. */
  #put(entry: Place, device: number): boolean {
    const parent = this.#directory(entry.parent);
    const { name, inode } = entry;
    const existing = parent.children?.get(name);
    const link = inode.xattrs?.get(marker.link);
    if (link !== undefined) {
      const target = this.#linkTarget(link.toString('latin1'));
      if (target === undefined) return false;
      if (isDirectory(target)) throw missingTarget(entry);
      this.#set(parent, name, target, existing);
      return true;
    }
    if (isDirectory(inode)) {
      const directory = existing !== undefined && isDirectory(existing) ? existing : impliedDirectory();
      copyAttributes(inode, directory);
      if (directory !== existing) this.#set(parent, name, directory, existing);
      entry.resolved = directory;
      entry.epoch = this.#epoch;
      return true;
    }
    adopt(inode, device);
    this.#set(parent, name, inode, existing);
    return true;
  }

  #set(parent: Inode, name: string, inode: Inode, existing: Inode | undefined): void {
    parent.children?.set(name, inode);
    if (existing !== undefined && (isDirectory(existing) || isSymlink(existing))) this.#epoch++;
  }

  #directory(place: Place | undefined): Inode {
    // Up to what is known, then down again; not by recursion, as a path may have thousands of names.
    const unknown: Place[] = [];
    let here = this.root;
    for (let p = place; p?.parent !== undefined; p = p.parent) {
      if (p.resolved !== undefined && p.epoch === this.#epoch) {
        here = p.resolved;
        break;
      }
      unknown.push(p);
    }
    for (let p = unknown.pop(); p !== undefined; p = unknown.pop()) {
      const child = here.children?.get(p.name);
      here = child !== undefined && isDirectory(child) ? child : this.#resolve(p);
      p.resolved = here;
      p.epoch = this.#epoch;
    }
    return here;
  }

  #resolve(place: Place): Inode {
    const make = (replaced: Inode | undefined, parent: Inode, name: string): Inode => {
      if (name.startsWith(WHITEOUT)) this.#hidden.push({ parent, name });
      if (replaced !== undefined && isSymlink(replaced)) this.#epoch++;
      return impliedDirectory();
    };
    return resolveDirectory(this.root, pathOf(place), { follow: this.#follow, make }) ?? this.root;
  }

  #linkTarget(path: string): Inode | undefined {
    const components = path.split('/').filter((part) => part !== '');
    const name = components.pop() ?? '';
    return resolveDirectory(this.root, components, { follow: this.#follow })?.children?.get(name);
  }
}

/** A layer's names, apart from what is only a whiteout or implied. */
function survey(root: Place): { entries: Place[]; whiteouts: Place[]; opaques: Place[] } {
  const entries: Place[] = [];
  const whiteouts: Place[] = [];
  const opaques: Place[] = [];
  const todo = [root];
  for (let place = todo.pop(); place !== undefined; place = todo.pop()) {
    const { inode } = place;
    const isRoot = place.parent === undefined;
    if (isWhiteout(inode)) {
      whiteouts.push(place);
      continue;
    }
    if (inode.xattrs?.has(marker.whiteout) === true) whiteouts.push(place);
    if (inode.xattrs?.has(marker.opaque) === true) opaques.push(place);
    if (!isRoot && inode.xattrs?.has(marker.implied) !== true) entries.push(place);
    for (const [name, child] of inode.children ?? []) todo.push({ parent: place, name, inode: child });
  }
  return { entries, whiteouts, opaques };
}

function detachedPaths(layer: Inode): string[][] {
  const text = layer.xattrs?.get(marker.detached)?.toString('latin1') ?? '';
  return text === '' ? [] : text.split('\0').map((path) => path.split('/'));
}

function pathOf(place: Place): string[] {
  const path: string[] = [];
  for (let p = place; p.parent !== undefined; p = p.parent) path.push(p.name);
  return path.reverse();
}

function copyAttributes(from: Inode, to: Inode): void {
  to.mode = from.mode;
  to.uid = from.uid;
  to.gid = from.gid;
  to.mtime = from.mtime;
  to.mtimeNsec = from.mtimeNsec;
  delete to.xattrs;
  const xattrs = withoutMarkers(from.xattrs);
  if (xattrs !== undefined) to.xattrs = xattrs;
}

const markers = new Set<string>(Object.values(marker));

function withoutMarkers(xattrs: Inode['xattrs']): Inode['xattrs'] {
  if (xattrs === undefined) return undefined;
  const kept = new Map([...xattrs].filter(([name]) => !markers.has(name)));
  return kept.size === 0 ? undefined : kept;
}

/** Makes a layer's inode the image's. One with several names comes here several times; then its order is 0 already. */
function adopt(inode: Inode, device: number): void {
  if (inode.order === 0) return;
  inode.order = 0;
  const xattrs = withoutMarkers(inode.xattrs);
  if (xattrs === undefined) delete inode.xattrs;
  else inode.xattrs = xattrs;
  if (inode.extents !== undefined) inode.extents = inode.extents.map((extent) => ({ ...extent, device }));
}

function missingTarget({ name, inode }: Place): LaminaError {
  const target = inode.xattrs?.get(marker.link)?.toString('latin1') ?? '';
  return new LaminaError(
    'LINK_INVALID',
    `The hard link ${printable(name)} names ${printable(target)}, which is no file of the image`,
    {
      details: { target: target.slice(0, 200) },
    },
  );
}
