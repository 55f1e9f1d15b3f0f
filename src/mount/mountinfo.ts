/** The mounts of this process's namespace, as proc(5) describes /proc/self/mountinfo. */
import { readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { errnoOf } from '../errors.js';

export interface MountInfo {
  /** "major:minor" of the file system: st_dev of what is in it. */
  readonly device: string;
  readonly mountpoint: string;
  readonly type: string;
  readonly source: string;
}

/** In the order of mounting: of two mounts on one place, the later hides the earlier. */
export function readMountInfo(text = readFileSync('/proc/self/mountinfo', 'latin1')): MountInfo[] {
  const mounts: MountInfo[] = [];
  for (const line of text.split('\n')) {
    const [left, right] = line.split(' - ');
    const before = left?.split(' ');
    const after = right?.split(' ');
    const device = before?.[2];
    const mountpoint = before?.[4];
    const type = after?.[0];
    const source = after?.[1];
    if (device === undefined || mountpoint === undefined || type === undefined || source === undefined) continue;
    mounts.push({ device, mountpoint: unescape(mountpoint), type, source: unescape(source) });
  }
  return mounts;
}

/** Octal escapes of space, tab, newline and backslash; the result is UTF-8 text. */
function unescape(text: string): string {
  const bytes = text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** What is mounted on top at a mountpoint. */
export function mountAt(mountpoint: string, mounts: readonly MountInfo[] = readMountInfo()): MountInfo | undefined {
  return mounts.findLast((m) => m.mountpoint === mountpoint);
}

/** The mount that a real path lies in. */
export function mountOf(path: string, mounts: readonly MountInfo[]): MountInfo | undefined {
  let found: MountInfo | undefined;
  for (const mount of mounts) {
    const { mountpoint } = mount;
    const holds = path === mountpoint || path.startsWith(mountpoint === '/' ? '/' : `${mountpoint}/`);
    if (holds && mountpoint.length >= (found?.mountpoint.length ?? 0)) found = mount;
  }
  return found;
}

/** A FUSE mount whose connection has ended: every access fails with ENOTCONN. Asks the file system, so it can wait. */
export async function isDead(mountpoint: string): Promise<boolean> {
  try {
    await statfs(mountpoint);
    return false;
  } catch (e) {
    return errnoOf(e) === 'ENOTCONN' || errnoOf(e) === 'ECONNABORTED';
  }
}
