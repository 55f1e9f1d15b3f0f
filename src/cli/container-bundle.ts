/** A bundle with its image mounted: made as a whole or not at all. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createBundle, removeBundle, writeConfig } from '../bundle/bundle.js';
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
  /** See {@link createBundle}. */
  readonly lasting: boolean;
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
  { reference, directory, image: options, runtime, lasting }: BundleRequest,
  signal: AbortSignal,
): Promise<MountedBundle> {
  const image = await imageRequestOf(context, reference, options);
  signal.throwIfAborted();
  const bundle = createBundle({ directory, lasting });
  const request: MountRequestInput = {
    ...image,
    runtime,
    mountpoint: bundle.rootfs,
    ...(options.engine === undefined ? {} : { engine: options.engine }),
    // An ordinary user's overlay is made in the container's own mount namespace.
    ...(runtime.readonlyRootfs || runtime.rootless !== undefined ? {} : { writable: {} }),
  };
  try {
    const { mount, config } = await visibly(context, (onEvent) => daemon.mountFor(request, onEvent, signal));
    try {
      signal.throwIfAborted();
      if (config === null) throw new LaminaError('INTERNAL', 'The daemon has made no config');
      writeConfig(bundle, config);
    } catch (e) {
      await daemon.unmount(mount.id, { lazy: true });
      throw e;
    }
    return { directory: bundle.directory, mount };
  } catch (e) {
    await removeUnlessMounted(bundle.directory);
    throw e;
  }
}

/** What the daemon undoes because its client has gone may be mounted for that long. */
const UNDO_MS = 5000;
const POLL_MS = 20;

/** After a failure: what made it is worth more to the user than that something is left. */
async function removeUnlessMounted(directory: string): Promise<void> {
  for (const deadline = Date.now() + UNDO_MS; ; await delay(POLL_MS)) {
    try {
      return removeBundle(directory);
    } catch (e) {
      if (!(e instanceof LaminaError)) throw e;
      if (e.code !== 'MOUNT_BUSY' || Date.now() > deadline) return;
    }
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
