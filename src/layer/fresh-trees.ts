/**
 * Layers' trees that this thread has just put into the store, as `loadTree` would give them: the merge that mostly follows need
 * not read them back.
 */
import type { Inode } from '../erofs/tree.js';

/** Bytes that the trees have in the store: as objects they take several times that. */
const BYTES_MAX = 16 * 1024 * 1024;

const trees = new Map<string, Inode>();
let bytes = 0;

/** `path`: of the layer's tree.erofs; `encoded`: what it holds. */
export function keepTree(path: string, root: Inode, encoded: readonly Buffer[]): void {
  // One of before, whose layer was taken out of the store, must not come back.
  trees.delete(path);
  const size = encoded.reduce((n, part) => n + part.length, 0);
  if (bytes + size > BYTES_MAX) return;
  bytes += size;
  trees.set(path, root);
}

/** For one use, which may change it. */
export function takeTree(path: string): Inode | undefined {
  const root = trees.get(path);
  trees.delete(path);
  return root;
}

export function dropTrees(): void {
  trees.clear();
  bytes = 0;
}
