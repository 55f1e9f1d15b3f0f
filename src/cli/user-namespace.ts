/**
 * Commands as root of a user namespace of their own, with mounts of their own: how an ordinary user's container comes to
 * a writable root. util-linux's unshare makes the namespaces; newuidmap and newgidmap, which are set-user-ID root, map
 * the subordinate ids (newuidmap(1)).
 */
import { spawn, spawnSync, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { LaminaError, errnoOf } from '../errors.js';
import type { IdMap, IdRange } from '../mount/id-map.js';
import { currentUser, ownIds } from '../mount/subordinate-ids.js';

const DEADLINE_MS = 10_000;
/** Descriptors of the child: it says that it is there, and hears that its ids are mapped. */
const THERE = 3;
const MAPPED = 4;

/** Waits for its map, makes its overlay, becomes the command. $1: an overlay on rootfs, "must", "may" or "none". */
const SCRIPT = `echo >&${THERE} && read -r _ <&${MAPPED} || exit 125
exec ${THERE}>&- ${MAPPED}<&-
overlay=$1
shift
case $overlay in
  must | may)
    mount -n -t overlay -o lowerdir=rootfs,upperdir=overlay/upper,workdir=overlay/work,userxattr overlay rootfs ||
      [ "$overlay" = may ] || exit 125 ;;
esac
exec "$@"`;

export function isOrdinaryUser(): boolean {
  return process.geteuid?.() !== 0;
}

/** The ids of the namespaces that are made here. */
export function namespaceIds(): IdMap {
  return canMapSubordinate() ? ownIds().map : ownIds(currentUser(), { subuid: '', subgid: '' }).map;
}

function canMapSubordinate(): boolean {
  return ['newuidmap', 'newgidmap'].every((program) => errnoOf(spawnSync(program).error) !== 'ENOENT');
}

export interface NamespacedCommand {
  readonly command: string;
  readonly args: readonly string[];
  /** Standard input, output and error. */
  readonly stdio: readonly [StdioOption, StdioOption, StdioOption];
  /** With "must" or "may" an overlay comes over `rootfs` in it, whose upper and work directories are in `overlay`. */
  readonly cwd: string;
  readonly overlay: 'must' | 'may' | 'none';
}

type StdioOption = 'inherit' | 'ignore' | 'pipe';

/** The command's process, once its namespaces are there. Throws RUNTIME_FAILED. */
export async function spawnInNamespace({
  command,
  args,
  stdio,
  cwd,
  overlay,
}: NamespacedCommand): Promise<ChildProcess> {
  const options: StdioOptions = [...stdio, 'pipe', 'pipe'];
  // What is unmounted outside is unmounted inside, too, where the outside's mounts are shared.
  const namespaces = ['-U', '-m', '--propagation', 'unchanged'];
  const child = spawn('unshare', [...namespaces, 'sh', '-c', SCRIPT, 'sh', overlay, command, ...args], {
    stdio: options,
    cwd,
    detached: true,
  });
  const [, , , there, mapped] = child.stdio as unknown as [unknown, unknown, unknown, Readable, Writable];
  mapped.on('error', () => undefined);
  try {
    const signal = AbortSignal.timeout(DEADLINE_MS);
    const failed = once(child, 'exit', { signal }).then(([status]) => {
      throw new Error(`unshare ended with ${String(status)}: this system may forbid user namespaces`);
    });
    failed.catch(() => undefined);
    await Promise.race([once(there, 'data', { signal }), failed]);
    mapIds(child.pid ?? -1);
    mapped.end('\n');
    return child;
  } catch (e) {
    child.kill('SIGKILL');
    throw new LaminaError('RUNTIME_FAILED', `Cannot make a user namespace: ${(e as Error).message}`, {
      cause: e,
      hint: '`lamina doctor` says what ordinary users need here.',
    });
  }
}

function mapIds(pid: number): void {
  const { uid, gid } = namespaceIds();
  if (uid.length === 1) {
    writeFileSync(`/proc/${pid}/setgroups`, 'deny');
    writeFileSync(`/proc/${pid}/uid_map`, numbers(uid).join(' '));
    writeFileSync(`/proc/${pid}/gid_map`, numbers(gid).join(' '));
    return;
  }
  for (const [program, ranges] of [
    ['newuidmap', uid],
    ['newgidmap', gid],
  ] as const) {
    const { error, status, stderr } = spawnSync(program, [String(pid), ...numbers(ranges)], { encoding: 'utf8' });
    if (error !== undefined || status !== 0) throw error ?? new Error(`${program}: ${stderr.trim()}`);
  }
}

function numbers(ranges: readonly IdRange[]): string[] {
  return ranges.flatMap(({ container, host, size }) => [container, host, size].map(String));
}

/** Removes what belongs to subordinate ids, which their owner cannot. */
export async function removeInNamespace(directory: string): Promise<void> {
  const child = await spawnInNamespace({
    command: 'rm',
    args: ['-rf', '--', directory],
    stdio: ['ignore', 'ignore', 'ignore'],
    cwd: '/',
    overlay: 'none',
  });
  if (child.exitCode === null) await once(child, 'exit');
}
