/**
 * Trees beside a layer's own, numbered below one name of its root. They hold what has no place in it, at its path and with
 * directories on the way that are only implied:
 *
 *     /usr/lib/a                  the layer's last word
 *     /.wh..lamina/0/usr/lib/a    what it replaced first there
 *     /.wh..lamina/1/usr/lib/a    what it replaced next
 */
import { impliedDirectory, isDirectory } from '../erofs/paths.js';
import { MARKED, type Inode, type marker } from '../erofs/tree.js';
import { copied } from './copied-tree.js';

type Kind = (typeof marker)['superseded' | 'unresolved' | 'alone' | 'more' | 'detached'];

export class SideTrees {
  /** Only the last still grows: whoever looked for room in older ones would look again and again. */
  readonly #trees: Inode[] = [];
  readonly #made: () => void;

  /** `made` is called for each directory that is made. */
  constructor(made: () => void) {
    this.#made = made;
  }

  /** A directory for `name`, which it does not have, at `path`. */
  room(path: readonly string[], name: string): Inode {
    const last = this.#trees.at(-1);
    const directory = last === undefined ? undefined : this.#directory(last, path);
    if (directory?.children?.has(name) === false) return directory;
    const tree = impliedDirectory();
    this.#made();
    this.#trees.push(tree);
    return this.#directory(tree, path) ?? tree;
  }

  /** Undefined where something else is on the way. */
  #directory(tree: Inode, path: readonly string[]): Inode | undefined {
    let here = tree;
    for (const name of path) {
      let child = here.children?.get(name);
      if (child === undefined) {
        child = impliedDirectory();
        this.#made();
        here.children?.set(name, child);
      }
      if (!isDirectory(child)) return undefined;
      here = child;
    }
    return here;
  }

  copy(of: SideTrees, copies: Map<Inode, Inode>): void {
    for (const tree of of.#trees) this.#trees.push(copied(tree, copies));
  }

  place(root: Inode, kind: Kind): void {
    if (this.#trees.length > 0) placeBeside(root, kind, this.#trees);
  }
}

/** Puts trees into a directory, for the merge to find by `kind`: in an appc image a file may have the name. */
export function placeBeside(root: Inode, kind: Kind, list: readonly Inode[], value = MARKED): void {
  const trees = impliedDirectory();
  trees.xattrs = new Map([[kind, value]]);
  for (const [i, tree] of list.entries()) trees.children?.set(String(i), tree);
  let name = '.wh..lamina';
  while (root.children?.has(name) === true) name += '.';
  root.children?.set(name, trees);
}
