/**
 * Removes what daemons of ours have left behind: their mounts, temporary directories, and daemons of tests that were
 * killed. A run directory that a daemon serves and a temporary directory whose owner lives are left alone, so it is safe
 * at any time. Says what it did.
 *
 *     node dist/scripts/clean-mounts.js
 */
import { existsSync, lstatSync, readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defaultRunDir } from '../src/daemon/run-dir.js';
import { readMountInfo, type MountInfo } from '../src/mount/mountinfo.js';
import { isAlive } from '../src/daemon/process.js';
import { daemonProcesses, detach, killDaemon, ownerOf, removeTree } from './leftovers.js';

const said: string[] = [];
const say = (line: string): void => void said.push(line);

/** Run directories that no daemon serves. */
function abandonedRunDirectories(): string[] {
  const candidates = [
    defaultRunDir(),
    ...matching('/run', /^lamina(?:-|$)/),
    ...matching(tmpdir(), /^lamina-run-\d+$/).filter(isMine),
  ];
  const served = new Map(daemonProcesses().map(({ run, pid }) => [run, pid]));
  const directories = [...new Set(candidates)].filter((directory) => existsSync(directory));
  for (const directory of directories) {
    const pid = served.get(directory);
    if (pid !== undefined) say(`left alone: ${directory} is served by process ${pid}`);
  }
  return directories.filter((directory) => !served.has(directory));
}

/** Temporary directories of tests, demos and benchmarks that have ended. */
function abandonedTemporaries(): string[] {
  return matching(tmpdir(), /^lamina-/).filter((directory) => {
    if (!isMine(directory)) return false;
    const owner = ownerOf(directory.slice(directory.lastIndexOf('/') + 1));
    if (owner === undefined) return false;
    if (isAlive(owner)) say(`left alone: ${directory} belongs to process ${owner}`);
    return !isAlive(owner);
  });
}

/** Anybody can make a directory in /tmp whose records name the mounts of others. */
function isMine(path: string): boolean {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat?.isDirectory() === true && stat.uid === process.geteuid?.();
}

function matching(directory: string, pattern: RegExp): string[] {
  return existsSync(directory)
    ? readdirSync(directory)
        .filter((name) => pattern.test(name))
        .map((name) => join(directory, name))
    : [];
}

/** Mountpoints anywhere that the records of a run directory name. */
function recordedMountpoints(run: string): string[] {
  return matching(join(run, 'mounts'), /\.json$/).flatMap((path) => {
    const mountpoint = /"mountpoint":("(?:[^"\\]|\\.)*")/.exec(readFileSync(path, 'utf8'))?.[1];
    return mountpoint === undefined ? [] : [JSON.parse(mountpoint) as string];
  });
}

function isOurs(mount: MountInfo, directories: readonly string[], recorded: ReadonlySet<string>): boolean {
  const beneath = (path: string): boolean =>
    directories.some((directory) => path === directory || path.startsWith(`${directory}/`));
  if (beneath(mount.mountpoint)) return true;
  if (mount.type === 'erofs' && beneath(mount.source)) return true;
  return recorded.has(mount.mountpoint) && /^(?:fuse\.lamina|erofs$|overlay$)/.test(mount.type);
}

async function main(): Promise<void> {
  const temporaries = abandonedTemporaries();
  for (const { run } of daemonProcesses()) {
    if (!temporaries.some((directory) => run.startsWith(`${directory}/`))) continue;
    for (const pid of await killDaemon(run)) say(`ended process ${pid}, the daemon of ${run}`);
  }
  const runs = abandonedRunDirectories();
  const recorded = new Set(
    [...runs, ...temporaries.map((directory) => join(directory, 'run'))].flatMap(recordedMountpoints),
  );
  const directories = [...runs, ...temporaries];
  const mounts = readMountInfo().filter((mount) => isOurs(mount, directories, recorded));
  for (const { mountpoint, type } of mounts.reverse()) {
    await detach(mountpoint);
    say(`unmounted ${mountpoint} (${type})`);
  }
  for (const directory of temporaries) {
    await removeTree(directory);
    say(`removed ${directory}`);
  }
}

try {
  await main();
} finally {
  for (const line of said.length > 0 ? said : ['nothing was left']) console.log(line);
}
