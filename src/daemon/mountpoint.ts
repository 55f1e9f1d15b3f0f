/**
 * Mountpoints: what is fit to be one, and what is mounted there. Everything here may have to ask a file system that does
 * not answer, so it waits in libuv's threads and not for ever.
 */
import { mkdir, opendir, readlink, readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';
import { isDead, mountAt, readMountInfo, type MountInfo } from '../mount/mountinfo.js';
import { unmount } from '../mount/unmount.js';
import { withDeadline } from './deadline.js';
import type { Logger } from './log.js';

const TIMEOUT_MS = 10_000;
/** Types of our own FUSE mounts start so. */
const OURS = 'fuse.lamina';

/** The path under which mountinfo has it: no links, no dots. A dead mount at its end does not matter. */
export async function realMountpoint(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    return await withDeadline(realpath(absolute), TIMEOUT_MS, `Looking at ${absolute}`);
  } catch (e) {
    if (errnoOf(e) === 'ENOTCONN') return join(await realpath(dirname(absolute)), basename(absolute));
    throw e;
  }
}

/**
 * Returns the real path of a mountpoint that is fit to be mounted on. FUSE mounts of ours that died there are cleared.
 * Throws MOUNTPOINT_MISSING, MOUNTPOINT_NOT_DIRECTORY, MOUNTPOINT_BUSY, MOUNTPOINT_NOT_EMPTY, PERMISSION_DENIED, IO.
 */
export async function checkMountpoint(path: string, log: Logger): Promise<string> {
  let real: string;
  try {
    real = await realMountpoint(path);
  } catch (e) {
    if (errnoOf(e) === 'ENOENT') {
      throw new LaminaError('MOUNTPOINT_MISSING', `Cannot mount on ${path}: there is no such directory`, {
        hint: `Make it (mkdir -p ${path}), or mount without a mountpoint: Lamina then makes one.`,
        details: { path },
      });
    }
    if (errnoOf(e) === 'ENOTDIR') throw notDirectory(path);
    throw toLaminaError(e, `Cannot mount on ${path}`);
  }
  await clearDead(real, log);
  const mounted = mountAt(real);
  if (mounted !== undefined) {
    throw new LaminaError(
      'MOUNTPOINT_BUSY',
      `Cannot mount on ${path}: ${mounted.source} (${mounted.type}) is mounted there`,
      {
        hint: 'Unmount that first (lamina umount, umount), or choose another mountpoint.',
        details: { path: real, source: mounted.source, type: mounted.type },
      },
    );
  }
  await withDeadline(checkEmptyDirectory(real, path), TIMEOUT_MS, `Looking into ${path}`);
  return real;
}

async function checkEmptyDirectory(real: string, path: string): Promise<void> {
  if (!(await stat(real)).isDirectory()) throw notDirectory(path);
  const directory = await opendir(real);
  try {
    if ((await directory.read()) === null) return;
  } finally {
    await directory.close();
  }
  throw new LaminaError('MOUNTPOINT_NOT_EMPTY', `Cannot mount on ${path}: the directory is not empty`, {
    hint: 'Its files would be hidden. Choose an empty directory.',
    details: { path: real },
  });
}

function notDirectory(path: string): LaminaError {
  return new LaminaError('MOUNTPOINT_NOT_DIRECTORY', `Cannot mount on ${path}: it is not a directory`, {
    details: { path },
  });
}

/** Unmounts FUSE mounts of ours whose server is gone: nothing else can be done with them. */
export async function clearDead(mountpoint: string, log: Logger): Promise<void> {
  for (;;) {
    const top = mountAt(mountpoint);
    if (top?.type.startsWith(OURS) !== true) return;
    if (!(await withDeadline(isDead(mountpoint), TIMEOUT_MS, `Looking at ${mountpoint}`))) return;
    log.warn({ mountpoint, source: top.source }, 'clearing a dead mount');
    await unmount(mountpoint, true);
  }
}

/** Made when it is missing, with the parents. */
export async function makeMountpoint(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o755 });
}

/** "detached": it was busy, and lives on for those who use it. */
export type Unmounted = 'absent' | 'unmounted' | 'detached';

/**
 * Unmounts what `isOurs` says is ours at a place, and nothing else. `lazy`: a busy one is detached.
 * Throws MOUNT_BUSY, MOUNT_FAILED.
 */
export async function unmountAt(
  mountpoint: string,
  isOurs: (mount: MountInfo) => boolean,
  lazy: boolean,
): Promise<Unmounted> {
  const here = readMountInfo().filter((mount) => mount.mountpoint === mountpoint);
  const top = here.at(-1);
  if (!here.some(isOurs) || top === undefined) return 'absent';
  if (!isOurs(top)) {
    throw new LaminaError(
      'MOUNT_BUSY',
      `Cannot unmount ${mountpoint}: ${top.source} (${top.type}) is mounted over it`,
      {
        hint: 'Unmount that first.',
        details: { path: mountpoint },
      },
    );
  }
  try {
    await withDeadline(unmount(mountpoint, false), TIMEOUT_MS, `Unmounting ${mountpoint}`);
    return 'unmounted';
  } catch (e) {
    if (errnoOf(e) === 'EINVAL') return 'absent';
    if (!lazy) {
      if (errnoOf(e) !== 'EBUSY') throw toLaminaError(e, `Cannot unmount ${mountpoint}`);
      throw await busy(mountpoint);
    }
  }
  await unmount(mountpoint, true);
  return 'detached';
}

/** Throws MOUNT_BUSY when processes can be seen to use what is mounted at a place. */
export async function refuseIfUsed(mountpoint: string): Promise<void> {
  if ((await usersOf(mountpoint)).length > 0) throw await busy(mountpoint);
}

async function busy(mountpoint: string): Promise<LaminaError> {
  const users = await usersOf(mountpoint);
  const who = users.length === 0 ? '' : ` by ${users.join(', ')}`;
  return new LaminaError('MOUNT_BUSY', `Cannot unmount ${mountpoint}: it is in use${who}`, {
    hint: 'End what uses it, or unmount with --lazy: it then disappears now, and ends with its last user.',
    details: { path: mountpoint, users },
  });
}

const USERS_MAX = 5;

/** Processes whose working directory, root, program or open files lie under a path: "pid 12 (bash)". */
async function usersOf(mountpoint: string): Promise<string[]> {
  const users: string[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(pid)) continue;
    if (!(await links(`/proc/${pid}`)).some((path) => path === mountpoint || path.startsWith(`${mountpoint}/`)))
      continue;
    if (users.push(`pid ${pid} (${await commandOf(pid)})`) === USERS_MAX) break;
  }
  return users;
}

async function links(process: string): Promise<string[]> {
  const fds = await readdir(`${process}/fd`).catch(() => []);
  const names = ['cwd', 'root', 'exe', ...fds.map((fd) => `fd/${fd}`)];
  return Promise.all(names.map((name) => readlink(`${process}/${name}`).catch(() => '')));
}

async function commandOf(pid: string): Promise<string> {
  const exe = await readlink(`/proc/${pid}/exe`).catch(() => '?');
  return basename(exe);
}
