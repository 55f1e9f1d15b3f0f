/** The transport fuse-native: a process for each mount, which the daemon's server may die without. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { loadFuseNative } from '../../src/mount/fuse-native.js';
import { watchesMounts } from '../support/namespaces.js';
import { startDaemon, until, type TestDaemon } from '../support/daemon.js';
import { blobPath, makeLayout, type MadeImage } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';

t.before(watchesMounts);

function cannotRun(t: Test): boolean {
  let obstacle = '';
  try {
    loadFuseNative();
  } catch (e) {
    obstacle = (e as Error).message;
  }
  return (
    skipUnless(t, isRoot && existsSync('/dev/fuse'), 'mounting needs root and /dev/fuse') ||
    skipUnless(t, obstacle === '', obstacle)
  );
}

const big = Buffer.alloc(5_000_000).map((_, i) => (i * 31) % 251) as Buffer;

async function place(t: Test): Promise<{ daemon: TestDaemon; image: MadeImage; mountpoint: string }> {
  const daemon = await startDaemon(t);
  const image = await makeLayout(join(daemon.directory, 'image'), {
    layers: [
      {
        entries: [
          { name: 'big', content: big },
          { name: 'small', content: 'text' },
        ],
      },
    ],
  });
  const mountpoint = join(daemon.directory, 'a,b\\c');
  mkdirSync(mountpoint);
  return { daemon, image, mountpoint };
}

const mountArgs = ['mount', '--transport', 'fuse-native'];

async function status(daemon: TestDaemon): Promise<{ serverPid: number; mounts: { id: string; transport: string }[] }> {
  return (await daemon.control('GET', '/v1/status')).body as Awaited<ReturnType<typeof status>>;
}

function nativePid(daemon: TestDaemon, id: string): number {
  const record = JSON.parse(readFileSync(join(daemon.run, 'mounts', `${id}.json`), 'utf8')) as { nativePid: number };
  return record.nativePid;
}

t.test('mounted, listed, read and unmounted; the process ends with the mount', async (t) => {
  if (cannotRun(t)) return;
  const { daemon, image, mountpoint } = await place(t);
  const { code, stderr } = await daemon.lamina([...mountArgs, image.reference, mountpoint]);
  t.equal(code, 0, stderr);
  t.match(stderr, /engine fuse: fuse-native was asked for/);
  t.ok(readFileSync(join(mountpoint, 'big')).equals(big));
  t.throws(() => statSync(join(mountpoint, 'nothing')), { code: 'ENOENT' });
  const [mounted] = (await status(daemon)).mounts;
  t.match(mounted, { engine: 'fuse', transport: 'fuse-native' });
  const pid = nativePid(daemon, mounted?.id ?? '');
  t.ok(existsSync(`/proc/${pid}`));
  const user = spawn('sleep', ['60'], { cwd: mountpoint });
  t.ok(
    await until(() => execFileSync('readlink', [`/proc/${user.pid}/cwd`], { encoding: 'utf8' }).includes('a,b'), 5000),
  );
  const busy = await daemon.lamina(['umount', mountpoint]);
  t.equal(busy.code, 1);
  t.match(busy.stderr, /it is in use by pid/);
  user.kill();
  t.ok(await until(async () => (await daemon.lamina(['umount', mountpoint])).code === 0, 10_000));
  t.ok(await until(() => !existsSync(`/proc/${pid}`), 5000), 'the process has ended');
  t.strictSame((await status(daemon)).mounts, []);
});

t.test('the server may die, and serve on', async (t) => {
  if (cannotRun(t)) return;
  const { daemon, image, mountpoint } = await place(t);
  t.equal((await daemon.lamina([...mountArgs, '-o', 'uid-map=0:9:1', image.reference, mountpoint])).code, 0);
  const before = await status(daemon);
  process.kill(before.serverPid, 'SIGKILL');
  t.equal(readFileSync(join(mountpoint, 'small'), 'utf8'), 'text', 'nobody waits for another server');
  t.ok(await until(async () => (await status(daemon).catch(() => before)).serverPid !== before.serverPid, 10_000));
  t.match((await status(daemon)).mounts, [{ transport: 'fuse-native' }], 'the next one knows the mount');
  t.equal(statSync(join(mountpoint, 'big')).uid, 9);
  t.equal((await daemon.lamina(['umount', mountpoint])).code, 0);
});

t.test('its own process may not', async (t) => {
  if (cannotRun(t)) return;
  const { daemon, image, mountpoint } = await place(t);
  t.equal((await daemon.lamina([...mountArgs, image.reference, mountpoint])).code, 0);
  const [mounted] = (await status(daemon)).mounts;
  process.kill(nativePid(daemon, mounted?.id ?? ''), 'SIGKILL');
  t.ok(await until(async () => (await status(daemon)).mounts.length === 0, 10_000), 'the mount is gone');
  t.notOk(existsSync(join(mountpoint, 'small')));
  t.equal((await daemon.lamina([...mountArgs, image.reference, mountpoint])).code, 0, 'and can be made again');
  execFileSync('umount', [mountpoint]);
  t.ok(await until(async () => (await status(daemon)).mounts.length === 0, 10_000), 'somebody else may unmount it');
});

t.test('damage is EIO and a line in the log', async (t) => {
  if (cannotRun(t)) return;
  const { daemon, image, mountpoint } = await place(t);
  t.equal((await daemon.lamina([...mountArgs, image.reference, mountpoint])).code, 0);
  const path = blobPath(image.directory, image.layers[0]?.descriptor.digest ?? '');
  execFileSync('dd', ['if=/dev/zero', `of=${path}`, 'bs=1', 'count=2000', 'seek=500', 'conv=notrunc'], {
    stdio: 'ignore',
  });
  t.throws(() => readFileSync(join(mountpoint, 'big')), { code: 'EIO' });
  t.match(daemon.log(), /"part":"fuse-native".*CHUNK_DIGEST_MISMATCH.*an access has failed/);
});

t.test('what it cannot do is said', async (t) => {
  if (cannotRun(t)) return;
  const { daemon, image, mountpoint } = await place(t);
  const kernel = await daemon.lamina([...mountArgs, '--engine', 'kernel', image.reference, mountpoint]);
  t.equal(kernel.code, 2);
  t.match(kernel.stderr, /not of the kernel engine/);
  const { stdout } = await daemon.lamina(['doctor']);
  t.match(stdout, /^ok +fuse-native/m);
});
