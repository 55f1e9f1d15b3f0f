/** Finding and removing what a daemon leaves behind when it was not stopped: mounts, processes, directories. */
import { execFile } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { readMountInfo, type MountInfo } from '../src/mount/mountinfo.js';
import { MNT_DETACH, UMOUNT_NOFOLLOW, umount2 } from '../src/native/mounts.js';

const run = promisify(execFile);

/** The mounts at or beneath a directory, the innermost and latest first: the order to unmount in. */
export function mountsBeneath(directory: string, mounts: readonly MountInfo[] = readMountInfo()): MountInfo[] {
  return mounts.filter((m) => m.mountpoint === directory || m.mountpoint.startsWith(`${directory}/`)).reverse();
}

/** Lazily, so that it neither waits for a daemon nor fails because something is open. Throws when it is refused. */
export async function detach(mountpoint: string): Promise<void> {
  try {
    await umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW);
  } catch (e) {
    if (process.geteuid?.() === 0) throw e;
    await run('fusermount3', ['-uz', '--', mountpoint]);
  }
}

/** Unmounts everything beneath a directory; returns what it was. */
export async function detachBeneath(directory: string): Promise<MountInfo[]> {
  const mounts = mountsBeneath(directory);
  for (const { mountpoint } of mounts) await detach(mountpoint);
  return mounts;
}

/** Removes a directory of ours, of any depth. What is still mounted beneath it is never entered. */
export async function removeTree(directory: string): Promise<void> {
  await detachBeneath(directory);
  if (mountsBeneath(directory).length > 0) throw new Error(`Something is still mounted beneath ${directory}`);
  await run('rm', ['-rf', '--one-file-system', '--', directory]);
}

export interface DaemonProcess {
  readonly pid: number;
  readonly run: string;
}

/**
 * Supervisors and servers, known by what they were started with: node, our own entry file, the run directory. The
 * supervisors come first, as they would start their servers again.
 */
export function daemonProcesses(): DaemonProcess[] {
  const supervisors: DaemonProcess[] = [];
  const servers: DaemonProcess[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const args = commandLine(Number(entry));
    const at = args.findIndex((arg) => /\/src\/daemon\/(?:supervisor|server)\.js$/.test(arg));
    const run = args[at + 1];
    if (at < 1 || run === undefined) continue;
    const list = args[at]?.endsWith('/supervisor.js') === true ? supervisors : servers;
    list.push({ pid: Number(entry), run });
  }
  return [...supervisors, ...servers];
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** Ends the daemon that serves a run directory, without a word to it; returns the processes that there were. */
export async function killDaemon(runDirectory: string): Promise<number[]> {
  const killed: number[] = [];
  for (let round = 0; round < 100; round++) {
    const alive = daemonProcesses().filter((p) => p.run === runDirectory);
    if (alive.length === 0) return killed;
    for (const { pid } of alive) {
      if (killed.includes(pid)) continue;
      signal(pid, 'SIGKILL');
      killed.push(pid);
    }
    await sleep(50);
  }
  throw new Error(`The daemon of ${runDirectory} does not end (${killed.join(', ')})`);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended by itself.
  }
}

/** Temporary directories of ours carry their owner's process id: lamina-KIND-PID-XXXXXX. */
export function temporaryPrefix(kind: string): string {
  return `lamina-${kind}-${process.pid}-`;
}

export function ownerOf(directoryName: string): number | undefined {
  const pid = /^lamina-[a-z]+-(\d+)-[A-Za-z0-9]{6}$/.exec(directoryName)?.[1];
  return pid === undefined ? undefined : Number(pid);
}
