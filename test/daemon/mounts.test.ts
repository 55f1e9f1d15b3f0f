/** Mounts of a running daemon: made, seen, refused, ended. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, readdir, readlink, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { setup, connect, engines, eventually, isVolatile, issue, mountsOf, randomSum, run, sumOf } from './fixture.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { makesNamespaces } from '../support/namespaces.js';
import { dropCaches } from '../support/page-cache.js';
import { failure } from '../support/failure.js';
import { makeLayout } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

t.before(makesNamespaces);

t.test('mounts', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const shared = await setup(t);

  t.test('a runtime is told how to run what is mounted', async (t) => {
    const { client, daemon, reference } = shared;
    const runtime = { readonlyRootfs: true, terminal: false, args: ['/bin/x', 'ü'], env: ['A=1'], user: '7:8' };
    const { mount, config } = await client.mountFor({ reference, runtime });
    t.equal(await issue(mount), 'changed\n');
    t.match(config, { root: { readonly: true }, process: { args: runtime.args, user: { uid: 7, gid: 8 } } });
    t.ok(config?.process.env.includes('A=1'));
    t.equal((await client.mountFor({ reference })).config, null, 'only where somebody asks');
    await client.unmount('*');
    const refused = (change: object): Promise<unknown> =>
      failure(client.mountFor({ reference, runtime: { ...runtime, ...change } }));
    t.match(await refused({ user: 'nobody-of-this-name' }), { code: 'USER_UNKNOWN' });
    t.match(await refused({ volumes: [{ source: 'relative', destination: '/x', readonly: true }] }), { code: 'USAGE' });
    t.strictSame([await client.mounts(), mountsOf(daemon)], [[], []], 'then nothing is mounted');
    t.strictSame(await readdir(join(daemon.run, 'mnt')), []);
    const args = ['/bin/x', 'x'.repeat(200_000)];
    const long = await client.mountFor({ reference, runtime: { ...runtime, args } });
    t.same(long.config?.process.args, args, 'as long as the kernel takes');
    await client.unmount('*');
  });

  for (const engine of engines) {
    t.test(`${engine}: an image is mounted, listed, read and unmounted`, async (t) => {
      const { client, daemon, directory, reference } = shared;
      const events: string[] = [];
      const mountpoint = await directory('mnt');
      const mount = await client.mount({ reference, engine, mountpoint }, ({ type }) => events.push(type));
      t.match(mount, { engine, reason: 'asked for', reference, mountpoint, layers: 2, upper: null });
      t.match(mount.manifestDigest ?? '', /^sha256:[0-9a-f]{64}$/);
      t.ok(events.includes('progress'));
      t.equal(await issue(mount), 'changed\n');
      t.equal(await sumOf(join(mountpoint, 'random')), randomSum);
      t.match((await stat(mountpoint)).mode & 0o777, 0o755);

      const again = await client.mount({ reference, engine });
      t.equal(again.mountpoint, join(daemon.run, 'mnt', again.id), 'a mountpoint of its own making');
      t.equal(await sumOf(join(again.mountpoint, 'random')), randomSum);
      const status = await client.status();
      t.match(status, {
        supervisorPid: daemon.supervisorPid,
        restarts: 0,
        supervised: true,
        run: daemon.run,
        store: daemon.store,
      });
      t.strictSame(
        status.mounts.map(({ id }) => id),
        [mount.id, again.id],
      );
      const { served = 0, verified = 0, filled = 0 } = status.mounts[0]?.bytes ?? {};
      t.ok(served > 6e6 && verified > 6e6, 'bytes are counted');
      if (engine === engines[0]) t.ok(filled > 6e6);

      t.match(await failure(client.mount({ reference, mountpoint })), { code: 'MOUNTPOINT_BUSY' });
      t.strictSame(
        (await client.unmount(`${mountpoint}/./`)).map(({ id }) => id),
        [mount.id],
        'by mountpoint',
      );
      t.match(await failure(client.unmount(mountpoint)), { code: 'MOUNT_NOT_FOUND' });
      t.strictSame(
        (await client.unmount(again.id)).map(({ id }) => id),
        [again.id],
        'by id',
      );
      t.notOk(existsSync(again.mountpoint), 'its own mountpoint goes with it');
      t.strictSame(mountsOf(daemon), [], 'blobfs is gone too');
      t.strictSame(await readdir(join(daemon.run, 'mounts')), []);

      await client.mount({ reference, engine, mountpoint });
      await client.mount({ reference, engine });
      t.equal((await client.unmount(reference)).length, 2, 'by reference');
      t.strictSame(await client.unmount('*'), []);
    });

    t.test(`${engine}: mounts that share layers do not suffer from each other's images`, async (t) => {
      const { client, daemon, reference } = await setup(t);
      const image = join(daemon.directory, 'image');
      const copies = ['copy', 'second'].map((name) => join(daemon.directory, name));
      for (const copy of copies) await cp(image, copy, { recursive: true });
      const [here, there, gone] = await Promise.all(
        [image, ...copies].map((path) => client.mount({ reference: reference.replace(image, path), engine })),
      );
      if (here === undefined || there === undefined || gone === undefined) throw new Error('Not mounted');
      await client.unmount(gone.id);
      await rm(copies[1] ?? '', { recursive: true });
      const blobs = join(image, 'blobs/sha256');
      for (const name of await readdir(blobs)) await truncate(join(blobs, name), 0);
      dropCaches();
      for (const mount of [here, there]) {
        t.equal(await issue(mount), 'changed\n');
        t.equal(await sumOf(join(mount.mountpoint, 'random')), randomSum);
      }
      await client.unmount('*');
    });

    t.test(`${engine}: a mount in use is refused, or detached and served to its last user`, async (t) => {
      const { client, daemon, directory, reference } = shared;
      const mountpoint = await directory('mnt');
      await client.mount({ reference, engine, mountpoint });
      // Reads the file that it has opened when it is told to.
      const user = spawn('sh', ['-c', 'exec 3< random; read line; cat <&3 | sha256sum'], { cwd: mountpoint });
      t.teardown(() => user.kill('SIGKILL'));
      await eventually(t, 'the user has the file open', () => existsSync(`/proc/${user.pid}/fd/3`));
      const busy = await failure(client.unmount(mountpoint));
      t.match(busy, { code: 'MOUNT_BUSY', hint: /--lazy/ });
      t.match(busy.message, `pid ${user.pid}`);
      t.match(await failure(client.stop()), { code: 'MOUNT_BUSY' });
      t.equal((await client.mounts()).length, 1, 'a refused stop leaves it');

      t.equal((await client.unmount(mountpoint, { lazy: true })).length, 1);
      t.strictSame(await client.mounts(), []);
      t.strictSame(await readdir(mountpoint), []);
      await client.mount({ reference, engine, mountpoint });
      t.equal(await issue({ mountpoint }), 'changed\n', 'the mountpoint is free again');
      await client.unmount(mountpoint);
      dropCaches();
      user.stdin.end('go\n');
      const [sum] = (await once(user.stdout, 'data')) as [Buffer];
      t.equal(sum.toString().slice(0, 64), randomSum, 'the user reads on');
      await eventually(t, 'the last user gone, nothing is left', async () => {
        await client.mounts();
        return mountsOf(daemon).length === 0 && (await readdir(join(daemon.run, 'mounts'))).length === 0;
      });
    });

    t.test(`${engine}: unmounted here, a mount is served on in another mount namespace`, async (t) => {
      const { client, daemon, directory, reference } = shared;
      const mountpoint = await directory('mnt');
      await client.mount({ reference, engine, mountpoint });
      const other = spawn('unshare', [
        '-m',
        '--propagation',
        'private',
        'sh',
        '-c',
        `echo ready; read line; sha256sum ${mountpoint}/random`,
      ]);
      t.teardown(() => other.kill('SIGKILL'));
      await once(other.stdout, 'data');
      t.equal((await client.unmount(mountpoint)).length, 1);
      t.strictSame(
        mountsOf(daemon).filter((m) => m.mountpoint === mountpoint),
        [],
      );
      dropCaches();
      other.stdin.end('go\n');
      const [sum] = (await once(other.stdout, 'data')) as [Buffer];
      t.equal(sum.toString().slice(0, 64), randomSum);
      await eventually(t, 'the namespace gone, nothing is left', async () => {
        await client.mounts();
        return mountsOf(daemon).length === 0 && !existsSync(join(daemon.run, 'blobs.json'));
      });
      await client.mount({ reference, engine, mountpoint });
      t.equal(await issue({ mountpoint }), 'changed\n');
      await client.unmount(mountpoint);
    });

    t.test(`${engine}: what somebody else unmounts is noticed`, async (t) => {
      const { client, daemon, directory, reference } = shared;
      const mountpoint = await directory('mnt');
      await client.mount({ reference, engine, mountpoint });
      await run('umount', [mountpoint]);
      t.strictSame(await client.mounts(), []);
      await eventually(t, 'nothing is left', () => mountsOf(daemon).length === 0);
      await client.mount({ reference, engine, mountpoint });
      await run('mount', ['-t', 'tmpfs', 'over', mountpoint]);
      t.match(await failure(client.unmount(mountpoint)), {
        code: 'MOUNT_BUSY',
        message: /over \(tmpfs\) is mounted over it/,
      });
      await run('umount', [mountpoint]);
      t.equal((await client.unmount(mountpoint)).length, 1);
    });

    t.test(`${engine}: writes go to the upper directory of a writable mount`, async (t) => {
      const { client, daemon, directory, reference } = shared;
      const own = await client.mount({ reference, engine, writable: {} });
      await writeFile(join(own.mountpoint, 'etc/issue'), 'written\n');
      await rm(join(own.mountpoint, 'random'));
      t.equal(await issue(own), 'written\n');
      t.match((await stat(own.mountpoint)).mode & 0o777, 0o755, 'the root has the image’s mode');
      t.ok(isVolatile(own), 'nothing waits for the disk where all is thrown away');
      t.ok(own.upper !== null && existsSync(join(own.upper, 'etc/issue')));
      await client.unmount(own.id);
      t.notOk(existsSync(own.upper ?? ''), 'the daemon’s own upper directory goes');

      const space = await directory('space');
      const upper = join(space, 'odd:name\\');
      const kept = await client.mount({ reference, engine, writable: { upper } });
      t.equal(await issue(kept), 'changed\n', 'the image is as it was');
      t.notOk(isVolatile(kept), 'what is kept is synced');
      await writeFile(join(kept.mountpoint, 'new'), 'kept\n');
      t.match(await failure(client.mount({ reference, engine, writable: { upper: `${upper}/.` } })), {
        code: 'MOUNT_BUSY',
      });
      await client.unmount(kept.id);
      t.equal(await readFile(join(upper, 'new'), 'utf8'), 'kept\n', 'the user’s stays');
      t.strictSame(await readdir(space), ['odd:name\\'], 'and the work directory goes');
      const second = await client.mount({ reference, engine, writable: { upper } });
      t.equal(await readFile(join(second.mountpoint, 'new'), 'utf8'), 'kept\n');
      await client.unmount('*');
      t.strictSame(mountsOf(daemon), []);
      t.strictSame(await readdir(join(daemon.run, 'lower')), []);
    });
  }

  t.test('a mountpoint that is not fit for one is refused, and nothing is left', async (t) => {
    const { client, daemon, directory, reference } = shared;
    const at = (path: string): Promise<unknown> =>
      failure(client.mount({ reference, mountpoint: join(daemon.directory, path) }));
    t.match(await at('missing'), { code: 'MOUNTPOINT_MISSING', exitCode: 4, hint: /mkdir/ });
    await writeFile(join(daemon.directory, 'file'), '');
    t.match(await at('file'), { code: 'MOUNTPOINT_NOT_DIRECTORY' });
    t.match(await at('file/below'), { code: 'MOUNTPOINT_NOT_DIRECTORY' });
    const full = await directory('full');
    await mkdir(join(full, 'child'));
    t.match(await failure(client.mount({ reference, mountpoint: full })), { code: 'MOUNTPOINT_NOT_EMPTY' });
    t.match(await failure(client.mount({ reference, mountpoint: '/proc' })), {
      code: 'MOUNTPOINT_BUSY',
      message: /proc \(proc\)/,
    });
    t.match(await failure(client.mount({ reference: 'oci:/none/such:x' })), { code: 'IMAGE_NOT_FOUND' });
    t.strictSame(await readdir(join(daemon.run, 'mnt')), []);

    const mountpoint = await directory('once');
    const both = await Promise.allSettled([
      client.mount({ reference, mountpoint }),
      client.mount({ reference, mountpoint }),
    ]);
    t.strictSame(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'], 'of two at a time one is refused');
    await client.unmount('*');
  });

  t.test('a client that goes away takes its mount with it', async (t) => {
    const { client, daemon, directory } = shared;
    const layers = [{ entries: [{ name: 'unseen', content: randomBytes(16 * 1024 * 1024) }], level: 1 }];
    const { reference } = await makeLayout(join(daemon.directory, 'unseen'), { layers });
    const mountpoint = await directory('mnt');
    const controller = new AbortController();
    await t.rejects(
      client.mount({ reference, mountpoint }, () => controller.abort(), controller.signal),
      { name: 'AbortError' },
    );
    await eventually(t, 'the daemon says so', () => daemon.log().includes('the client has gone'));
    t.strictSame(await client.mounts(), []);
    t.strictSame(mountsOf(daemon), []);
    await client.mount({ reference, mountpoint });
    t.strictSame(await readdir(mountpoint), ['unseen'], 'the next one is not hindered');
    await client.unmount(mountpoint);
  });

  t.test('engines are chosen by what is there, and the kernel’s layers share one blobfs', async (t) => {
    const { client, daemon, reference } = shared;
    const auto = await client.mount({ reference });
    t.not(auto.reason, 'asked for');
    const empty = await makeLayout(join(daemon.directory, 'empty'), { layers: [{ entries: [] }] });
    const more = await Promise.all([1, 2, 3].map(() => client.mount({ reference: empty.reference, engine: 'kernel' })));
    for (const { mountpoint } of more) t.strictSame(await readdir(mountpoint), []);
    t.equal(mountsOf(daemon).filter(({ type }) => type === 'fuse.lamina-blobs').length, 1);
    const second = await connect(daemon.run);
    await second.stop();
    t.strictSame(mountsOf(daemon), []);
  });
});

t.test('where the kernel mounts no EROFS from the store’s file system, the fuse engine takes its place', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const dir = tempDir(t);
  for (const name of ['lower', 'upper', 'work', 'merged']) await mkdir(join(dir, name));
  const options = `lowerdir=${dir}/lower,upperdir=${dir}/upper,workdir=${dir}/work`;
  await run('mount', ['-t', 'overlay', 'overlay', '-o', options, join(dir, 'merged')]);
  const { client, daemon, reference } = await setup(t, join(dir, 'merged'));
  const mount = await client.mount({ reference });
  t.match(mount, { engine: 'fuse', reason: /our FUSE server: The kernel cannot mount/ });
  t.equal(await issue(mount), 'changed\n');
  t.match(await failure(client.mount({ reference, engine: 'kernel' })), { code: 'MOUNT_FAILED' });
  t.match(await failure(client.mount({ reference, writable: {} })), { code: 'MOUNT_FAILED', hint: /--upper/ });
  t.strictSame(await readdir(join(daemon.run, 'mnt')), [mount.id], 'failures leave nothing');
  t.strictSame(await readdir(join(daemon.run, 'lower')), []);
  t.strictSame(await readdir(join(daemon.store, 'overlays')), []);
  await client.stop();
});

t.test('what the kernel has cached of layers outlives their last mount for a while', async (t) => {
  if (skipUnless(t, isRoot && kernelEngineObstacle() === undefined, 'needs root and the kernel engine')) return;
  const { client, daemon, directory, reference } = await setup(t, undefined, { LAMINA_CACHE_TIME: '5' });
  const blobfs = (): number => mountsOf(daemon).filter(({ type }) => type === 'fuse.lamina-blobs').length;
  const mountpoint = await directory('mnt');
  const read = async (): Promise<number> => {
    const mount = await client.mount({ reference, engine: 'kernel', mountpoint });
    t.equal(await sumOf(join(mountpoint, 'random')), randomSum);
    const served = (await client.mounts()).find(({ id }) => id === mount.id)?.bytes.served ?? 0;
    await client.unmount(mount.id);
    return served;
  };
  const first = await read();
  t.ok(first > 6e6);
  t.strictSame([mountsOf(daemon).length, blobfs()], [1, 1]);
  t.equal(await read(), first, 'the second mount asks us for nothing');
  await eventually(t, 'it is taken down when it is time', async () => {
    await client.mounts();
    return mountsOf(daemon).length === 0 && !existsSync(join(daemon.run, 'blobs.json'));
  });

  await read();
  const { upper } = await client.mount({ reference, engine: 'kernel', mountpoint, writable: {} });
  const user = spawn('tail', ['-f', '/dev/null'], { cwd: mountpoint });
  await client.unmount(mountpoint, { lazy: true });
  t.strictSame([blobfs(), existsSync(upper ?? '')], [1, true]);
  const exit = once(user, 'exit');
  user.kill();
  await exit;
  await client.mounts();
  t.strictSame([blobfs(), existsSync(upper ?? '')], [0, false], 'at once where something has to be cleared up');
  await read();
  t.equal(blobfs(), 1);
  await client.stop();
  t.equal(blobfs(), 0, 'and when the daemon is stopped');
});

for (const engine of engines) {
  t.test(`${engine}: nothing of an unmounted image is kept open`, async (t) => {
    if (skipUnless(t, isRoot, 'mounting needs root')) return;
    const { client, daemon, reference } = await setup(t);
    const { serverPid } = await client.status();
    const openFiles = async (): Promise<string[]> => {
      const fds = await readdir(`/proc/${serverPid}/fd`);
      const paths = await Promise.all(fds.map((fd) => readlink(`/proc/${serverPid}/fd/${fd}`).catch(() => '')));
      return paths.filter((path) => path.includes('/image/') || path.includes('/store/'));
    };
    // Another mount keeps the daemon, and blobfs, at work.
    const other = await makeLayout(join(daemon.directory, 'other'), {
      layers: [{ entries: [{ name: 'etc/issue', content: 'other\n' }] }],
    });
    await client.mount({ reference: other.reference, engine });
    const { id, mountpoint } = await client.mount({ reference, engine });
    t.equal(await sumOf(join(mountpoint, 'random')), randomSum);
    t.ok((await openFiles()).some((path) => path.includes('/image/')));
    await client.unmount(id);
    await eventually(t, 'its blobs are closed', async () =>
      (await openFiles()).every((path) => !path.includes('/image/')),
    );
    const again = await client.mount({ reference, engine });
    dropCaches();
    t.equal(await sumOf(join(again.mountpoint, 'random')), randomSum, 'and opened again');
    await client.unmount('*');
    await eventually(t, 'of the last mount nothing is left', async () => (await openFiles()).length === 0);
  });

  t.test(`${engine}: an image that lies in a mount of the same daemon is refused`, async (t) => {
    if (skipUnless(t, isRoot, 'mounting needs root')) return;
    const { client, daemon, directory } = await setup(t);
    const inner = await makeLayout(join(daemon.directory, 'inner'), {
      layers: [{ entries: [{ name: 'etc/issue', content: 'changed\n' }] }],
    });
    const names = ['oci-layout', 'index.json'];
    for (const name of await readdir(join(inner.directory, 'blobs/sha256'))) names.push(`blobs/sha256/${name}`);
    const entries = await Promise.all(
      names.map(async (name) => ({ name: `in/${name}`, content: await readFile(join(inner.directory, name)) })),
    );
    const outer = await makeLayout(join(daemon.directory, 'outer'), { layers: [{ entries }] });
    const elsewhere = await directory('bound');
    for (const writable of [undefined, {}]) {
      const mount = await client.mount({ reference: outer.reference, engine, ...(writable && { writable }) });
      await run('mount', ['--bind', mount.mountpoint, elsewhere]);
      for (const place of [mount.mountpoint, elsewhere]) {
        t.match(await failure(client.mount({ reference: `oci:${place}/in:latest`, engine })), {
          code: 'MOUNT_FAILED',
          message: /wait for itself/,
        });
      }
      await run('umount', [elsewhere]);
      await client.unmount(mount.id);
    }
  });
}

t.test('a mount that takes long keeps nobody from a look at the others', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { client, daemon, directory, reference } = await setup(t);
  const slow = await makeLayout(join(daemon.directory, 'slow'), {
    layers: [{ entries: [{ name: 'random', content: randomBytes(96 * 1024 * 1024) }], level: 1 }],
  });
  const mountpoint = await directory('mnt');
  await client.mount({ reference, engine: 'kernel', mountpoint });
  await run('umount', [mountpoint]);
  const order: string[] = [];
  let indexing = (): void => undefined;
  const begun = new Promise<void>((resolve) => (indexing = resolve));
  const mounting = client
    .mount({ reference: slow.reference, engine: 'kernel', mountpoint }, () => indexing())
    .then(() => order.push('mounted'));
  await begun;
  t.strictSame(await client.mounts(), [], 'what somebody else has unmounted is not listed');
  order.push('listed');
  await mounting;
  t.strictSame(order, ['listed', 'mounted']);
  t.equal((await client.mounts()).length, 1);
});
