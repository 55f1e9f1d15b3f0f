/**
 * Mounting: mount(2), umount2(2), and fsopen(2) with its family. Calls that may have to wait for a file system's server,
 * which may be this process, run in another thread. Each throws {@link SysError}.
 */
import { closeSync } from 'node:fs';
import { koffi } from './koffi.js';
import { SysError, check, libc, type Native } from './libc.js';

/** mount(2) flags (linux/mount.h). */
export const MS_RDONLY = 1;
export const MS_NOATIME = 1024;
const MS_BIND = 4096;
/** umount2(2) flags. */
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  check('mount', libc().mount(source, target, type, flags, data), target);
}

/** Waits in a thread of its own: an unmount may have to wait for the file system's server, which may be this process. */
export async function umount2(target: string, flags: number): Promise<void> {
  await callAsync('umount2', libc().umount2, target, flags);
}

/** The same, for a file system whose server may be this process. */
export async function mountAsync(
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string,
): Promise<void> {
  await callAsync('mount', libc().mount, source, target, type, flags, data);
}

/**
 * Shows what is at `source` at `target`, too (MS_BIND), with the flags of the mount that `source` is in. In a thread of
 * its own, as umount2: the source may be in a file system that this process serves.
 */
export async function bindMount(source: string, target: string): Promise<void> {
  await callAsync('mount', libc().mount, source, target, null, MS_BIND, null);
}

function callAsync(name: string, native: Native, ...args: unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const done = (error: unknown, result: unknown): void => {
      if (error !== null && error !== undefined)
        reject(error instanceof Error ? error : new Error(JSON.stringify(error)));
      else if (typeof result === 'number' && result >= 0) resolve(result);
      else reject(new SysError(name, koffi().errno(), typeof args[0] === 'string' ? args[0] : ''));
    };
    (native as unknown as { async: Native }).async(...args, done);
  });
}

// fsopen(2) and its family: one number on every architecture; glibc has had wrappers only since 2.36.
const SYS = { moveMount: 429, fsopen: 430, fsconfig: 431, fsmount: 432, mountSetattr: 442 } as const;
const FSCONFIG = { setFlag: 0, setString: 1, create: 6 } as const;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const MOUNT_ATTR_IDMAP = 0x0010_0000n;

/**
 * Mounts a file system through fsopen(2) (Linux >= 5.2), which takes any number of options (mount(2) stops at one page:
 * about 170 device= options) and whose context says in words why a mount was refused.
 * The calls that may reach our own FUSE server run in another thread. With a user namespace's descriptor the mount shows
 * ids as that namespace maps them (Linux >= 5.12, where the file system can).
 */
export async function fsMount(
  type: string,
  source: string,
  options: readonly (readonly [string, string | undefined])[],
  attributes: number,
  target: string,
  userNamespace?: number,
): Promise<void> {
  const { fsopen, fsconfig, fsmount, moveMount } = libc();
  const context = check('fsopen', fsopen(SYS.fsopen, type, FSOPEN_CLOEXEC), type);
  const fds = [context];
  try {
    for (const [key, value] of [['source', source] as const, ...options]) {
      const command = value === undefined ? FSCONFIG.setFlag : FSCONFIG.setString;
      if (fsconfig(SYS.fsconfig, context, command, key, value ?? null, 0) === 0) continue;
      throw new SysError('fsconfig', koffi().errno(), `${key}: ${contextLog(context)}`);
    }
    await callOnContext('fsconfig', context, fsconfig, SYS.fsconfig, context, FSCONFIG.create, null, null, 0);
    const mountFd = await callOnContext('fsmount', context, fsmount, SYS.fsmount, context, FSMOUNT_CLOEXEC, attributes);
    fds.push(mountFd);
    if (userNamespace !== undefined) mapIds(mountFd, userNamespace);
    await callAsync('move_mount', moveMount, SYS.moveMount, mountFd, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** mount_setattr(2) of a mount that is nowhere yet: struct mount_attr is u64 set, u64 clear, u64 propagation, u64 userns_fd. */
function mapIds(mountFd: number, userNamespace: number): void {
  const attributes = Buffer.alloc(32);
  attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP, 0);
  attributes.writeBigUInt64LE(BigInt(userNamespace), 24);
  const { mountSetattr } = libc();
  check(
    'mount_setattr',
    mountSetattr(SYS.mountSetattr, mountFd, '', AT_EMPTY_PATH, attributes, attributes.length),
    'ids',
  );
}

async function callOnContext(name: string, context: number, native: Native, ...args: unknown[]): Promise<number> {
  try {
    return await callAsync(name, native, ...args);
  } catch (e) {
    if (e instanceof SysError) throw new SysError(name, e.errno, contextLog(context));
    throw e;
  }
}

/** What the kernel wrote about a failed fsconfig: one message per read(2), "e erofs: ..". */
function contextLog(context: number): string {
  const lines: string[] = [];
  const buffer = Buffer.alloc(1024);
  for (let i = 0; i < 16; i++) {
    const n = libc().read(context, buffer, buffer.length);
    if (n <= 0) break;
    lines.push(buffer.toString('utf8', 0, n).trim());
  }
  return lines.join('; ');
}

/** Attributes of fsmount(2) (linux/mount.h). */
export const MOUNT_ATTR_RDONLY = 1;
export const MOUNT_ATTR_NOATIME = 0x10;
