/** Deaths of the daemon's processes: what survives, and what is cleared. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { open, readFile, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { DaemonClient } from '../../src/daemon/client.js';
import { isAlive } from '../../src/daemon/process.js';
import { watchesMounts } from '../support/namespaces.js';
import { dropCaches } from '../support/page-cache.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { connect, engines, eventually, issue, mountsOf, randomSum, run, setup, sumOf } from './fixture.js';

/** Kills the server; resolves when the next one answers. */
async function killServer(client: DaemonClient, daemon: TestDaemon): Promise<DaemonClient> {
  const { serverPid, restarts } = await client.status();
  process.kill(serverPid, 'SIGKILL');
  for (;;) {
    const next = await connect(daemon.run);
    if ((await next.status()).restarts > restarts) return next;
    await delay(10);
  }
}

t.before(watchesMounts);

for (const engine of engines) {
  t.test(`${engine}: the server is killed under readers, who notice nothing`, async (t) => {
    if (skipUnless(t, isRoot, 'mounting needs root')) return;
    const { client, daemon, directory, reference } = await setup(t);
    const mountpoint = await directory('mnt');
    const mount = await client.mount({ reference, engine, mountpoint });
    const before = await stat(join(mountpoint, 'random'));
    const held = await open(join(mountpoint, 'etc/issue'));
    const busy = spawn('sh', ['-c', 'while :; do sha256sum random; stat etc/issue > /dev/null || echo bad; done'], {
      cwd: mountpoint,
    });
    t.teardown(() => busy.kill('SIGKILL'));
    const sums: string[] = [];
    busy.stdout.on('data', (bytes: Buffer) => sums.push(...bytes.toString().trim().split('\n')));
    busy.stderr.on('data', (bytes: Buffer) => sums.push(bytes.toString()));

    let next = client;
    for (let i = 0; i < 4; i++) {
      // The chunks have to be read from the source again.
      for (const layer of await readdir(join(daemon.store, 'layers')))
        await rm(join(daemon.store, 'layers', layer, 'data'), { force: true });
      dropCaches();
      await delay(20 * i);
      next = await killServer(next, daemon);
    }
    const read = sums.length;
    dropCaches();
    await eventually(t, 'the reader goes on', () => sums.length > read + 1);
    busy.kill('SIGTERM');
    await once(busy, 'exit');
    t.ok(
      sums.every((line) => line === `${randomSum}  random`),
      'every sum was right',
    );
    t.equal((await stat(join(mountpoint, 'random'))).ino, before.ino);
    t.equal((await held.readFile()).toString(), 'changed\n', 'an open file is still open');
    await held.close();
    t.match(await next.status(), { restarts: 4, supervised: true, mounts: [{ id: mount.id, mountpoint, engine }] });

    const other = await next.mount({ reference, engine });
    t.equal(await sumOf(join(other.mountpoint, 'random')), randomSum, 'new mounts can be made');
    t.equal((await next.unmount('*')).length, 2);
    t.strictSame(mountsOf(daemon), [], 'and old ones ended');
  });

  t.test(`${engine}: a mount that was ended while no server ran is noticed by the next`, async (t) => {
    if (skipUnless(t, isRoot, 'mounting needs root')) return;
    const { client, daemon, reference } = await setup(t);
    const { mountpoint } = await client.mount({ reference, engine });
    const writable = await client.mount({ reference, engine, writable: {} });
    const { serverPid } = await client.status();
    process.kill(serverPid, 'SIGKILL');
    await run('umount', [mountpoint]);
    await run('umount', [writable.mountpoint]);
    const next = await connect(daemon.run);
    await eventually(
      t,
      'nothing is left',
      async () => (await next.mounts()).length === 0 && mountsOf(daemon).length === 0,
    );
    t.notOk(existsSync(mountpoint));
    t.notOk(existsSync(writable.upper ?? ''));
    t.strictSame(await readdir(join(daemon.run, 'mounts')), []);
  });

  t.test(`${engine}: what a dead daemon has left is cleared by the next one`, async (t) => {
    if (skipUnless(t, isRoot, 'mounting needs root')) return;
    const { client, daemon, directory, reference } = await setup(t);
    const mountpoint = await directory('mnt');
    await client.mount({ reference, engine, mountpoint });
    const own = await client.mount({ reference, engine, writable: {} });
    const { serverPid } = await client.status();
    process.kill(daemon.supervisorPid, 'SIGKILL');
    process.kill(serverPid, 'SIGKILL');
    await eventually(t, 'it is dead', () => !isAlive(serverPid) && !isAlive(daemon.supervisorPid));
    t.not(mountsOf(daemon).length, 0);

    const second = await startDaemon(t, daemon.directory);
    t.strictSame(mountsOf(daemon), []);
    const next = await connect(second.run);
    t.strictSame(await next.mounts(), []);
    t.notOk(existsSync(own.upper ?? ''));
    await next.mount({ reference, engine, mountpoint });
    t.equal(await issue({ mountpoint }), 'changed\n');
  });
}

t.test('a dead mount on a mountpoint is cleared before the next is made', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { client, daemon, directory, reference } = await setup(t);
  const mountpoint = await directory('mnt');
  await client.mount({ reference, engine: 'fuse', mountpoint });
  const { serverPid } = await client.status();
  process.kill(daemon.supervisorPid, 'SIGKILL');
  process.kill(serverPid, 'SIGKILL');
  await eventually(t, 'it is dead', () => !isAlive(serverPid));
  const other = await startDaemon(t);
  await (await connect(other.run)).mount({ reference, mountpoint });
  t.equal(await issue({ mountpoint }), 'changed\n');
  await eventually(t, 'the log says so', () => other.log().includes('clearing a dead mount'));
});

t.test('without its supervisor the server goes on, and lets no other in', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { client, daemon, directory, reference } = await setup(t);
  const mountpoint = await directory('mnt');
  await client.mount({ reference, engine: 'fuse', mountpoint });
  const { serverPid } = await client.status();
  process.kill(daemon.supervisorPid, 'SIGKILL');
  await eventually(t, 'it is noticed', async () => !(await client.status()).supervised);
  const owner = async (): Promise<string> => (await readFile(join(daemon.run, 'lock'), 'utf8')).trim();
  await eventually(t, 'the server takes the lock', async () => (await owner()) === String(serverPid));
  dropCaches();
  t.equal(await sumOf(join(mountpoint, 'random')), randomSum);
  for (const engine of engines) {
    const { id, mountpoint: own } = await client.mount({ reference, engine });
    t.equal(await issue({ mountpoint: own }), 'changed\n', `${engine} mounts can be made`);
    await client.unmount(id);
  }
  const supervisor = fileURLToPath(new URL('../../src/daemon/supervisor.js', import.meta.url));
  await t.rejects(run(process.execPath, [supervisor, daemon.run, daemon.store], { timeout: 20_000 }), { code: 75 });
  t.match(await client.status(), { serverPid });
  await client.stop();
  t.strictSame(mountsOf(daemon), []);
});

t.test('many mounts are handed over at once', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { client, daemon, reference } = await setup(t);
  const mounts = await Promise.all(Array.from({ length: 40 }, () => client.mount({ reference, engine: 'fuse' })));
  const next = await killServer(client, daemon);
  t.equal((await next.mounts()).length, mounts.length);
  const parts = await Promise.all(mounts.map((mount) => issue(mount)));
  t.ok(parts.every((part) => part === 'changed\n'));
  await next.stop();
  t.strictSame(mountsOf(daemon), []);
});

t.test('a tree that has gone from the store fails its own mount only, after a restart', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { client, daemon, reference } = await setup(t);
  const { mountpoint } = await client.mount({ reference, engine: 'fuse' });
  await rm(join(daemon.store, 'images'), { recursive: true });
  const next = await killServer(client, daemon);
  dropCaches();
  await t.rejects(readFile(join(mountpoint, 'etc/issue')), { code: 'EIO' });
  await eventually(t, 'the log says so', () => daemon.log().includes('Cannot open the tree'));
  t.equal((await next.unmount('*')).length, 1);
});

t.test('SIGTERM ends the daemon and its mounts, those in use too', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { client, daemon, reference } = await setup(t);
  const { mountpoint } = await client.mount({ reference });
  const user = spawn('sleep', ['60'], { cwd: mountpoint });
  t.teardown(() => user.kill('SIGKILL'));
  await eventually(t, 'the mount is in use', () => isAlive(user.pid ?? 0));
  const { serverPid } = await client.status();
  process.kill(daemon.supervisorPid, 'SIGTERM');
  await eventually(t, 'both processes end', () => !isAlive(serverPid) && !isAlive(daemon.supervisorPid));
  t.strictSame(mountsOf(daemon), []);
  const stopped = '"code":0,"signal":null,"msg":"the server has stopped"';
  await eventually(t, 'the log says so', () => daemon.log().includes(stopped));
});

t.test('a server that dies while the supervisor has much to answer takes it not along', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { client, daemon, reference } = await setup(t);
  await client.mount({ reference, engine: 'fuse' });
  const { serverPid } = await client.status();
  process.kill(daemon.supervisorPid, 'SIGSTOP');
  const mounts = Promise.allSettled(Array.from({ length: 8 }, () => client.mount({ reference, engine: 'fuse' })));
  const records = async (): Promise<number> => (await readdir(join(daemon.run, 'mounts'))).length;
  await eventually(t, 'all of them are asked for', async () => (await records()) === 9);
  await delay(200);
  process.kill(serverPid, 'SIGKILL');
  await delay(200);
  process.kill(daemon.supervisorPid, 'SIGCONT');
  await mounts;
  const next = await connect(daemon.run);
  t.match(await next.status(), { supervisorPid: daemon.supervisorPid, supervised: true, restarts: 1 });
});

t.test('a log that cannot be written ends nothing', async (t) => {
  const directory = tempDir(t);
  const full = await open('/dev/full', 'w');
  const supervisor = fileURLToPath(new URL('../../src/daemon/supervisor.js', import.meta.url));
  const runDirectory = join(directory, 'run');
  const child = spawn(process.execPath, [supervisor, runDirectory, join(directory, 'store')], {
    stdio: ['ignore', full.fd, full.fd],
  });
  t.teardown(() => child.kill('SIGKILL'));
  await full.close();
  await eventually(t, 'it answers', () => existsSync(join(runDirectory, 'control.sock')));
  const client = await connect(runDirectory);
  const { serverPid } = await client.status();
  process.kill(serverPid, 'SIGKILL');
  await eventually(t, 'the server has gone', () => !isAlive(serverPid));
  const next = await connect(runDirectory);
  t.match(await next.status(), { restarts: 1, supervised: true });
  await next.stop();
});
