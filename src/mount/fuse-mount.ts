/** Opening a FUSE connection: /dev/fuse and mount(2), as an ordinary user fusermount3. Done by the supervisor, or by a server that has lost it. */
import { closeSync, constants, openSync } from 'node:fs';
import { LaminaError, errnoOf } from '../errors.js';
import { setNonBlocking } from '../native/libc.js';
import { MS_NOATIME, MS_RDONLY, mount } from '../native/mounts.js';
import { MAX_READ } from '../fuse/wire.js';
import { flagBits, type MountFlag } from './flags.js';
import { fusermount, userAllowOther } from './fusermount.js';
import { isOrdinaryUser } from './subordinate-ids.js';

export interface FuseMount {
  readonly target: string;
  /** What mount(8) shows as the source. */
  readonly source: string;
  /** The file system's type is `fuse.` and this. */
  readonly subtype: string;
  /** False: only the user who mounted may look (blobfs). */
  readonly allowOther: boolean;
  readonly flags?: readonly MountFlag[];
}

/**
 * Mounts and returns the connection's descriptor, which must be served. mount(2) does not wait for the server.
 * `default_permissions` lets the kernel check modes and ACLs; set-user-ID and devices work, as in a container they must,
 * unless an ordinary user mounts.
 * Throws FUSE_UNAVAILABLE, MOUNT_FAILED.
 */
export function openFuseMount(mount: FuseMount): number {
  return isOrdinaryUser() ? openAsUser(mount) : openAsRoot(mount);
}

function openAsUser({ target, source, subtype, allowOther, flags = [] }: FuseMount): number {
  const options = ['ro', 'nosuid', 'nodev', 'default_permissions', `max_read=${MAX_READ}`];
  if (allowOther && userAllowOther()) options.push('allow_other');
  if (flags.includes('noexec')) options.push('noexec');
  const fd = fusermount({ target, source, subtype, options });
  setNonBlocking(fd);
  return fd;
}

function openAsRoot({ target, source, subtype, allowOther, flags = [] }: FuseMount): number {
  let fd: number;
  try {
    fd = openSync('/dev/fuse', constants.O_RDWR);
  } catch (e) {
    throw new LaminaError('FUSE_UNAVAILABLE', `Cannot open /dev/fuse: ${errnoOf(e) ?? String(e)}`, {
      cause: e,
      hint: openHint(errnoOf(e)),
    });
  }
  const options = ['rootmode=40000', 'user_id=0', 'group_id=0', 'default_permissions', `max_read=${MAX_READ}`];
  if (allowOther) options.push('allow_other');
  try {
    setNonBlocking(fd);
    mount(
      source,
      target,
      `fuse.${subtype}`,
      MS_RDONLY | MS_NOATIME | flagBits(flags),
      [`fd=${fd}`, ...options].join(','),
    );
    return fd;
  } catch (e) {
    closeSync(fd);
    throw new LaminaError('MOUNT_FAILED', `Cannot mount on ${target}: ${errnoOf(e) ?? String(e)}`, {
      cause: e,
      hint: errnoOf(e) === 'EPERM' ? 'Root needs CAP_SYS_ADMIN to mount.' : undefined,
    });
  }
}

/** What helps where /dev/fuse cannot be opened. */
export function openHint(code: string | undefined): string {
  switch (code) {
    case 'EACCES':
      return 'Mounting needs root, or permission to read and write /dev/fuse; `lamina doctor` says more.';
    case 'EPERM':
      return 'The container may not use the device: give it (--device /dev/fuse); `lamina doctor` says more.';
    default:
      return 'Load the fuse module (modprobe fuse), or give the container the device (--device /dev/fuse); `lamina doctor` says more.';
  }
}
