/** What a layer's tree says to the merge: its names in their order, and what it takes away from the layers below. */
import { LaminaError } from '../errors.js';
import { OPAQUE, impliedDirectory, isDirectory } from '../erofs/paths.js';
import { MARKED, isWhiteout, marker, type Inode } from '../erofs/tree.js';

/** A name in a layer's tree; its path is found by walking up. */
export interface Place {
  readonly parent: Place | undefined;
  readonly name: string;
  readonly inode: Inode;
  /** When it is put: see {@link survey}. */
  order: number;
  /** The layer whites out this name or one above it, or makes it opaque: no lower layer has anything there, even behind a symlink. */
  isNew?: boolean;
  /** Of a hard link to a file of its layer, where its order is known: the path that it names. */
  readonly target: string | undefined;
  /** The layer has replaced it itself later. */
  readonly superseded: boolean;
  /** Where the directory is in the image, and in which epoch of the merge that was found. */
  resolved?: Inode;
  epoch?: number;
}

/**
 * A layer's names, apart from what is only a whiteout or implied, and with what it has replaced itself; a directory that
 * has several entries comes as often. A name's order is its inode's place in the archive, of a
 * file with several names what its directory has marked. Where the mark is missing, because the tree is from before it,
 * such names wait for the directories that they are in, which may take the place of lower symlinks. `links`: what stands for
 * a hard link to a lower layer and has several names, in the order of the archive.
 */
export function survey(layer: Inode): { entries: Place[]; links: Inode[]; whiteouts: Place[]; opaques: Place[] } {
  const entries: Place[] = [];
  const whiteouts: Place[] = [];
  const opaques: Place[] = [];
  const files = new Set<Inode>();
  const linked = new Set<Inode>();
  const exact = new Set<Place>();
  const todo = [rootPlace(layer, false)];
  for (let place = todo.pop(); place !== undefined; place = todo.pop()) {
    const { inode, superseded } = place;
    const isRoot = place.parent === undefined;
    const isNew = place.parent?.isNew === true;
    if (isWhiteout(inode)) {
      if (!isNew) whiteouts.push(place);
      continue;
    }
    const isWhitedOut = inode.xattrs?.has(marker.whiteout) === true;
    if (isWhitedOut && !isNew) whiteouts.push(place);
    const isOpaque = inode.xattrs?.has(marker.opaque) === true;
    if (isOpaque && !isNew && !isWhitedOut) opaques.push(place);
    if (!isRoot && inode.xattrs?.has(marker.implied) !== true) entries.push(place);
    for (const order of isRoot ? [] : (textOf(inode, marker.again)?.split(',') ?? [])) {
      entries.push({ ...place, order: Number(order) });
    }
    place.isNew = isNew || isWhitedOut || isOpaque;
    // Trees of before the marker say it only by names that are still there.
    if (!isDirectory(inode)) (isMarked(inode) || files.has(inode) ? linked : files).add(inode);
    if (inode.children === undefined) continue;
    const lists = [inode, ...furtherLists(inode)];
    const orders = pairs(lists, marker.names);
    const targets = pairs(lists, marker.targets);
    const whitedOut = new Set(itemsOf(lists, marker.whiteouts));
    for (const [name, child] of inode.children) {
      const isSuperseded = child.xattrs?.has(marker.superseded) === true;
      if (isSuperseded || child.xattrs?.has(marker.unresolved) === true) {
        for (const tree of child.children?.values() ?? []) todo.push(rootPlace(tree, isSuperseded));
        continue;
      }
      if (isOfNoEntry(child)) continue;
      const order = orders.get(name);
      const next: Place = {
        parent: place,
        name,
        inode: child,
        order: order === undefined ? child.order : Number(order),
        target: order === undefined ? undefined : targets.get(name),
        superseded,
      };
      if (order !== undefined) exact.add(next);
      if (!place.isNew && whitedOut.has(name)) whiteouts.push(next);
      todo.push(next);
    }
  }
  for (const place of entries) {
    if (!linked.has(place.inode) || exact.has(place)) continue;
    for (let up = place.parent; up !== undefined; up = up.parent) place.order = Math.max(place.order, up.order);
  }
  surveyDetached(layer, whiteouts, opaques);
  const links = [...linked].filter((inode) => linkOf(inode) !== undefined).sort((a, b) => a.order - b.order);
  return { entries, links, whiteouts, opaques };
}

/** The layer's tree as it is without any layer below. Throws PATH_LOOP where it has none. */
export function aloneTree(layer: Inode): Inode {
  for (const child of layer.children?.values() ?? []) {
    if (child.xattrs?.has(marker.alone) !== true) continue;
    for (const tree of child.children?.values() ?? []) return tree;
    const why = child.xattrs.get(marker.alone)?.toString('utf8') ?? '';
    throw new LaminaError('PATH_LOOP', `Without the layers below, a layer means nothing: ${why}`);
  }
  return layer;
}

function rootPlace(inode: Inode, superseded: boolean): Place {
  return { parent: undefined, name: '', inode, order: 0, target: undefined, superseded };
}

function textOf({ xattrs }: Inode, name: string): string | undefined {
  return xattrs?.get(name)?.toString('latin1');
}

/** What a directory's lists go on in. */
function furtherLists(directory: Inode): Inode[] {
  // The first parts are its own.
  if (![marker.names, marker.whiteouts].some((name) => directory.xattrs?.has(name) === true)) return [];
  for (const child of directory.children?.values() ?? []) {
    if (child.xattrs?.has(marker.more) === true) return [...(child.children?.values() ?? [])];
  }
  return [];
}

function itemsOf(inodes: readonly Inode[], list: string): string[] {
  return inodes.flatMap((inode) => textOf(inode, list)?.split('\0') ?? []);
}

/** A marker's list of two things each, the name among them, with a slash between. */
function pairs(inodes: readonly Inode[], list: typeof marker.names | typeof marker.targets): Map<string, string> {
  return new Map(
    itemsOf(inodes, list).map((item) => {
      const slash = item.indexOf('/');
      const [left, right] = [item.slice(0, slash), item.slice(slash + 1)];
      return list === marker.names ? [right, left] : [left, right];
    }),
  );
}

function isMarked({ xattrs }: Inode): boolean {
  return xattrs?.has(marker.linked) === true;
}

/** Directories that hold something else than entries, whiteouts or opaque markers at their paths. */
function isOfNoEntry({ xattrs }: Inode): boolean {
  return [marker.alone, marker.more, marker.detached].some((name) => xattrs?.has(name) === true);
}

/** What is taken away below something that is no directory in this layer. */
function surveyDetached(layer: Inode, whiteouts: Place[], opaques: Place[]): void {
  const todo = detachedTrees(layer).map((tree) => rootPlace(tree, false));
  for (let place = todo.pop(); place !== undefined; place = todo.pop()) {
    const { inode } = place;
    if (inode.xattrs?.has(marker.whiteout) === true) whiteouts.push(place);
    if (inode.xattrs?.has(marker.opaque) === true) opaques.push(place);
    for (const [name, child] of inode.children ?? []) todo.push({ ...rootPlace(child, false), parent: place, name });
  }
}

function detachedTrees(layer: Inode): Inode[] {
  for (const child of layer.children?.values() ?? []) {
    if (child.xattrs?.has(marker.detached) === true) return [...(child.children?.values() ?? [])];
  }
  const paths = textOf(layer, marker.detached)?.split('\0') ?? [];
  return paths.map(treeOf);
}

/** A tree of one whiteout, of which a layer's tree of before had the path alone. */
function treeOf(path: string): Inode {
  const tree = impliedDirectory();
  let here = tree;
  let kind: string = marker.whiteout;
  for (const name of path.split('/')) {
    if (name === OPAQUE) {
      kind = marker.opaque;
      break;
    }
    const child = impliedDirectory();
    here.children?.set(name, child);
    here = child;
  }
  here.xattrs = new Map([[kind, MARKED]]);
  return tree;
}

export function pathOf(place: Place | undefined): string[] {
  const path: string[] = [];
  for (let p = place; p?.parent !== undefined; p = p.parent) path.push(p.name);
  return path.reverse();
}

/** The path of a hard link's target, of an inode that stands for one. */
export function linkOf(inode: Inode): string | undefined {
  return textOf(inode, marker.link);
}
