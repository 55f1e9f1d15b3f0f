/** Where the upper and work directories of a writable mount are. */
import { stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { LaminaError } from '../errors.js';
import type { Store } from '../store/store.js';
import { realMountpoint } from './mountpoint.js';
import type { MountRequest } from './protocol.js';
import type { MountRecord } from './records.js';

/** Null for a mount that is not to be written to. Nothing is made yet. */
export async function overlayPlace(
  id: string,
  { writable }: MountRequest,
  store: Store,
): Promise<MountRecord['overlay']> {
  if (writable === undefined) return null;
  if (writable.upper === undefined) {
    const ownedDirectory = join(store.path, 'overlays', id);
    return { upper: join(ownedDirectory, 'upper'), work: join(ownedDirectory, 'work'), ownedDirectory };
  }
  const wanted = resolve(writable.upper);
  const upper = await realMountpoint(wanted).catch(() => wanted);
  return { upper, work: join(dirname(upper), `.${basename(upper)}.lamina-work`), ownedDirectory: null };
}

/**
 * Two overlays on one upper directory would destroy it, and overlayfs wants the work directory on its file system.
 * Throws MOUNT_BUSY, MOUNT_FAILED.
 */
export async function checkUpper({ overlay }: MountRecord, others: readonly MountRecord[]): Promise<void> {
  if (overlay === null || overlay.ownedDirectory !== null) return;
  const { upper } = overlay;
  const other = others.find((record) => record.overlay?.upper === upper);
  if (other !== undefined) {
    throw new LaminaError('MOUNT_BUSY', `Cannot use ${upper}: the mount on ${other.mountpoint} writes to it`, {
      details: { path: upper },
    });
  }
  const [own, parent] = [await deviceOf(upper), await deviceOf(dirname(upper))];
  if (parent === undefined || (own !== undefined && own !== parent)) {
    throw new LaminaError(
      'MOUNT_FAILED',
      `Cannot use ${upper}: overlayfs needs a work directory beside it, on the same file system`,
      {
        hint: 'Give a directory whose parent exists and that is no mountpoint itself.',
        details: { path: upper },
      },
    );
  }
}

async function deviceOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.dev;
}
