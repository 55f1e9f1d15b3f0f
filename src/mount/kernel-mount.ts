/**
 * The `kernel` engine's mount: the kernel reads an image's tree from its EROFS file, and file data from the layers' files
 * in blobfs. Lookups, attributes and directories never leave the kernel.
 */
import { closeSync } from 'node:fs';
import { LaminaError } from '../errors.js';
import { SysError } from '../native/libc.js';
import { MOUNT_ATTR_NOATIME, MOUNT_ATTR_RDONLY, fsMount } from '../native/mounts.js';
import { flagBits, type MountFlag } from './flags.js';
import type { IdMap } from './id-map.js';
import { erofsBdis, raiseReadAhead } from './read-ahead.js';
import { openUserNamespace } from './user-namespace.js';

export interface KernelMount {
  /** The image's tree: what mountinfo shows as the source. */
  readonly treePath: string;
  /** One file for each device of the tree, base first. */
  readonly devices: readonly string[];
  readonly target: string;
  readonly flags: readonly MountFlag[];
  /** The ids that are shown instead of the image's (EROFS: Linux >= 5.19). */
  readonly idMap: IdMap | undefined;
  /** Whether much may be read ahead. */
  readonly readAhead: boolean;
}

/** ENOTBLK, which Node does not know by name: the kernel makes no file-backed mount of a file on this file system. */
const NO_FILE_BACKED_MOUNTS = 15;

/** Set-user-ID and devices work, as in a container they must. Throws MOUNT_FAILED with what the kernel says. */
export async function mountErofs({ treePath, devices, target, flags, idMap, readAhead }: KernelMount): Promise<void> {
  const before = erofsBdis();
  const userNamespace = idMap === undefined ? undefined : await openUserNamespace(idMap);
  try {
    const options = devices.map((path) => ['device', path] as const);
    const attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME | flagBits(flags);
    await fsMount('erofs', treePath, options, attributes, target, userNamespace);
  } catch (e) {
    const refused = e instanceof SysError && e.errno === NO_FILE_BACKED_MOUNTS;
    const why = refused ? 'it mounts none from the file system that the store is on' : (e as Error).message;
    throw new LaminaError('MOUNT_FAILED', `The kernel cannot mount ${treePath} as EROFS: ${why}`, {
      cause: e,
    });
  } finally {
    if (userNamespace !== undefined) closeSync(userNamespace);
  }
  if (readAhead) for (const bdi of erofsBdis()) if (!before.has(bdi)) raiseReadAhead(bdi);
}
