/** The PATH argument: bytes, absolute, as it is shown. */
import type { ImageTree } from '../image/tree.js';
import { argumentBytes } from './text.js';

export interface ImagePath {
  /** Bytes in latin1: starts with a slash, has no empty and no "." parts. */
  readonly path: string;
  /** It ended in a slash: a symlink there means the directory behind it. */
  readonly directory: boolean;
}

export function parseImagePath(argument = '/'): ImagePath {
  const bytes = argumentBytes(argument);
  const parts = bytes.split('/').filter((part) => part !== '' && part !== '.');
  return { path: `/${parts.join('/')}`, directory: /\/\.?$/.test(bytes) };
}

/** The node of a path; a symlink at its end is followed when asked for, or when a slash follows it. */
export function resolvePath(tree: ImageTree, { path, directory }: ImagePath, followLast: boolean): number {
  return tree.resolve(path, { followLast: followLast || directory });
}
