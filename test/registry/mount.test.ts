/** Images of a real registry (Debian's docker-registry), mounted by both engines; and the registry gone. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { compareTrees } from '../../scripts/compare-trees.js';
import { DaemonClient } from '../../src/daemon/client.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { watchesMounts } from '../support/namespaces.js';
import { cliPath, runCommand } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import { startDaemon, until, type TestDaemon } from '../support/daemon.js';
import { isBlob, startFaultProxy, type Fault } from '../support/fault-proxy.js';
import { digest, makeLayout } from '../support/images.js';
import { password, push, startRegistry, user } from '../support/registry.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { makeUnpackedHardImage, neededCommands, type UnpackedImage } from '../mount/hard-image.js';

const needed = ['umoci', 'skopeo', 'docker-registry', ...neededCommands];
const missing = needed.filter((name) => !commandExists(name));
const canMount = isRoot && existsSync('/dev/fuse');
const engines = ['kernel', 'fuse'] as const;

function cannotRun(t: Test): boolean {
  return (
    skipUnless(t, canMount, 'mounting needs root and /dev/fuse') ||
    skipUnless(t, missing.length === 0, `commands are missing: ${missing.join(', ')} (scripts/install-peers)`)
  );
}

/** Made once: the image, and what umoci makes of it. */
let hard: UnpackedImage | undefined;

function hardImage(): UnpackedImage {
  if (hard === undefined) throw new Error('The image was not made');
  return hard;
}

t.before(watchesMounts);
t.before(async () => {
  if (canMount && missing.length === 0) hard = await makeUnpackedHardImage(tempDir(t));
});

async function mounted(daemon: TestDaemon, reference: string, ...flags: string[]): Promise<string> {
  const mountpoint = mkdtempSync(join(daemon.directory, 'mnt-'));
  const { code, stderr } = await daemon.lamina(['mount', ...flags, reference, mountpoint]);
  if (code !== 0) throw new Error(stderr);
  return mountpoint;
}

async function isRight(t: Test, mountpoint: string, what: string): Promise<void> {
  // umoci sets trusted.* attributes; we drop them.
  const ignore = [{ field: 'xattr' as const, glob: '/hard/acl' }];
  const { differences, entries } = await compareTrees(mountpoint, hardImage().oracle, { ignore });
  t.same(differences, [], `${what}: ${entries} entries`);
  t.ok(entries > 3000);
}

t.test('An image is mounted from a registry, and again when the registry is gone', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  push(hardImage().image.reference, registry.host, 'some/hard:one');
  const reference = `docker://${registry.host}/some/hard:one`;
  const daemon = await startDaemon(t);
  for (const engine of engines) {
    if (engine === 'kernel' && kernelEngineObstacle() !== undefined) continue;
    const mountpoint = await mounted(daemon, reference, '--engine', engine);
    await isRight(t, mountpoint, engine);
    t.equal((await daemon.lamina(['umount', mountpoint])).code, 0);
  }
  await registry.stop();
  await isRight(t, await mounted(daemon, reference), 'the registry is gone');
  await daemon.stop();

  const later = await startDaemon(t, daemon.directory);
  await isRight(t, await mounted(later, reference, '--offline'), 'another daemon, offline');
  const always = await later.lamina(['mount', '--pull', 'always', reference]);
  t.equal(always.code, 1);
  t.match(always.stderr, /Cannot reach 127\.0\.0\.1:\d+: the connection was refused/);
  for (const flag of [['--offline'], ['--pull', 'never']]) {
    const never = await later.lamina(['mount', ...flag, `docker://${registry.host}/some/hard:two`]);
    t.equal(never.code, 4, flag.join(' '));
    t.match(never.stderr, /not been used here before, and the registry must not be asked/);
  }
});

t.test('A mount goes on reading from the registry what the store has lost', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  push(hardImage().image.reference, registry.host, 'some/hard:one');
  const daemon = await startDaemon(t, undefined, { LAMINA_FETCH_TIMEOUT: '3' });
  const reference = `docker://${registry.host}/some/hard:one`;
  t.equal((await daemon.lamina(['mount', reference])).code, 0);
  t.equal((await daemon.lamina(['umount', '--all'])).code, 0);
  rmSync(join(daemon.store, 'blobs'), { recursive: true });
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  const read = await readFile(join(mountpoint, 'hard/random'));
  t.ok(read.equals(readFileSync(join(hardImage().oracle, 'hard/random'))), 'by ranges');
  t.equal((await daemon.lamina(['umount', '--all'])).code, 0);
  rmSync(join(daemon.store, 'blobs'), { recursive: true });
  for (const { diffId } of hardImage().image.layers)
    rmSync(join(daemon.store, 'layers', diffId.replace(':', '-'), 'data'), { force: true });
  const offline = await mounted(daemon, reference, '--engine', 'fuse').then(async (path) => {
    await registry.stop();
    return path;
  });
  const lost = await readFile(join(offline, 'hard/random')).catch((e: unknown) => (e as { code?: string }).code);
  t.equal(lost, 'EIO', 'nothing is invented when the registry is gone too');
  t.match(daemon.log(), /REGISTRY_UNREACHABLE/, 'and the log says why');
});

t.test('Credentials are the ones of --creds, or of an auth file, and stay out of log and records', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t, { auth: true });
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content: 'secret stuff' }] }] });
  push(image.reference, registry.host, 'private:1', ['--dest-creds', `${user}:${password}`]);
  const reference = `docker://${registry.host}/private:1`;
  const daemon = await startDaemon(t);
  const unknown = await daemon.lamina(['mount', reference]);
  t.equal(unknown.code, 1);
  t.match(unknown.stderr, /answers 401/);
  t.match(unknown.stderr, /lamina login 127\.0\.0\.1/);
  const wrong = await daemon.lamina(['mount', '--creds', `${user}:nonsense`, reference]);
  t.equal(wrong.code, 1);
  t.notMatch(wrong.stderr, /nonsense/);

  const mountpoint = await mounted(daemon, reference, '--creds', `${user}:${password}`);
  t.equal(await readFile(join(mountpoint, 'a'), 'utf8'), 'secret stuff');
  const places = [daemon.run, daemon.store, join(daemon.directory, 'daemon.log')];
  const found = await runCommand('grep', ['-rl', password, ...places]);
  t.strictSame([found.code, found.stdout], [1, ''], 'no file has the password');
  t.equal((await daemon.lamina(['umount', '--all'])).code, 0);

  const authfile = join(daemon.directory, 'auth.json');
  const login = await daemon.lamina(['login', '--authfile', authfile, '-u', user, '--password-stdin', registry.host], {
    input: `${password}\n`,
  });
  t.equal(login.code, 0, login.stderr);
  const again = await mounted(daemon, reference, '--pull', 'always', '--authfile', authfile);
  t.equal(await readFile(join(again, 'a'), 'utf8'), 'secret stuff');
});

t.test('Who waits for a registry is told so, and may stop waiting', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content: 'a' }] }] });
  push(image.reference, registry.host, 'app:1');
  const proxy = await startFaultProxy(t, registry.host);
  const reference = `docker://${proxy.host}/app:1`;
  const daemon = await startDaemon(t);
  proxy.fault = ({ url }) => (url.includes('/manifests/1') ? { delayMs: 2500 } : undefined);
  const said = `${reference}: waiting for the registry`;
  for (const command of [['inspect'], ['mount', '--pull', 'always']]) {
    const { code, stderr } = await daemon.lamina([...command, reference]);
    t.equal(code, 0, stderr);
    t.ok(stderr.includes(said), stderr);
  }
  proxy.fault = () => ({ hang: true });
  const env = { ...process.env, LAMINA_RUN: daemon.run, LAMINA_STORE: daemon.store };
  const child = spawn(process.execPath, [cliPath, 'mount', '--pull', 'always', reference], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()));
  const exit = once(child, 'exit');
  t.ok(await until(() => stderr.includes(said), 20_000), stderr);
  const before = performance.now();
  child.kill('SIGINT');
  t.strictSame(await exit, [130, null]);
  t.ok(performance.now() - before < 10_000, 'long before the registry is given up');
});

t.test('A registry that is slow keeps no image of others waiting', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const layers = ['one', 'two', 'three', 'four'].map((name) => ({
    entries: [{ name, content: randomBytes(200_000) }],
  }));
  const image = await makeLayout(tempDir(t), { layers });
  push(image.reference, registry.host, 'slow:1');
  const proxy = await startFaultProxy(t, registry.host);
  proxy.fault = (passing) => (isBlob(passing) ? { bytesPerSecond: 500 } : undefined);
  const daemon = await startDaemon(t);
  const client = await DaemonClient.connect(daemon.run);
  const controller = new AbortController();
  const reading: string[] = [];
  const slow = client?.mount(
    { reference: `docker://${proxy.host}/slow:1` },
    ({ type }) => reading.push(type),
    controller.signal,
  );
  t.ok(await until(() => proxy.seen.filter(isBlob).length > 2 && reading.includes('progress'), 20_000));
  let outcome = 'being made';
  const gone = slow?.then(
    () => (outcome = 'made'),
    (e: unknown) => (outcome = (e as Error).name),
  );
  const mountpoint = await mounted(daemon, image.reference);
  const user = spawn('sleep', ['60'], { cwd: mountpoint, stdio: 'ignore' });
  t.teardown(() => user.kill());
  await once(user, 'spawn');
  const refused = await client?.stop().catch((e: unknown) => (e as { code?: string }).code);
  t.equal(refused, 'MOUNT_BUSY');
  t.equal(outcome, 'being made', 'a stop that is refused ends no mount that is being made');
  controller.abort();
  await gone;
  t.equal(outcome, 'AbortError');
});

t.test('A blob that is not what its digest says is refused, and leaves nothing to be believed', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const content = randomBytes(300_000);
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content }] }] });
  push(image.reference, registry.host, 'app:1');
  const proxy = await startFaultProxy(t, registry.host);
  const layer = image.layers[0]!.descriptor.digest;
  const daemon = await startDaemon(t);
  proxy.fault = (passing) => (isBlob(passing) && passing.url.includes(layer) ? { flipAt: 100_000 } : undefined);
  const refused = await daemon.lamina(['mount', `docker://${proxy.host}/app:1`]);
  t.equal(refused.code, 3, refused.stderr);
  t.match(refused.stderr, /does not match its digest/);
  t.notOk(existsSync(join(daemon.store, 'maps', layer.replace(':', '-'))));
  proxy.fault = undefined;
  const mountpoint = await mounted(daemon, `docker://${proxy.host}/app:1`);
  t.ok((await readFile(join(mountpoint, 'a'))).equals(content), 'what was wrong is not kept');
});

interface FaultCase {
  readonly name: string;
  /** Of the nth request for the layer. */
  readonly fault: (n: number) => Fault | undefined;
}

/** Each passes after a while: then everything is read. */
const faults: readonly FaultCase[] = [
  { name: 'cut connections', fault: (n) => (n % 2 === 1 ? { cutAfter: 40_000 } : undefined) },
  { name: '503', fault: (n) => (n <= 2 ? { status: 503 } : undefined) },
  { name: 'no ranges (200)', fault: () => ({ ignoreRange: true }) },
];

t.test('Reads come right through faults of the network that pass', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const content = Buffer.from(Array.from({ length: 12_000 }, (_, i) => digest(Buffer.from(String(i)))).join(''));
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content }] }] });
  push(image.reference, registry.host, 'app:1');
  const layer = image.layers[0]!.descriptor.digest;
  const proxy = await startFaultProxy(t, registry.host);
  const reference = `docker://${proxy.host}/app:1`;
  const daemon = await startDaemon(t);
  for (const { name, fault } of faults) {
    let n = 0;
    proxy.fault = (passing) => (isBlob(passing) && passing.url.includes(layer) ? fault(++n) : undefined);
    for (const [how, lost] of [
      ['as a whole', ['blobs', 'maps', 'layers']],
      ['by ranges', ['blobs', `layers/${image.layers[0]!.diffId.replace(':', '-')}/data`]],
    ] as const) {
      for (const part of lost) rmSync(join(daemon.store, part), { recursive: true, force: true });
      mkdirSync(join(daemon.store, 'maps'), { recursive: true });
      mkdirSync(join(daemon.store, 'layers'), { recursive: true });
      n = 0;
      const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
      t.ok((await readFile(join(mountpoint, 'a'))).equals(content), `${name}: ${how}`);
      t.ok(n > 0, 'and it was asked for');
      t.equal((await daemon.lamina(['umount', '--all'])).code, 0);
    }
  }
});
