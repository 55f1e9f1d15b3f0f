/** An image and a daemon of a test's own. */
import { createHash, randomBytes } from 'node:crypto';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { DaemonClient } from '../../src/daemon/client.js';
import type { MountStatus } from '../../src/daemon/protocol.js';
import { readMountInfo, type MountInfo } from '../../src/mount/mountinfo.js';
import { startDaemon, until, type TestDaemon } from '../support/daemon.js';
import { makeLayout } from '../support/images.js';

export type Engine = 'kernel' | 'fuse';
export const engines: readonly Engine[] = ['kernel', 'fuse'];

export const run = promisify(execFile);

/** Random bytes do not compress: a fill has to read all of them. */
const random = randomBytes(6 * 1024 * 1024);
export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
export const randomSum = sha256(random);

export interface Fixture {
  readonly daemon: TestDaemon;
  readonly client: DaemonClient;
  readonly reference: string;
  /** A new empty directory. */
  readonly directory: (name: string) => Promise<string>;
  /** Lets a new server in after a crash. */
  readonly reconnect: () => Promise<DaemonClient>;
}

export async function connect(run: string): Promise<DaemonClient> {
  const client = await DaemonClient.connect(run);
  if (client === undefined) throw new Error('No daemon');
  return client;
}

/** `place`: a directory for the daemon and the image instead of a new one. `env`: the daemon's. */
export async function setup(t: Test, place?: string, env?: Readonly<Record<string, string>>): Promise<Fixture> {
  const daemon = await startDaemon(t, place, env);
  const { reference } = await makeLayout(join(daemon.directory, 'image'), {
    layers: [
      {
        entries: [
          { name: 'etc/', type: 'directory' },
          { name: 'etc/issue', content: 'base\n' },
          { name: 'random', content: random },
        ],
        level: 1,
      },
      { entries: [{ name: 'etc/issue', content: 'changed\n' }], compression: 'none' },
    ],
  });
  let directories = 0;
  return {
    daemon,
    client: await connect(daemon.run),
    reference,
    async directory(name) {
      const path = join(daemon.directory, `${name}-${++directories}`);
      await mkdir(path);
      return path;
    },
    reconnect: () => connect(daemon.run),
  };
}

export const mountsOf = (daemon: TestDaemon): MountInfo[] =>
  readMountInfo().filter(({ mountpoint }) => mountpoint.startsWith(`${daemon.directory}/`));

/** Whether the overlay at a mountpoint syncs nothing (Linux 5.10). */
export function isVolatile({ mountpoint }: Pick<MountStatus, 'mountpoint'>): boolean {
  const mounts = readFileSync('/proc/self/mountinfo', 'latin1').split('\n');
  return mounts.some((line) => line.split(' ')[4] === mountpoint && /[ ,](?:fsync=)?volatile(?:,|$)/.test(line));
}

export const issue = ({ mountpoint }: Pick<MountStatus, 'mountpoint'>): Promise<string> =>
  readFile(join(mountpoint, 'etc/issue'), 'utf8');

/** In another process, which may be told to wait. */
export async function sumOf(path: string): Promise<string> {
  const { stdout } = await run('sha256sum', [path]);
  return stdout.slice(0, 64);
}

/** Fails the test when it does not come true. */
export async function eventually(t: Test, what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  t.ok(await until(condition, 15_000), what);
}
