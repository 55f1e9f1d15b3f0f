/**
 * A bundle with its image mounted: made as a whole or not at all. The config is computed, and its errors found, before
 * anything is mounted.
 */
import { join } from 'node:path';
import { createBundle, removeBundle } from '../bundle/bundle.js';
import { rootfsName } from '../bundle/defaults.js';
import type { RuntimeOptions } from '../bundle/runtime-config.js';
import type { DaemonClient } from '../daemon/client.js';
import type { MountRequestInput, MountStatus } from '../daemon/protocol.js';
import { LaminaError } from '../errors.js';
import type { Context } from './context.js';
import { visibly } from './daemon-mount.js';
import { imageRequestOf } from './image-argument.js';
import type { ServedTreeOptions } from './options.js';

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
  const request = await imageRequestOf(context, reference, options);
  const configured = await visibly(context, (onEvent) => daemon.configure({ ...request, runtime }, onEvent, signal));
  const { config, configDigest } = configured;
  signal.throwIfAborted();
  const bundle = createBundle({ directory, config });
  const { registry } = request;
  const mountRequest: MountRequestInput = {
    ...request,
    // The reference means what it has meant above.
    ...(registry === undefined ? {} : { registry: { ...registry, pull: 'missing' } }),
    mountpoint: bundle.rootfs,
    ...(options.engine === undefined ? {} : { engine: options.engine }),
    // An ordinary user's overlay is made in the container's own mount namespace.
    ...(runtime.readonlyRootfs || runtime.rootless !== undefined ? {} : { writable: {} }),
  };
  try {
    // Progress and warnings were shown when the image was prepared above, so this is quick: `signal` can wait for it.
    const mount = await daemon.mount(mountRequest);
    if (!signal.aborted && mount.configDigest === configDigest) return { directory: bundle.directory, mount };
    await daemon.unmount(mount.id, { lazy: true });
    signal.throwIfAborted();
    throw new LaminaError('MOUNT_FAILED', `${configured.reference} has changed in this moment`, { hint: 'Try again.' });
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
