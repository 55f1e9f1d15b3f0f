/** Paths as the image itself has them. */
import { S_IFLNK, S_IFMT } from '../erofs/tree.js';
import type { ImageTree } from './tree.js';

/** As in the kernel (MAXSYMLINKS); `tree.resolve` has counted them before. */
const HOPS_MAX = 40;
const ROOT = 1;

/**
 * The path without symlinks and dots that means the same; the last symlink stays unless `followLast`.
 * Throws PATH_NOT_FOUND, PATH_LOOP.
 */
export function realPath(tree: ImageTree, path: string, { followLast = true } = {}): string {
  tree.resolve(path, { followLast });
  const follows = followLast || path.endsWith('/');
  const todo = path.split('/').reverse();
  const names: string[] = [];
  const nids: number[] = [ROOT];
  let hops = 0;
  for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
    if (name === '' || name === '.') continue;
    if (name === '..') {
      names.pop();
      if (nids.length > 1) nids.pop();
      continue;
    }
    const nid = tree.lookup(nids.at(-1) ?? ROOT, name);
    const isLink = (tree.reader.mode(nid) & S_IFMT) === S_IFLNK;
    if (isLink && hops < HOPS_MAX && (follows || todo.some((part) => part !== '' && part !== '.'))) {
      hops++;
      const target = Buffer.from(tree.reader.readlink(nid)).toString('latin1');
      if (target.startsWith('/')) {
        names.length = 0;
        nids.length = 1;
      }
      todo.push(...target.split('/').reverse());
      continue;
    }
    names.push(name);
    nids.push(nid);
  }
  return `/${names.join('/')}`;
}
