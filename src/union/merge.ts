/**
 * The tree of an image from the trees of its layers, base first. Pure: no clock, no files.
 *
 * Per layer, in this order (image-spec layer.md):
 * 1. its whiteouts and opaque directories take away from what the layers below made, found there by path;
 * 2. its entries are applied in the order of its archive, those too that it replaces itself later, since by way of lower
 *    symlinks others may depend on them: a directory keeps the children of the one it meets, anything else replaces what
 *    was there;
 * 3. hard links whose target came later in the archive are resolved.
 *
 * What a symlink in a lower layer means for a path of an upper one is the one thing on which the world is divided.
 * "spec" follows it, as the specification's text, umoci and containerd's native snapshotter do: `lib/x` over
 * `lib -> usr/lib` is `usr/lib/x`. "overlay" does what engines on overlayfs show: a directory `lib` replaces the link.
 */
import { LaminaError } from '../errors.js';
import {
  WHITEOUT,
  impliedDirectory,
  isDirectory,
  isSymlink,
  resolveDirectory,
  withoutSymlinks,
} from '../erofs/paths.js';
import { marker, type Inode } from '../erofs/tree.js';
import { printable } from '../tar/notes.js';
import { aloneTree, linkOf, pathOf, survey, type Place } from './survey.js';

/** How often the hard links of a layer that come before their targets are gone through. */
const ROUNDS_MAX = 40;

export type Compat = 'spec' | 'overlay';

/**
 * Told what a merge does, name by name, before it does it. A directory that meets a directory keeps its inode. Inodes are
 * those of the tree that grows: they say what a name is now, and change with the layers to come.
 */
export interface MergeObserver {
  /** `name` of `parent` becomes `inode`; `before` goes. A directory is `implied` where the layer has no entry for it. */
  place(parent: Inode, name: string, inode: Inode, before: Inode | undefined, implied: boolean): void;
  /** A directory gets the attributes of the layer's entry for it; the root has no parent. */
  attributes(parent: Inode | undefined, name: string, directory: Inode, entry: Inode): void;
  /** A whiteout or an opaque directory takes a name away. */
  remove(parent: Inode, name: string, inode: Inode): void;
  /** A layer, from 1, has been applied. */
  layerDone(root: Inode, layer: number): void;
}

/**
 * Merges; layer N's extents get device N. The layers' inodes become the image's: they must not be used again.
 * Throws LINK_INVALID, PATH_LOOP, LIMIT_EXCEEDED.
 */
export function mergeLayers(layers: readonly Inode[], compat: Compat, observer?: MergeObserver): Inode {
  const merge = new Merge(compat === 'spec', observer);
  layers.forEach((layer, i) => {
    merge.apply(layer, i + 1);
    observer?.layerDone(merge.root, i + 1);
  });
  return merge.root;
}

class Merge {
  readonly root = impliedDirectory();
  readonly #follow: boolean;
  readonly #observer: MergeObserver | undefined;
  /** Changes when a directory or symlink is replaced: places found before may be wrong then. */
  #epoch = 0;
  /** Of the layer being applied: what stands for a hard link with several names, and what these name. */
  readonly #targets = new Map<Inode, Inode>();
  /** What a symlink to a name like a whiteout's has made; taken out when the layer is done. */
  readonly #hidden: { readonly parent: Inode; readonly name: string }[] = [];

  constructor(follow: boolean, observer: MergeObserver | undefined) {
    this.#follow = follow;
    this.#observer = observer;
  }

  apply(whole: Inode, device: number): void {
    const layer = this.#follow ? whole : aloneTree(whole);
    const { entries, links, whiteouts, opaques } = survey(layer);
    this.#removeLower(layer, whiteouts, opaques);
    if (layer.xattrs?.has(marker.implied) !== true) {
      this.#observer?.attributes(undefined, '', this.root, layer);
      copyAttributes(layer, this.root);
    }
    entries.sort((a, b) => a.order - b.order);
    const deferred: Place[] = [];
    let known = 0;
    for (const entry of entries) {
      // What a hard link names is found when its turn comes, though its names may have to wait.
      for (let link = links[known]; link !== undefined && link.order <= entry.order; link = links[++known])
        this.#findTarget(link);
      if (this.#put(entry, device)) continue;
      // By the time that its target is there, something else is at this name, or may be at the one that it goes by.
      if (!entry.superseded) deferred.push({ ...entry, target: undefined });
    }
    this.#targets.clear();
    this.#putDeferred(deferred, device);
    for (const { parent, name } of this.#hidden.splice(0)) parent.children?.delete(name);
  }

  /** Hard links whose target came later; that may be such a link itself. */
  #putDeferred(deferred: readonly Place[], device: number): void {
    let left = this.#putInTurn(deferred, device);
    // A link to a symlink, or in the place of one, may have led elsewhere what others name.
    for (let [round, before] = [1, Infinity]; round < ROUNDS_MAX && left.length > 0 && left.length < before; round++) {
      before = left.length;
      left = this.#putInTurn(left, device);
    }
    if (left[0] !== undefined) throw missingTarget(left[0]);
  }

  /** Each when its target is there; those of which that never was are left. */
  #putInTurn(links: readonly Place[], device: number): Place[] {
    // By the path of the target without symlinks: that of the link that it waits for may be another way there.
    const waiting = new Map<string, Place[]>();
    for (const first of links) {
      const ready = [first];
      for (let link = ready.pop(); link !== undefined; link = ready.pop()) {
        if (this.#put(link, device)) {
          if (waiting.size === 0) continue;
          const path = this.#realPath(pathOf(link));
          for (const other of waiting.get(path) ?? []) ready.push(other);
          waiting.delete(path);
        } else {
          const target = this.#realPath(componentsOf(linkOf(link.inode) ?? ''));
          const others = waiting.get(target);
          if (others === undefined) waiting.set(target, [link]);
          else others.push(link);
        }
      }
    }
    return [...waiting.values()].flat();
  }

  #realPath(components: string[]): string {
    const name = components.pop() ?? '';
    return [...withoutSymlinks(this.root, components, this.#follow), name].join('/');
  }

  /** All is looked up before anything is removed: the layers below are one view. */
  #removeLower(layer: Inode, whiteouts: readonly Place[], opaques: readonly Place[]): void {
    const names: { parent: Inode; name: string }[] = [];
    const emptied: Inode[] = [];
    const found = new Map<Place | undefined, Inode | undefined>();
    for (const { parent, name } of whiteouts) {
      if (!found.has(parent)) found.set(parent, this.#lower(layer, pathOf(parent)));
      const directory = found.get(parent);
      if (directory?.children?.has(name) === true) names.push({ parent: directory, name });
    }
    for (const place of opaques) {
      const directory = this.#lower(layer, pathOf(place));
      if (directory !== undefined) emptied.push(directory);
    }
    if (this.#observer !== undefined) this.#tellRemoved(this.#observer, names, emptied);
    for (const { parent, name } of names) parent.children?.delete(name);
    for (const directory of emptied) directory.children?.clear();
    if (names.length > 0 || emptied.length > 0) this.#epoch++;
  }

  /**
   * The directory that the layers below have at a path of this layer. A directory of the layer's own replaces a symlink;
   * one that is only implied stands for what the link names.
   */
  #lower(layer: Inode, path: readonly string[]): Inode | undefined {
    let own: Inode | undefined = layer;
    let here: Inode | undefined = this.root;
    for (const [i, name] of path.entries()) {
      own = own?.children?.get(name);
      const child: Inode | undefined = here?.children?.get(name);
      if (child === undefined || isDirectory(child)) here = child;
      else if (!isSymlink(child) || (own !== undefined && isOwnDirectory(own))) return undefined;
      else here = resolveDirectory(this.root, path.slice(0, i + 1), { follow: this.#follow });
    }
    return here;
  }

  #tellRemoved(
    observer: MergeObserver,
    names: readonly { parent: Inode; name: string }[],
    emptied: readonly Inode[],
  ): void {
    for (const { parent, name } of names) {
      const inode = parent.children?.get(name);
      if (inode !== undefined) observer.remove(parent, name, inode);
    }
    for (const directory of emptied) {
      for (const [name, inode] of directory.children ?? []) observer.remove(directory, name, inode);
    }
  }

  /** False: the target of a hard link is not there yet. */
  #put(entry: Place, device: number): boolean {
    const parent = this.#directory(entry.parent);
    const { name, inode } = entry;
    const existing = parent.children?.get(name);
    const named = entry.target === undefined ? undefined : this.#linkTarget(entry.target);
    if (named !== undefined && !isDirectory(named)) {
      this.#set(parent, name, named, existing);
      return true;
    }
    const link = linkOf(inode);
    if (link !== undefined) {
      const target = this.#targets.get(inode) ?? this.#linkTarget(link);
      if (target === undefined || (entry.superseded && isDirectory(target))) return false;
      if (isDirectory(target) || (target === existing && this.#names(link, parent, name))) throw missingTarget(entry);
      this.#set(parent, name, target, existing);
      return true;
    }
    if (isDirectory(inode)) {
      const directory = existing !== undefined && isDirectory(existing) ? existing : impliedDirectory();
      if (directory === existing) this.#observer?.attributes(parent, name, directory, inode);
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
    this.#observer?.place(parent, name, inode, existing, false);
    parent.children?.set(name, inode);
    if (existing !== undefined && (isDirectory(existing) || isSymlink(existing))) this.#epoch++;
  }

  /** From the nearest place that is known downwards; a path may be thousands of names deep. */
  #directory(place: Place | undefined): Inode {
    const unknown: Place[] = [];
    let here = this.root;
    for (let p = place; p?.parent !== undefined; p = p.parent) {
      if (p.resolved !== undefined && p.epoch === this.#epoch) {
        here = p.resolved;
        break;
      }
      unknown.push(p);
    }
    for (const p of unknown.reverse()) {
      here = this.#child(here, p);
      p.resolved = here;
      p.epoch = this.#epoch;
    }
    return here;
  }

  #child(parent: Inode, place: Place): Inode {
    const child = parent.children?.get(place.name);
    if (child !== undefined && isDirectory(child)) return child;
    if (child !== undefined && isSymlink(child)) return this.#resolve(place);
    const directory = impliedDirectory();
    this.#observer?.place(parent, place.name, directory, child, true);
    parent.children?.set(place.name, directory);
    return directory;
  }

  #resolve(place: Place): Inode {
    const make = (replaced: Inode | undefined, parent: Inode, name: string): Inode => {
      if (name.startsWith(WHITEOUT)) this.#hidden.push({ parent, name });
      if (replaced !== undefined && isSymlink(replaced)) this.#epoch++;
      const directory = impliedDirectory();
      this.#observer?.place(parent, name, directory, replaced, true);
      return directory;
    };
    return resolveDirectory(this.root, pathOf(place), { follow: this.#follow, make }) ?? this.root;
  }

  /** Whether a path, through whatever symlinks, is the one of `name` in `parent`. */
  #names(path: string, parent: Inode, name: string): boolean {
    const components = componentsOf(path);
    if (components.pop() !== name) return false;
    return resolveDirectory(this.root, components, { follow: this.#follow }) === parent;
  }

  #findTarget(link: Inode): void {
    const target = this.#linkTarget(linkOf(link) ?? '');
    if (target !== undefined && !isDirectory(target)) this.#targets.set(link, target);
  }

  #linkTarget(path: string): Inode | undefined {
    const components = componentsOf(path);
    const name = components.pop() ?? '';
    return resolveDirectory(this.root, components, { follow: this.#follow })?.children?.get(name);
  }
}

function componentsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '');
}

function isOwnDirectory(inode: Inode): boolean {
  return isDirectory(inode) && inode.xattrs?.has(marker.implied) !== true;
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

const markers = Object.values(marker);

/** The xattrs themselves where no marker is among them. */
function withoutMarkers(xattrs: Inode['xattrs']): Inode['xattrs'] {
  if (xattrs === undefined || !markers.some((name) => xattrs.has(name))) return xattrs;
  const kept = new Map(xattrs);
  for (const name of markers) kept.delete(name);
  return kept.size === 0 ? undefined : kept;
}

/** Makes a layer's inode the image's. One with several names comes here several times; then its order is 0 already. */
function adopt(inode: Inode, device: number): void {
  if (inode.order === 0) return;
  inode.order = 0;
  const xattrs = withoutMarkers(inode.xattrs);
  if (xattrs === undefined) delete inode.xattrs;
  else inode.xattrs = xattrs;
  const before = inode.extents?.[0]?.device;
  if (before === undefined || before === device) return;
  inode.extents = inode.extents?.map((extent) => ({ ...extent, device })) ?? [];
}

function missingTarget({ name, inode }: Place): LaminaError {
  const target = linkOf(inode) ?? '';
  return new LaminaError(
    'LINK_INVALID',
    `The hard link ${printable(name)} names ${printable(target)}, which is no file of the image`,
    {
      details: { target: target.slice(0, 200) },
    },
  );
}
