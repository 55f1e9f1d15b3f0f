/**
 * A writable view of a mounted image: the kernel's overlayfs, with the image as the lower and a directory of the host as
 * the upper layer. Writes never reach the image.
 */
import { LaminaError } from '../errors.js';
import { SysError } from '../native/libc.js';
import { MOUNT_ATTR_NOATIME, MS_NOATIME, fsMount, mountAsync } from '../native/mounts.js';
import { flagBits, type MountFlag } from './flags.js';

export interface OverlayMount {
  /** What mount(8) shows as the source. */
  readonly source: string;
  /** The image, or a directory of it, where it is mounted. */
  readonly lower: string;
  readonly upper: string;
  /** Empty, on the file system of `upper`. */
  readonly work: string;
  readonly target: string;
  readonly flags: readonly MountFlag[];
  /**
   * What is written is thrown away after the unmounting, so nothing of it is ever synced: without this, unmounting waits until
   * all that is to be written to the file system of `upper`, by whomever, has been (overlayfs.rst, "Volatile mount").
   */
  readonly volatile: boolean;
}

/** Throws MOUNT_FAILED with what the kernel says. */
export async function mountOverlay(mount: OverlayMount): Promise<void> {
  const { source, lower, upper, work, target, flags } = mount;
  const options = [
    ['lowerdir', escapePath(lower)],
    ['upperdir', escapePath(upper)],
    ['workdir', escapePath(work)],
  ] as const;
  const attempt = (more: readonly (readonly [string, undefined])[]): Promise<void> =>
    fsMount('overlay', source, [...options, ...more], MOUNT_ATTR_NOATIME | flagBits(flags), target);
  try {
    await attempt(mount.volatile ? [['volatile', undefined]] : []).catch(async (e: unknown) => {
      if (!(e instanceof SysError)) throw e;
      if (e.syscall === 'fsopen' && e.code === 'ENOSYS') {
        // Linux before 5.2.
        const data = options.map(([name, value]) => `${name}=${value.replaceAll(',', '\\,')}`).join(',');
        await mountAsync(source, target, 'overlay', MS_NOATIME | flagBits(flags), data);
        // Linux before 5.10 knows no volatile overlays.
      } else if (mount.volatile && e.code === 'EINVAL') await attempt([]);
      else throw e;
    });
  } catch (e) {
    throw new LaminaError('MOUNT_FAILED', `Cannot mount an overlay on ${target}: ${(e as Error).message}`, {
      cause: e,
      hint: `The file system of ${upper} must take overlay uppers (ext4, xfs, btrfs and tmpfs do, an overlay does not): choose another with --upper.`,
    });
  }
}

/** overlayfs unescapes its paths (ovl_unescape) and splits lowerdir at colons (ovl_parse_param_split_lowerdirs). */
function escapePath(path: string): string {
  return path.replace(/[\\:]/g, '\\$&');
}
