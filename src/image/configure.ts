/** What a runtime's config depends on in an image's files. */
import { runtimeConfig, type RootfsFiles, type RuntimeConfig, type RuntimeOptions } from '../bundle/runtime-config.js';
import { LaminaError } from '../errors.js';
import { S_IFMT, S_IFREG } from '../erofs/tree.js';
import type { PreparedImage } from './prepare.js';
import { ImageTree } from './tree.js';

export interface ConfigJob {
  readonly prepared: PreparedImage;
  readonly options: RuntimeOptions;
}

/** Throws what {@link runtimeConfig} and reading the image's files throw. */
export function configOf({ prepared, options }: ConfigJob): RuntimeConfig {
  const tree = ImageTree.open(prepared);
  try {
    return runtimeConfig(prepared.image.config, rootfsFiles(tree), options);
  } finally {
    tree.close();
  }
}

/** Files of the image by path, symlinks followed inside it. */
function rootfsFiles(tree: ImageTree): RootfsFiles {
  const find = (path: string): number | undefined => {
    try {
      return tree.resolve(Buffer.from(path, 'utf8').toString('latin1'));
    } catch (e) {
      if (e instanceof LaminaError && e.code === 'PATH_NOT_FOUND') return undefined;
      throw e;
    }
  };
  return {
    readFile(path, limit) {
      const nid = find(path);
      if (nid === undefined) return undefined;
      if ((tree.reader.mode(nid) & S_IFMT) !== S_IFREG) {
        throw new LaminaError('CONFIG_INVALID', `${path} of the image is not a regular file`, { details: { path } });
      }
      return tree.readFile(nid, limit);
    },
    exists: (path) => find(path) !== undefined,
    owner(path) {
      const nid = find(path);
      return nid === undefined ? undefined : { uid: tree.reader.uid(nid), gid: tree.reader.gid(nid) };
    },
  };
}
