/**
 * The merge of an image's layers once more, to be watched: the merged tree in the store no longer knows which layer said
 * what. Takes time and memory by the entries of all layers.
 */
import { join } from 'node:path';
import { loadTree } from '../erofs/load.js';
import { ErofsReader } from '../erofs/reader.js';
import type { Inode } from '../erofs/tree.js';
import { readSealed } from '../store/sealed.js';
import { mergeLayers, type Compat, type MergeObserver } from '../union/merge.js';
import { keepListed } from '../union/whitelist.js';
import type { PreparedImage } from './prepare.js';

/** The image's tree in memory. Throws what merging throws. */
export function replayMerge(prepared: PreparedImage, compat: Compat, observer: MergeObserver): Inode {
  const { image, layers } = prepared;
  const trees = layers.map(({ directory }, i) => {
    const root = loadTree(new ErofsReader(readSealed(join(directory, 'tree.erofs'))));
    for (const list of image.layers[i]?.whitelists ?? []) keepListed(root, list);
    return root;
  });
  return mergeLayers(trees, image.compat ?? compat, observer);
}

/** What an inode was at a moment: inodes change with the layers to come. */
export interface EntryFacts {
  /** Type and permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes, of a file or a symlink's target; 0 else. */
  readonly size: number;
  /** Linux encoding. */
  readonly rdev: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  readonly mtimeNsec: number;
  /** Bytes in latin1. */
  readonly target: string | undefined;
}

export function factsOf({ mode, uid, gid, size, rdev, mtime, mtimeNsec, target }: Inode): EntryFacts {
  return { mode, uid, gid, size, rdev, mtime, mtimeNsec, target };
}

/** Where directories are: parents of what a merge has placed. */
export class Whereabouts {
  readonly #places = new WeakMap<Inode, { readonly parent: Inode; readonly name: string }>();

  placed(parent: Inode, name: string, inode: Inode): void {
    if (inode.children !== undefined) this.#places.set(inode, { parent, name });
  }

  /** The path of a name in a directory: bytes in latin1, from the root on. */
  path(directory: Inode, name: string): string {
    const parts = [name];
    for (let at = this.#places.get(directory); at !== undefined; at = this.#places.get(at.parent)) parts.push(at.name);
    return `/${parts.reverse().join('/')}`;
  }
}
