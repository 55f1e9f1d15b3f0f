/**
 * A bundle with its image mounted: made as a whole or not at all. The config is computed, and its errors found, before
 * anything is mounted.
 */
import { join } from 'node:path';
import { createBundle, removeBundle } from '../bundle/bundle.js';
import { rootfsName } from '../bundle/defaults.js';
import { runtimeConfig, type RootfsFiles, type RuntimeOptions } from '../bundle/runtime-config.js';
import type { DaemonClient } from '../daemon/client.js';
import type { MountRequestInput, MountStatus } from '../daemon/protocol.js';
import { LaminaError } from '../errors.js';
import { S_IFMT, S_IFREG } from '../erofs/tree.js';
import { ImageTree } from '../image/tree.js';
import type { Context } from './context.js';
import { aciPathOf } from './image-argument.js';
import { openImage, prepare } from './open-image.js';
import type { ServedTreeOptions } from './options.js';
import { registryRequest } from './registry-options.js';
import { toBytes } from './text.js';

export interface BundleRequest {
  readonly reference: string;
  /** Absolute. */
  readonly directory: string;
  readonly image: ServedTreeOptions;
  readonly runtime: RuntimeOptions;
}

export interface MountedBundle {
  /** Absolute. */
  readonly directory: string;
  readonly mount: MountStatus;
}

/** Throws what resolving, indexing, runtimeConfig, createBundle and mounting throw; then nothing is left. */
export async function makeMountedBundle(
  context: Context,
  daemon: DaemonClient,
  { reference, directory, image: options, runtime }: BundleRequest,
  signal: AbortSignal,
): Promise<MountedBundle> {
  const { store } = await daemon.status();
  const image = await openImage(context, reference, { ...options, store });
  const prepared = await prepare(context, image, { ...options, signal, store });
  const tree = ImageTree.open(prepared);
  let bundle;
  try {
    const { config, warnings } = runtimeConfig(image.config, rootfsFiles(tree), runtime);
    for (const warning of warnings) context.out.warn(warning);
    signal.throwIfAborted();
    bundle = createBundle({ directory, config });
  } finally {
    tree.close();
  }
  const aciPath = aciPathOf(context, options);
  const request: MountRequestInput = {
    reference: image.reference,
    mountpoint: bundle.rootfs,
    registry: registryRequest(context, options),
    ...(options.platform === undefined ? {} : { platform: options.platform }),
    ...(aciPath.length === 0 ? {} : { aciPath }),
    ...(options.engine === undefined ? {} : { engine: options.engine }),
    ...(options.compat === undefined ? {} : { compat: options.compat }),
    // An ordinary user's overlay is made in the container's own mount namespace.
    ...(runtime.readonlyRootfs || runtime.rootless !== undefined ? {} : { writable: {} }),
  };
  try {
    // Progress and warnings were shown when the image was prepared above, so this is quick: `signal` can wait for it.
    const mount = await daemon.mount(request);
    if (!signal.aborted && mount.configDigest === image.configDigest) return { directory: bundle.directory, mount };
    await daemon.unmount(mount.id, { lazy: true });
    signal.throwIfAborted();
    throw new LaminaError('MOUNT_FAILED', `${image.reference} has changed in this moment`, { hint: 'Try again.' });
  } catch (e) {
    removeUnlessMounted(bundle.directory);
    throw e;
  }
}

/** After a failure: what made it is worth more to the user than that something is left. */
function removeUnlessMounted(directory: string): void {
  try {
    removeBundle(directory);
  } catch (e) {
    if (!(e instanceof LaminaError)) throw e;
  }
}

/** Unmounts and removes. Throws MOUNT_BUSY, and what removeBundle throws. */
export async function removeMountedBundle(
  daemon: DaemonClient | undefined,
  directory: string,
  lazy: boolean,
): Promise<void> {
  try {
    await daemon?.unmount(join(directory, rootfsName), { lazy });
  } catch (e) {
    if (!(e instanceof LaminaError) || e.code !== 'MOUNT_NOT_FOUND') throw e;
  }
  removeBundle(directory);
}

/** Files of the image by path, symlinks followed inside it. */
export function rootfsFiles(tree: ImageTree): RootfsFiles {
  const find = (path: string): number | undefined => {
    try {
      return tree.resolve(toBytes(path));
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
