/** mount, umount, mounts, daemon: the commands as a user types them, with a daemon that they start themselves. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import type { DaemonStatus, MountStatus } from '../../src/daemon/protocol.js';
import { readMountInfo } from '../../src/mount/mountinfo.js';
import { killDaemon } from '../../scripts/leftovers.js';
import { watchesMounts } from '../support/namespaces.js';
import { cliPath, lamina, runCommand, type CliResult } from '../support/cli.js';
import { until } from '../support/daemon.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { startIndexing } from './indexing.js';

interface Place {
  readonly directory: string;
  readonly image: MadeImage;
  readonly store: string;
  readonly runDir: string;
  readonly env: Readonly<Record<string, string>>;
  readonly run: (...args: string[]) => Promise<CliResult>;
}

async function place(t: Test): Promise<Place> {
  const directory = tempDir(t);
  const image = await makeLayout(join(directory, 'image'), {
    layers: [
      {
        entries: [
          { name: 'etc/', type: 'directory' },
          { name: 'etc/motd', content: 'old\n' },
        ],
      },
      { entries: [{ name: 'etc/motd', content: 'hello\n' }] },
    ],
  });
  const store = join(directory, 'store');
  const runDir = join(directory, 'run');
  const env = { LAMINA_STORE: store, LAMINA_RUN: runDir };
  t.teardown(() => killDaemon(runDir));
  return { directory, image, store, runDir, env, run: (...args) => lamina(args, { env, cwd: directory }) };
}

const parse = <T>({ stdout }: CliResult): T => JSON.parse(stdout) as T;

t.before(watchesMounts);

t.test('mount, mounts, umount', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { directory, image, store, runDir, run } = await place(t);
  const { reference } = image;
  t.equal((await run('mounts')).stdout, '', 'nothing, and no daemon is started to say so');
  t.strictSame(parse(await run('mounts', '--json')), []);
  t.equal((await run('umount', '--all')).code, 0);
  t.equal((await run('umount', reference)).code, 4);
  t.notOk(existsSync(join(runDir, 'control.sock')));

  mkdirSync(join(directory, 'mnt'));
  const named = await run('mount', reference, 'mnt');
  t.equal(named.code, 0, named.stderr);
  t.equal(named.stdout, '', 'the user knows the mountpoint');
  t.match(named.stderr, `Mounted ${reference} on ${directory}/mnt (2 layers, read-only; engine `);
  t.equal(readFileSync(join(directory, 'mnt/etc/motd'), 'utf8'), 'hello\n');

  const quiet = await run('mount', '-q', '--engine', 'fuse', reference);
  t.equal(quiet.stderr, '');
  t.match(quiet.stdout, new RegExp(`^${runDir}/mnt/[0-9a-f]+\\n$`));
  t.equal(readFileSync(join(quiet.stdout.trim(), 'etc/motd'), 'utf8'), 'hello\n');

  const json = parse<MountStatus>(await run('mount', '--json', '--verify', 'first-read', './image'));
  t.match(json, { reference: `oci:${image.directory}`, layers: 2, upper: null, configDigest: image.config.digest });

  const list = parse<MountStatus[]>(await run('mounts', '--json'));
  t.equal(list.length, 3);
  t.match(list[1], { engine: 'fuse', reason: 'asked for', mountpoint: quiet.stdout.trim(), reference });
  const table = (await run('mounts')).stdout.trim().split('\n');
  t.match(table[0], /^ID +MOUNTPOINT +ENGINE/);
  t.equal(table.length, 4);
  t.strictSame(
    (await run('mounts', '-q')).stdout.trim().split('\n'),
    list.map(({ id }) => id),
  );

  t.equal((await run('umount', json.id)).code, 0, 'by id');
  symlinkSync('mnt', join(directory, 'link'));
  t.equal((await run('umount', 'link')).code, 0, 'by mountpoint, relative and through a link');
  const again = await run('umount', 'mnt', reference);
  t.equal(again.code, 4, 'one of the two is not mounted');
  t.match(again.stderr, `Unmounted ${reference} from ${quiet.stdout.trim()}`);
  t.match(again.stderr, `Nothing of ours is mounted as ${directory}/mnt`);
  t.strictSame(parse(await run('mounts', '--json')), []);
  t.notOk(existsSync(quiet.stdout.trim()), 'a mountpoint of ours goes with its mount');

  const status = parse<DaemonStatus>(await run('daemon', 'status', '--json'));
  t.match(status, { store, run: runDir, restarts: 0, supervised: true, mounts: [] });
  t.match(
    (await run('daemon')).stdout,
    new RegExp(`^supervisor: +pid ${status.supervisorPid}$`, 'm'),
    'status by default',
  );
  t.equal((await run('daemon', 'start', '-q')).stdout, `${status.supervisorPid}\n`, 'it runs already');
  const other = await run('--store', join(directory, 'other'), 'daemon', 'start');
  t.match(other.stderr, `the daemon that runs already uses the store ${store}`);
  t.equal((await run('daemon', 'stop')).code, 0);
  t.strictSame(parse(await run('daemon', 'stop', '--json')), { stopped: false });
  t.equal((await run('daemon', 'status')).code, 1);
  t.strictSame(
    readMountInfo().filter(({ mountpoint }) => mountpoint.startsWith(directory)),
    [],
  );
});

t.test('what cannot be mounted', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { directory, image, run } = await place(t);
  const { reference } = image;
  mkdirSync(join(directory, 'full'));
  writeFileSync(join(directory, 'full/file'), '');
  writeFileSync(join(directory, 'file'), '');
  const cases: [string[], number, string][] = [
    [['mount', reference, 'absent'], 4, 'MOUNTPOINT_MISSING'],
    [['mount', reference, 'file'], 1, 'MOUNTPOINT_NOT_DIRECTORY'],
    [['mount', reference, 'full'], 1, 'MOUNTPOINT_NOT_EMPTY'],
    [['mount', `oci:${image.directory}:nonesuch`], 4, 'TAG_NOT_FOUND'],
    [['mount', './full'], 1, 'NOT_AN_IMAGE'],
  ];
  for (const [args, code, name] of cases) {
    const result = await run(...args, '--json', '-q');
    const { error } = JSON.parse(result.stderr.trim().split('\n').at(-1) ?? '') as { error: { code: string } };
    t.strictSame([error.code, result.code, result.stdout], [name, code, ''], args.join(' '));
  }
});

t.test('a writable mount keeps its changes in --upper', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { directory, image, run } = await place(t);
  const mnt = join(directory, 'mnt');
  mkdirSync(mnt);
  const mount = (): Promise<CliResult> => run('mount', '--rw', '--upper', 'changes', image.reference, 'mnt');
  const first = await mount();
  t.equal(first.code, 0, first.stderr);
  t.match(first.stderr, `writable, changes in ${directory}/changes`);
  writeFileSync(join(mnt, 'new'), 'kept\n');
  const busy = spawn('sleep', ['100'], { cwd: mnt, stdio: 'ignore' });
  await once(busy, 'spawn');
  const refused = await run('umount', '--all');
  t.equal(refused.code, 1, 'it is in use');
  t.equal((await run('umount', '--lazy', 'mnt')).code, 0, 'lazily');
  busy.kill();
  await once(busy, 'exit');
  t.strictSame(readdirSync(join(directory, 'changes')), ['new']);
  const second = await mount();
  t.equal(second.code, 0, second.stderr);
  t.equal(readFileSync(join(mnt, 'new'), 'utf8'), 'kept\n');
  t.equal((await run('umount', '--all', '-q')).stdout.trim().split('\n').length, 1);
});

t.test('SIGINT during a mount undoes it', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { directory, env, run } = await place(t);
  await run('daemon', 'start');
  const { interrupt } = await startIndexing(directory, env, (reference) => ['mount', reference]);
  t.strictSame(await interrupt(), [130, null]);
  t.strictSame(parse(await run('mounts', '--json')), []);
});

t.test('daemon run stays in the foreground', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { image, env, runDir, run } = await place(t);
  const child = spawn(process.execPath, [cliPath, 'daemon', 'run'], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (bytes: Buffer) => (log += bytes.toString()));
  const exit = once(child, 'exit');
  await until(() => log.includes('"serving"'), 20_000);
  t.equal((await run('mount', '-q', image.reference)).code, 0);
  child.kill('SIGTERM');
  t.strictSame(await exit, [0, null], log);
  t.strictSame(
    readMountInfo().filter(({ mountpoint }) => mountpoint.startsWith(runDir)),
    [],
    'it has unmounted everything',
  );
});

t.test('bytes of a mount are the bytes of cat', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { directory, image, run } = await place(t);
  mkdirSync(join(directory, 'mnt'));
  for (const engine of ['kernel', 'fuse']) {
    const mounted = await run('mount', '--engine', engine, image.reference, 'mnt');
    t.equal(mounted.code, 0, mounted.stderr);
    const [file, printed] = await Promise.all([
      runCommand('cat', [join(directory, 'mnt/etc/motd')]),
      run('cat', image.reference, '/etc/motd'),
    ]);
    t.equal(file.stdout, printed.stdout);
    t.equal((await run('umount', 'mnt')).code, 0);
  }
});
