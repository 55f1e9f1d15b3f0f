/**
 * An image whose blobs lie in a mount of this daemon would make the daemon wait for itself: the worker that reads the
 * blob may be the one that has to answer the read. Such a wait never ends, and cannot be killed.
 */
import { realpath } from 'node:fs/promises';
import { LaminaError } from '../errors.js';
import { mountOf, readMountInfo } from '../mount/mountinfo.js';
import { withDeadline } from './deadline.js';
import type { MountRecord } from './records.js';

const TIMEOUT_MS = 10_000;

/** Throws MOUNT_FAILED when one of the paths is in one of the mounts, or in what they are bound to elsewhere. */
export async function checkOutside(paths: readonly string[], records: readonly MountRecord[]): Promise<void> {
  const mounts = readMountInfo();
  for (const path of new Set(paths)) {
    // One that is gone is not in the way.
    const real = await withDeadline(realpath(path), TIMEOUT_MS, `Looking at ${path}`).catch(() => path);
    const device = mountOf(real, mounts)?.device;
    const record = records.find((r) => device !== undefined && [r.imageDevice, r.overlayDevice].includes(device));
    if (record === undefined) continue;
    throw new LaminaError(
      'MOUNT_FAILED',
      `Cannot mount an image out of a mount: ${path} is in ${record.reference}, which this daemon serves, and it would wait for itself`,
      {
        hint: 'Copy the image out of the mount, or mount it with another daemon (--run DIR).',
        details: { path, mountpoint: record.mountpoint },
      },
    );
  }
}
