/** The directory of an image that a mount shows instead of all of it. */
import { isUtf8 } from 'node:buffer';
import { S_IFDIR, S_IFMT } from '../erofs/tree.js';
import { LaminaError } from '../errors.js';
import type { PreparedImage } from '../image/prepare.js';
import { realPath } from '../image/real-path.js';
import { ImageTree } from '../image/tree.js';

/**
 * Its path without symlinks, which are followed inside the image: no part of it can lead elsewhere when the kernel looks
 * it up. Null for the root. Throws PATH_NOT_FOUND, PATH_LOOP, USAGE.
 */
export function findSubdir(prepared: PreparedImage, subdir: string | undefined): string | null {
  if (subdir === undefined) return null;
  const tree = ImageTree.open(prepared);
  try {
    const path = realPath(tree, Buffer.from(subdir, 'utf8').toString('latin1'));
    if ((tree.reader.mode(tree.resolve(path)) & S_IFMT) !== S_IFDIR) {
      throw new LaminaError('USAGE', `Cannot mount ${subdir} of ${prepared.image.reference}: it is not a directory`);
    }
    const bytes = Buffer.from(path, 'latin1');
    if (!isUtf8(bytes)) {
      throw new LaminaError('USAGE', `Cannot mount ${subdir} of ${prepared.image.reference}: its real path is no text`);
    }
    return path === '/' ? null : bytes.toString('utf8');
  } finally {
    tree.close();
  }
}
