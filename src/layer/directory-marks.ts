/**
 * What a layer's directories tell the merge beyond their entries (src/union): each name that stands for something else than it
 * once did, or for one of several, has a place of its own in the archive. Collected while the tree grows, and put into
 * attributes of the directories when it is finished.
 */
import { XATTR_VALUE_MAX } from '../erofs/layout.js';
import { impliedDirectory, isDirectory } from '../erofs/paths.js';
import { MARKED, marker, type Inode } from '../erofs/tree.js';
import { placeBeside } from './side-trees.js';

export interface Link {
  readonly order: number;
  /** Where it names something of this layer: that as a path, by which the merge may find something else. */
  readonly target: string | undefined;
}

/** Entries of one directory whose places are kept; of more, the first and the last. */
const AGAIN_MAX = 1000;

export class DirectoryMarks {
  /** Directories with several entries: the places of all but the first. */
  readonly #again = new Map<Inode, number[]>();
  /** By directory: names, other than of directories, that the layer also whites out. */
  readonly #whitedOut = new NameSets();
  /** By directory and name. */
  readonly #links = new Map<Inode, Map<string, Link>>();

  /** A directory has a further entry, which stands at `order`. */
  again(directory: Inode, order: number): void {
    const known = this.#again.get(directory);
    if (known === undefined) this.#again.set(directory, [order]);
    else if (known.length < AGAIN_MAX) known.push(order);
    else known[known.length - 1] = order;
  }

  /** A name is a hard link's. */
  link(directory: Inode, name: string, link: Link): void {
    const links = this.#links.get(directory);
    if (links === undefined) this.#links.set(directory, new Map([[name, link]]));
    else links.set(name, link);
  }

  /** What a name of `directory` was is kept under the same name of `kept`: with what was known of it. */
  supersede(directory: Inode, kept: Inode, name: string): void {
    const link = this.#links.get(directory)?.get(name);
    if (link !== undefined) this.link(kept, name, link);
    this.forget(directory, name);
  }

  /** A name is something else from now on. */
  forget(directory: Inode, name: string): void {
    this.#links.get(directory)?.delete(name);
  }

  /** A name that the layer has is whited out by it too. */
  whitedOut(directory: Inode, name: string): void {
    this.#whitedOut.add(directory, name);
  }

  /** Takes over what is known of directories of which `copies` has copies. */
  copy(of: DirectoryMarks, copies: ReadonlyMap<Inode, Inode>): void {
    this.#whitedOut.copy(of.#whitedOut, copies);
    for (const [directory, orders] of of.#again) this.#again.set(copies.get(directory) ?? directory, [...orders]);
    for (const [directory, links] of of.#links) this.#links.set(copies.get(directory) ?? directory, new Map(links));
  }

  place(root: Inode): void {
    const todo = [root];
    for (let inode = todo.pop(); inode !== undefined; inode = todo.pop()) {
      if (inode.order === 0) (inode.xattrs ??= new Map()).set(marker.implied, MARKED);
      const again = this.#again.get(inode);
      if (again !== undefined) (inode.xattrs ??= new Map()).set(marker.again, Buffer.from(again.join(','), 'latin1'));
      for (const child of inode.children?.values() ?? []) if (isDirectory(child)) todo.push(child);
      this.#markNames(inode);
    }
  }

  /** An inode has one order, but each of its names has a place of its own in the archive. */
  #markNames(directory: Inode): void {
    const links = this.#links.get(directory);
    const names: string[] = [];
    const targets: string[] = [];
    for (const [name, child] of directory.children ?? []) {
      if (isDirectory(child) || child.xattrs?.has(marker.linked) !== true) continue;
      const link = links?.get(name);
      names.push(`${link?.order ?? child.order}/${name}`);
      if (link?.target !== undefined) targets.push(`${name}${link.target}`);
    }
    setLists(directory, { names, targets, whiteouts: this.#whitedOut.of(directory) });
  }
}

/** Names by directory. */
export class NameSets {
  readonly #names = new Map<Inode, Set<string>>();

  add(directory: Inode, name: string): void {
    const known = this.#names.get(directory);
    if (known === undefined) this.#names.set(directory, new Set([name]));
    else known.add(name);
  }

  of(directory: Inode): string[] {
    return [...(this.#names.get(directory) ?? [])];
  }

  copy(of: NameSets, copies: ReadonlyMap<Inode, Inode>): void {
    for (const [directory, names] of of.#names) this.#names.set(copies.get(directory) ?? directory, new Set(names));
  }

  entries(): IterableIterator<[Inode, ReadonlySet<string>]> {
    return this.#names.entries();
  }
}

type Lists = Readonly<Record<'names' | 'targets' | 'whiteouts', readonly string[]>>;

/** An attribute has room for 64 KiB: what is more goes to directories beside. */
function setLists(directory: Inode, lists: Lists): void {
  const [names, targets, whiteouts] = [split(lists.names), split(lists.targets), split(lists.whiteouts)];
  const count = Math.max(names.length, targets.length, whiteouts.length);
  const holders = [directory, ...Array.from({ length: Math.max(count - 1, 0) }, () => impliedDirectory())];
  for (const [i, holder] of holders.entries()) {
    for (const [name, list] of [
      [marker.names, names[i]],
      [marker.targets, targets[i]],
      [marker.whiteouts, whiteouts[i]],
    ] as const) {
      if (list !== undefined) (holder.xattrs ??= new Map()).set(name, list);
    }
  }
  if (holders.length > 1) placeBeside(directory, marker.more, holders.slice(1));
}

/** With NUL between. */
function split(items: readonly string[]): Buffer[] {
  const lists: string[][] = [];
  let bytes = Infinity;
  for (const item of items) {
    bytes += item.length + 1;
    if (bytes > XATTR_VALUE_MAX) {
      lists.push([]);
      bytes = item.length;
    }
    lists.at(-1)?.push(item);
  }
  return lists.map((list) => Buffer.from(list.join('\0'), 'latin1'));
}
