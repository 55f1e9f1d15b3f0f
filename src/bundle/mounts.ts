/** The mounts of a container: the defaults, then the image's volumes as tmpfs and the user's as bind mounts. */
import { posix } from 'node:path';
import { LaminaError } from '../errors.js';
import { defaultMounts, type RuntimeMount, type RuntimeUser } from './defaults.js';

/** A place of the host that the container sees. */
export interface BindVolume {
  /** Absolute path on the host. */
  readonly source: string;
  /** Absolute path in the container. */
  readonly destination: string;
  readonly readonly: boolean;
}

/** Where an image must not put a tmpfs: it would hide what the defaults mount there, and mask, or the whole root. */
const reserved = ['/proc', '/sys', '/dev'];

/**
 * The image's `Volumes` as mounts, so that what is written there does not go into the rootfs (image-spec conversion.md).
 * They belong to the container's user and begin empty. Returns also those left out.
 */
export function imageVolumes(
  keys: readonly string[],
  owner: RuntimeUser,
): { mounts: RuntimeMount[]; refused: string[] } {
  const destinations = new Set<string>();
  const refused: string[] = [];
  for (const key of keys) {
    const destination = posix.resolve('/', key);
    const hides = destination === '/' || reserved.some((path) => isWithin(destination, path));
    if (hides || key.includes('\0')) refused.push(key);
    else destinations.add(destination);
  }
  const ids = owner.uid === 0 && owner.gid === 0 ? [] : [`uid=${owner.uid}`, `gid=${owner.gid}`];
  const mounts = [...destinations].map((destination) => ({
    destination,
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['rw', 'nosuid', 'nodev', 'mode=0755', ...ids],
  }));
  return { mounts, refused };
}

/** Read-only, where the image says that its data must be (appc's mountPoints). Paths as the image has them. */
export function readonlyAt(mounts: readonly RuntimeMount[], paths: readonly string[]): RuntimeMount[] {
  const places = new Set(paths.map((path) => posix.resolve('/', path)));
  return mounts.map((mount) =>
    places.has(mount.destination) && mount.options !== undefined
      ? { ...mount, options: mount.options.map((option) => (option === 'rw' ? 'ro' : option)) }
      : mount,
  );
}

/** Throws USAGE where a path is not absolute. */
export function bindVolumes(volumes: readonly BindVolume[]): RuntimeMount[] {
  return volumes.map(({ source, destination, readonly }) => {
    const where = posix.resolve('/', destination);
    if (!source.startsWith('/') || !destination.startsWith('/') || where === '/') {
      throw new LaminaError('USAGE', `Cannot mount ${JSON.stringify(source)} at ${JSON.stringify(destination)}`, {
        hint: 'A volume has an absolute path on the host and an absolute path, not "/", in the container.',
      });
    }
    return { destination: where, type: 'bind', source, options: ['rbind', 'rprivate', readonly ? 'ro' : 'rw'] };
  });
}

/**
 * The whole list in the order of mounting: no mount hides a deeper one, and of two with one destination the user's takes
 * the place of the image's or the default one.
 */
export function mountList(binds: readonly RuntimeMount[], volumes: readonly RuntimeMount[]): RuntimeMount[] {
  const taken = new Set(binds.map((mount) => mount.destination));
  const free = (mount: RuntimeMount): boolean => !taken.has(mount.destination);
  const own = [...volumes.filter(free), ...binds].sort((a, b) => depth(a.destination) - depth(b.destination));
  return [...defaultMounts.filter(free), ...own];
}

/** Those of `mounts` whose place is neither in the image nor inside a mount made before it. */
export function withoutPlace(mounts: readonly RuntimeMount[], exists: (path: string) => boolean): RuntimeMount[] {
  return mounts.filter(({ destination }, i) => {
    const inMount = mounts.slice(0, i).some((earlier) => isWithin(destination, earlier.destination));
    return destination !== '/' && !inMount && !exists(destination);
  });
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory}/`);
}

function depth(path: string): number {
  return path.split('/').length;
}
