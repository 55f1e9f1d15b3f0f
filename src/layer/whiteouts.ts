/**
 * The whiteouts of one layer, kept until its own entries are all there: in the tree a whiteout is a device 0:0 where the layer
 * has nothing else, a mark where it has, and a marked directory in a tree beside it where no place is for it.
 */
import { impliedDirectory, isDirectory } from '../erofs/paths.js';
import { MARKED, S_IFCHR, isWhiteout, marker, type Inode } from '../erofs/tree.js';
import type { DirectoryMarks } from './directory-marks.js';
import { checkName } from './entry-inode.js';
import { placeBeside } from './side-trees.js';

export interface Whiteout {
  /** Cleaned, without a slash in front, as written: a whiteout is resolved in the lower layers. One string: there may be millions. */
  readonly path: string;
  readonly opaque: boolean;
}

export class Whiteouts {
  readonly #whiteouts: Whiteout[] = [];
  readonly #made: () => void;

  /** `made` is called for each that is added, and each inode that is made for them. */
  constructor(made: () => void) {
    this.#made = made;
  }

  /** Its path has no name that is itself a whiteout's. */
  add(whiteout: Whiteout): void {
    this.#made();
    this.#whiteouts.push(whiteout);
  }

  copy(of: Whiteouts): void {
    for (const whiteout of of.#whiteouts) this.#whiteouts.push(whiteout);
  }

  /** Each where it stands; those below something that is no directory in this layer, beside it. Throws METADATA_INVALID, LIMIT_EXCEEDED. */
  place(root: Inode, marks: DirectoryMarks): void {
    const detached = impliedDirectory();
    for (const { path, opaque } of this.#whiteouts) {
      const components = path === '' ? [] : path.split('/');
      const placed = opaque ? this.#placeOpaque(root, components) : this.#placeNamed(root, components, marks);
      if (!placed) this.#mark(this.#directory(detached, components), opaque ? marker.opaque : marker.whiteout);
    }
    if (detached.children?.size !== 0) placeBeside(root, marker.detached, [detached]);
  }

  #placeOpaque(root: Inode, path: readonly string[]): boolean {
    const directory = this.#directory(root, path);
    this.#mark(directory, marker.opaque);
    return directory !== undefined;
  }

  #placeNamed(root: Inode, path: readonly string[], marks: DirectoryMarks): boolean {
    const directory = this.#directory(root, path.slice(0, -1));
    if (directory === undefined) return false;
    const name = path.at(-1) ?? '';
    checkName(name, name);
    const child = directory.children?.get(name);
    if (child === undefined) this.#put(directory, name, whiteoutDevice());
    else if (isDirectory(child)) this.#mark(child, marker.whiteout);
    // Anything else of the layer replaces what is below in any case, but other entries may come before it.
    else marks.whitedOut(directory, name);
    return true;
  }

  #mark(directory: Inode | undefined, name: typeof marker.opaque | typeof marker.whiteout): void {
    if (directory !== undefined) (directory.xattrs ??= new Map()).set(name, MARKED);
  }

  /** Undefined where something else is on the way; a whiteout that is becomes a directory that says the same. */
  #directory(root: Inode, path: readonly string[]): Inode | undefined {
    let here = root;
    for (const name of path) {
      checkName(name, name);
      let child = here.children?.get(name);
      if (child === undefined || isWhiteout(child)) {
        const directory = this.#put(here, name, impliedDirectory());
        if (child !== undefined) this.#mark(directory, marker.whiteout);
        child = directory;
      }
      if (!isDirectory(child)) return undefined;
      here = child;
    }
    return here;
  }

  #put(directory: Inode, name: string, inode: Inode): Inode {
    directory.children?.set(name, inode);
    this.#made();
    return inode;
  }
}

function whiteoutDevice(): Inode {
  return { mode: S_IFCHR, uid: 0, gid: 0, mtime: 0, mtimeNsec: 0, size: 0, rdev: 0, order: 0 };
}
