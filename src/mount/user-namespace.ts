/**
 * Commands in a user namespace of their own, with a given map of ids. Only a process can make one, and Node's has threads,
 * which unshare(2) does not allow: util-linux's unshare makes it, and waits until its ids are mapped. Root maps them
 * itself; for an ordinary user newuidmap and newgidmap do, which are set-user-ID root (newuidmap(1)).
 */
import { spawn, spawnSync, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { openSync, writeFileSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { LaminaError } from '../errors.js';
import { findExecutable } from './executable.js';
import type { IdMap, IdRange } from './id-map.js';
import { currentUser, isOrdinaryUser, ownIds } from './subordinate-ids.js';

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

/** The ids that an ordinary user's namespaces can have here: subordinate ones where there is what maps them. */
export function namespaceIds(): IdMap {
  const mappers = ['newuidmap', 'newgidmap'].every((name) => findExecutable(name, process.env) !== undefined);
  return mappers ? ownIds().map : ownIds(currentUser(), { subuid: '', subgid: '' }).map;
}

export interface NamespacedCommand {
  readonly map: IdMap;
  readonly command: string;
  readonly args: readonly string[];
  /** Standard input, output and error. */
  readonly stdio: readonly [StdioOption, StdioOption, StdioOption];
  readonly cwd: string;
  /**
   * With "must" or "may" it has mounts of its own, and an overlay over `rootfs` in `cwd`, whose upper and work directories
   * are in `overlay` there; "may" goes on without one where the kernel refuses it.
   */
  readonly overlay: 'must' | 'may' | 'none';
}

type StdioOption = 'inherit' | 'ignore' | 'pipe';

/** The command's process, once its ids are mapped; it leads a session. Throws MOUNT_FAILED. */
export async function spawnInNamespace(what: NamespacedCommand): Promise<ChildProcess> {
  const { map, command, args, stdio, cwd, overlay } = what;
  const options: StdioOptions = [...stdio, 'pipe', 'pipe'];
  // What is unmounted outside is unmounted inside, too, where the outside's mounts are shared.
  const namespaces = overlay === 'none' ? ['-U'] : ['-U', '-m', '--propagation', 'unchanged'];
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
    mapIds(child.pid ?? -1, map);
    mapped.end('\n');
    return child;
  } catch (e) {
    child.kill('SIGKILL');
    throw new LaminaError('MOUNT_FAILED', `Cannot make a user namespace: ${(e as Error).message}`, {
      cause: e,
      hint: '`lamina doctor` says what is missing; the fuse engine maps ids without one.',
    });
  }
}

function mapIds(pid: number, { uid, gid }: IdMap): void {
  if (isOrdinaryUser() && (uid.length > 1 || gid.length > 1)) {
    runMapper('newuidmap', pid, uid);
    runMapper('newgidmap', pid, gid);
    return;
  }
  if (isOrdinaryUser()) writeFileSync(`/proc/${pid}/setgroups`, 'deny');
  writeFileSync(`/proc/${pid}/uid_map`, lines(uid));
  writeFileSync(`/proc/${pid}/gid_map`, lines(gid));
}

function runMapper(program: string, pid: number, ranges: readonly IdRange[]): void {
  const numbers = ranges.flatMap(({ container, host, size }) => [container, host, size].map(String));
  const { error, status, stderr } = spawnSync(program, [String(pid), ...numbers], {
    encoding: 'utf8',
    timeout: DEADLINE_MS,
  });
  if (error !== undefined || status !== 0) throw error ?? new Error(`${program}: ${stderr.trim()}`);
}

function lines(ranges: readonly IdRange[]): string {
  return ranges.map(({ container, host, size }) => `${container} ${host} ${size}\n`).join('');
}

/**
 * A descriptor of a namespace with the map, to be closed by the caller: mount_setattr(2) takes maps from one.
 * Throws MOUNT_FAILED.
 */
export async function openUserNamespace(map: IdMap): Promise<number> {
  const child = await spawnInNamespace({
    map,
    command: 'cat',
    args: [],
    stdio: ['pipe', 'ignore', 'ignore'],
    cwd: '/',
    overlay: 'none',
  });
  try {
    return openSync(`/proc/${child.pid}/ns/user`, 'r');
  } finally {
    child.kill('SIGKILL');
  }
}

/** Removes what belongs to subordinate ids, which their owner cannot. */
export async function removeInNamespace(directory: string, map: IdMap): Promise<void> {
  const child = await spawnInNamespace({
    map,
    command: 'rm',
    args: ['-rf', '--', directory],
    stdio: ['ignore', 'ignore', 'ignore'],
    cwd: '/',
    overlay: 'none',
  });
  if (child.exitCode === null) await once(child, 'exit');
}
