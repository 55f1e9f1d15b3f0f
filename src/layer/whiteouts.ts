/**
 * The whiteouts of one layer, kept until its own entries are all there: in the tree a whiteout is a device 0:0 where the layer
 * has nothing else, a mark where it has, and a path in a list on the root where no place is for it.
 */
import { LaminaError } from '../errors.js';
import { XATTR_VALUE_MAX } from '../erofs/layout.js';
import { OPAQUE, impliedDirectory, isDirectory } from '../erofs/paths.js';
import { MARKED, S_IFCHR, marker, type Inode } from '../erofs/tree.js';
import type { DirectoryMarks } from './directory-marks.js';
import { checkName } from './entry-inode.js';

export interface Whiteout {
  /** Components, as written: a whiteout is resolved in the lower layers. */
  readonly path: readonly string[];
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

  /** Each where it stands; those below something that is no directory in this layer, on the root. Throws METADATA_INVALID, LIMIT_EXCEEDED. */
  place(root: Inode, marks: DirectoryMarks): void {
    const detached: string[] = [];
    for (const { path, opaque } of this.#whiteouts) {
      const placed = opaque ? this.#placeOpaque(root, path) : this.#placeNamed(root, path, marks);
      if (!placed) detached.push([...path, ...(opaque ? [OPAQUE] : [])].join('/'));
    }
    if (detached.length === 0) return;
    const value = Buffer.from(detached.join('\0'), 'latin1');
    if (value.length > XATTR_VALUE_MAX) {
      throw new LaminaError('LIMIT_EXCEEDED', 'The layer has too many whiteouts below what it makes no directory', {
        details: { bytes: value.length },
      });
    }
    (root.xattrs ??= new Map()).set(marker.detached, value);
  }

  #placeOpaque(root: Inode, path: readonly string[]): boolean {
    const directory = this.#directory(root, path);
    if (directory === undefined) return false;
    (directory.xattrs ??= new Map()).set(marker.opaque, MARKED);
    return true;
  }

  #placeNamed(root: Inode, path: readonly string[], marks: DirectoryMarks): boolean {
    const directory = this.#directory(root, path.slice(0, -1));
    if (directory === undefined) return false;
    const name = path.at(-1) ?? '';
    checkName(name, name);
    const child = directory.children?.get(name);
    if (child === undefined) this.#put(directory, name, whiteoutDevice());
    else if (isDirectory(child)) (child.xattrs ??= new Map()).set(marker.whiteout, MARKED);
    // Anything else of the layer replaces what is below in any case, but other entries may come before it.
    else marks.whitedOut(directory, name);
    return true;
  }

  /** Undefined where something else is on the way. */
  #directory(root: Inode, path: readonly string[]): Inode | undefined {
    let here = root;
    for (const name of path) {
      checkName(name, name);
      const child = here.children?.get(name) ?? this.#put(here, name, impliedDirectory());
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
