/** Real mounts by both engines, through the command line and the daemon, against what other tools make of the image. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { compareTrees } from '../../scripts/compare-trees.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { watchesMounts } from '../support/namespaces.js';
import { dropCaches } from '../support/page-cache.js';
import { runCommand } from '../support/cli.js';
import { startDaemon, until, type TestDaemon } from '../support/daemon.js';
import { blobPath, type MadeImage } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { RANDOM_SIZE, makeUnpackedHardImage, neededCommands } from './hard-image.js';
import { commandExists } from '../support/commands.js';

const engines = ['kernel', 'fuse'] as const;
type Engine = (typeof engines)[number];

const missing = ['umoci', ...neededCommands].filter((name) => !commandExists(name));
const canMount = isRoot && existsSync('/dev/fuse');

/** Made once for all tests of this file. */
let shared: { image: MadeImage; oracle: string; randomHash: string } | undefined;

function hardImage(): { image: MadeImage; oracle: string; randomHash: string } {
  if (shared === undefined) throw new Error('The image was not made');
  return shared;
}

t.before(watchesMounts);

t.before(async () => {
  if (!canMount || missing.length > 0) return;
  const directory = tempDir(t);
  const { image, oracle } = await makeUnpackedHardImage(directory);
  const randomHash = createHash('sha256')
    .update(readFileSync(join(oracle, 'hard/random')))
    .digest('hex');
  shared = { image, oracle, randomHash };
});

function cannotRun(t: Test): boolean {
  return (
    skipUnless(t, canMount, 'mounting needs root and /dev/fuse') ||
    skipUnless(t, missing.length === 0, `commands are missing: ${missing.join(', ')} (scripts/install-peers)`)
  );
}

async function mount(daemon: TestDaemon, engine: Engine, ...flags: string[]): Promise<string> {
  const mountpoint = join(daemon.directory, engine);
  mkdirSync(mountpoint, { recursive: true });
  const { reference } = hardImage().image;
  const { code, stderr } = await daemon.lamina(['mount', '--engine', engine, ...flags, reference, mountpoint]);
  if (code !== 0) throw new Error(stderr);
  return mountpoint;
}

async function umount(daemon: TestDaemon, mountpoint: string): Promise<void> {
  const { code, stderr } = await daemon.lamina(['umount', mountpoint]);
  if (code !== 0) throw new Error(stderr);
}

async function serverPid(daemon: TestDaemon): Promise<number> {
  const { body } = await daemon.control('GET', '/v1/status');
  return (body as { serverPid: number }).serverPid;
}

t.test('both engines show what umoci unpacks', async (t) => {
  if (cannotRun(t)) return;
  const daemon = await startDaemon(t);
  const { oracle } = hardImage();
  for (const engine of engines) {
    if (engine === 'kernel' && skipUnless(t, kernelEngineObstacle() === undefined, kernelEngineObstacle() ?? ''))
      continue;
    const mountpoint = await mount(daemon, engine);
    // umoci sets trusted.* attributes; we drop them, since an overlayfs over the mount would obey some of them.
    const { differences, entries, bytes } = await compareTrees(mountpoint, oracle, {
      ignore: [{ field: 'xattr', glob: '/hard/acl' }],
    });
    t.same(differences, [], `${engine}: ${entries} entries, ${bytes} bytes`);
    t.ok(entries > 3000 && bytes > RANDOM_SIZE);
    const acl = await runCommand('getfattr', [
      '-d',
      '-m',
      '-',
      '-e',
      'hex',
      '--absolute-names',
      `${mountpoint}/hard/acl`,
    ]);
    t.match(acl.stdout, /system\.posix_acl_access=0x0200/);
    t.match(acl.stdout, /user\.bin=0x00ff80fe0a/);
    t.notMatch(acl.stdout, /trusted/);
    const caps = await runCommand('getcap', [`${mountpoint}/hard/cap`]);
    t.match(caps.stdout, /cap_net_raw=ep/, `${engine}: file capabilities`);
    await umount(daemon, mountpoint);
  }
});

t.test('ordinary users read through both engines, as modes and ACLs allow', async (t) => {
  if (cannotRun(t)) return;
  const daemon = await startDaemon(t);
  for (const dir of [daemon.directory]) execFileSync('chmod', ['0755', dir]);
  for (const engine of engines) {
    const mountpoint = await mount(daemon, engine);
    const as = (uid: string, ...args: string[]): ReturnType<typeof runCommand> =>
      runCommand('setpriv', [`--reuid=${uid}`, '--regid=9999', '--clear-groups', ...args]);
    t.equal((await as('9999', 'cat', `${mountpoint}/opaque/third`)).stdout, '3', engine);
    t.equal((await as('9999', 'touch', `${mountpoint}/opaque/third`)).code, 1, `${engine}: read-only`);
    await umount(daemon, mountpoint);
  }
});

t.test('kill -9 of the server while a file is read: the read goes on, ten times on each engine', async (t) => {
  if (cannotRun(t)) return;
  const daemon = await startDaemon(t);
  const { randomHash } = hardImage();
  for (const engine of engines) {
    const mountpoint = await mount(daemon, engine);
    const device = (await stat(`${mountpoint}/hard/random`)).dev;
    for (let round = 1; round <= 10; round++) {
      dropCaches();
      const pid = await serverPid(daemon);
      const reading = runCommand('sha256sum', [`${mountpoint}/hard/random`]);
      await sleep(20 + 25 * round);
      process.kill(pid, 'SIGKILL');
      const { stdout, code } = await reading;
      t.match({ code, hash: stdout.split(' ')[0] }, { code: 0, hash: randomHash }, `${engine}, round ${round}`);
      t.ok(await until(async () => (await serverPid(daemon).catch(() => pid)) !== pid, 20_000), 'a new server answers');
    }
    t.equal((await stat(`${mountpoint}/hard/random`)).dev, device, `${engine}: the same mount`);
    await umount(daemon, mountpoint);
  }
});

t.test('a flipped bit heals from the source; flipped there too it is EIO and one log line', async (t) => {
  if (cannotRun(t)) return;
  const daemon = await startDaemon(t);
  const { image, oracle } = hardImage();
  const layer = image.layers[2];
  if (layer === undefined) throw new Error('no layer');
  const data = join(daemon.store, 'layers', layer.diffId.replace(':', '-'), 'data');
  const start = layer.tar.indexOf(readFileSync(join(oracle, 'hard/random')).subarray(0, 64));
  const place = Math.floor((start + 50_000_000) / 65536) * 65536;
  const want = readFileSync(join(oracle, 'hard/random')).subarray(place - start, place - start + 65536);
  const blob = blobPath(image.directory, layer.descriptor.digest);
  const original = readFileSync(blob);
  t.teardown(() => writeFileSync(blob, original));
  for (const engine of engines) {
    const mountpoint = await mount(daemon, engine);
    const read = (): ReturnType<typeof runCommand> =>
      runCommand('dd', [
        `if=${mountpoint}/hard/random`,
        'bs=65536',
        'count=1',
        'iflag=skip_bytes',
        `skip=${place - start}`,
        'status=none',
      ]);
    t.ok((await read()).stdoutBytes.equals(want), engine);
    t.ok(statSync(data).blocks * 512 < RANDOM_SIZE / 2, 'only what was read is cached');

    flip(data, place + 1234);
    dropCaches();
    t.ok((await read()).stdoutBytes.equals(want), `${engine}: the right bytes in spite of the flipped bit`);
    t.ok(
      await until(() => daemon.log().includes('a cached chunk was wrong and has been replaced'), 5000),
      'and a log line says so',
    );

    // The span's compressed bytes are damaged all over, so that no part of it can be had.
    const damaged = Buffer.from(original);
    const middle = Math.floor((place / layer.tar.length) * original.length);
    for (let at = middle - 1_500_000; at < middle + 1_500_000; at += 5000)
      damaged.writeUInt8(damaged.readUInt8(at) ^ 0x55, at);
    writeFileSync(blob, damaged);
    flip(data, place + 1234);
    dropCaches();
    const failed = await read();
    t.not(failed.code, 0, `${engine}: fails`);
    t.match(failed.stderr, /Input\/output error/);
    const said = (): string[] =>
      daemon
        .log()
        .split('\n')
        .filter((line) => line.includes('CHUNK_DIGEST_MISMATCH'));
    await until(() => said().length > 0, 5000);
    const lines = said();
    t.match(lines.at(-1), new RegExp(`${layer.diffId}.*`));
    t.match(lines.at(-1), /wanted.*sha256:.*got/);
    t.equal(await readFile(`${mountpoint}/hard/nano`, 'utf8'), 'nano', 'other files still read');
    writeFileSync(blob, original);
    dropCaches();
    t.ok((await read()).stdoutBytes.equals(want), `${engine}: and it reads again when the source is whole again`);
    await umount(daemon, mountpoint);
  }
});

t.test('blobfs goes with the last mount that needs it', async (t) => {
  if (cannotRun(t)) return;
  if (skipUnless(t, kernelEngineObstacle() === undefined, kernelEngineObstacle() ?? '')) return;
  const daemon = await startDaemon(t);
  const blobs = (): boolean => readFileSync('/proc/self/mountinfo', 'latin1').includes(` ${daemon.run}/blobs `);
  const first = await mount(daemon, 'kernel');
  const second = (
    await daemon.lamina(['mount', '-q', '--engine', 'kernel', hardImage().image.reference])
  ).stdout.trim();
  t.ok(existsSync(`${second}/hard/a`));
  await umount(daemon, first);
  t.ok(blobs(), 'one mount is left');
  t.equal(await readFile(`${second}/hard/nano`, 'utf8'), 'nano');
  await umount(daemon, second);
  t.notOk(blobs());
  t.same(readdirSync(join(daemon.run, 'mounts')), []);
});

function flip(path: string, at: number): void {
  const fd = openSync(path, 'r+');
  const byte = readFileSync(path).readUInt8(at);
  writeSync(fd, Buffer.from([byte ^ 0x10]), 0, 1, at);
  closeSync(fd);
}
