/** Layers that are fetched when they are read: eStargz of our tests' own making, zstd:chunked as skopeo makes it. */
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtempSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { compareTrees } from '../../scripts/compare-trees.js';
import type { DaemonStatus, LayerContent, MountContent } from '../../src/daemon/protocol.js';
import { digestOf, parseDigest } from '../../src/digest/index.js';
import { RegistryClient } from '../../src/source/registry/client.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { loadFuseNative } from '../../src/mount/fuse-native.js';
import { watchesMounts } from '../support/namespaces.js';
import { runCommand, type CliResult } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import { startDaemon, until, type TestDaemon } from '../support/daemon.js';
import { makeEstargz, type EstargzOptions } from '../support/estargz.js';
import { isBlob, startFaultProxy, type Fault, type FaultProxy } from '../support/fault-proxy.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { password, push, startRegistry, user } from '../support/registry.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { makeTar, type Entry } from '../support/tar.js';

const needed = ['skopeo', 'docker-registry', 'umoci'];
const missing = needed.filter((name) => !commandExists(name));
const canMount = isRoot && existsSync('/dev/fuse');
const engines = ['kernel', 'fuse'] as const;
/** Nothing comes but what is read. */
const NO_BACKGROUND = { LAMINA_BACKGROUND_RATE: '0', LAMINA_FETCH_TIMEOUT: '4' };

function cannotRun(t: Test): boolean {
  return (
    skipUnless(t, canMount, 'mounting needs root and /dev/fuse') ||
    skipUnless(t, missing.length === 0, `commands are missing: ${missing.join(', ')} (scripts/install-peers)`)
  );
}

function cannotLoadFuseNative(t: Test): boolean {
  try {
    loadFuseNative();
    return false;
  } catch (e) {
    return skipUnless(t, false, (e as Error).message);
  }
}

t.before(watchesMounts);

/** Bytes that no compressor makes smaller. */
function noise(size: number, seed: string): Buffer {
  const parts: Buffer[] = [];
  for (let i = 0; i * 32 < size; i++) parts.push(createHash('sha256').update(`${seed} ${i}`).digest());
  return Buffer.concat(parts).subarray(0, size);
}

const LARGE = noise(6_000_000, 'large');

const entries: readonly Entry[] = [
  { name: 'd/', type: 'directory', mode: 0o750, uid: 3, gid: 4, mtime: new Date(1_600_000_000_000) },
  ...Array.from({ length: 300 }, (_, i) => ({ name: `d/small-${i}`, content: noise(700 + 13 * i, `small ${i}`) })),
  { name: '.no.prefetch.landmark', content: '\x0f' },
  { name: 'large', content: LARGE },
  { name: 'hard', type: 'link', linkname: 'large' },
  { name: 'link', type: 'symlink', linkname: 'd/small-1' },
  { name: 'empty', content: '' },
  { name: 'ünïcode', content: 'name' },
  { name: 'other', content: noise(3_000_000, 'other') },
];

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

const INDEX = 'application/vnd.oci.image.index.v1+json';

interface Referrer {
  readonly artifactType: string;
  readonly digest: string;
}

interface Index {
  readonly manifests: readonly { readonly digest: string }[];
}

interface Served {
  readonly image: MadeImage;
  readonly reference: string;
  readonly proxy: FaultProxy;
  readonly daemon: TestDaemon;
  /** Of the eStargz layer. */
  readonly digest: string;
}

/** An image of two layers, the upper one an eStargz, behind a proxy, and a daemon. */
async function serveEstargz(t: Test, options: EstargzOptions = {}): Promise<Served> {
  const registry = await startRegistry(t);
  const layer = await makeEstargz(entries, { chunkSize: 256 * 1024, ...options });
  const image = await makeLayout(tempDir(t), {
    layers: [
      {
        entries: [
          { name: 'base', content: 'plain gzip' },
          { name: 'd/small-1', content: 'hidden by the upper layer' },
        ],
      },
      { tar: layer.tar, blob: layer.blob, annotations: layer.annotations },
    ],
  });
  push(image.reference, registry.host, 'lazy:1');
  const proxy = await startFaultProxy(t, registry.host);
  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const { digest } = image.layers[1]!.descriptor;
  return { image, reference: `docker://${proxy.host}/lazy:1`, proxy, daemon, digest };
}

/** Bytes decompressed for the first of a daemon's mounts. */
async function filled(daemon: TestDaemon): Promise<number> {
  const { stdout } = await daemon.lamina(['mounts', '--json']);
  return (JSON.parse(stdout) as { bytes: { filled: number } }[])[0]!.bytes.filled;
}

async function mounted(daemon: TestDaemon, reference: string, ...flags: string[]): Promise<string> {
  const mountpoint = mkdtempSync(join(daemon.directory, 'mnt-'));
  const { code, stderr } = await daemon.lamina(['mount', ...flags, reference, mountpoint]);
  if (code !== 0) throw new Error(stderr);
  return mountpoint;
}

async function contents(daemon: TestDaemon): Promise<readonly LayerContent[]> {
  const { stdout } = await daemon.lamina(['status', '--json']);
  return (JSON.parse(stdout) as MountContent[]).flatMap(({ layers }) => layers);
}

/** Mounts an image whose one layer is of {@link entries} and more, and is known as `how` says: little of it has been fetched. */
async function mountedLazily(t: Test, daemon: TestDaemon, reference: string, how: object): Promise<string> {
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  const [lazy] = await contents(daemon);
  t.match(lazy, how);
  t.ok(lazy!.fetched < lazy!.size / 20, `${lazy!.fetched} of ${lazy!.size} bytes`);
  t.ok((await readFile(join(mountpoint, 'd/small-7'))).equals(noise(700 + 13 * 7, 'small 7')));
  return mountpoint;
}

async function errnoOf(read: Promise<unknown>): Promise<string | undefined> {
  return read.then(
    () => undefined,
    (e: unknown) => (e as { code?: string }).code,
  );
}

t.test('An eStargz is mounted without its content, and is the same tree', async (t) => {
  if (cannotRun(t)) return;
  const { image, reference, daemon } = await serveEstargz(t);
  const unpacked = join(tempDir(t), 'unpacked');
  execFileSync('umoci', ['unpack', '--image', `${image.directory}:latest`, unpacked], { stdio: 'ignore' });
  for (const engine of engines) {
    if (engine === 'kernel' && kernelEngineObstacle() !== undefined) continue;
    const mountpoint = await mounted(daemon, reference, '--engine', engine);
    const [base, lazy] = await contents(daemon);
    t.match(base, { index: 'tar', source: 'registry', verified: 'layer digest', fetched: base!.size });
    t.match(lazy, { index: 'toc', source: 'registry', verified: 'table of contents' });
    if (engine === engines[0]) t.ok(lazy!.fetched < lazy!.size / 20, `${lazy!.fetched} of ${lazy!.size} bytes`);
    t.ok((await readFile(join(mountpoint, 'd/small-7'))).equals(noise(700 + 13 * 7, 'small 7')));
    if (engine === engines[0]) {
      const [, after] = await contents(daemon);
      t.ok(after!.fetched > lazy!.fetched && after!.fetched < after!.size / 10, 'a small file costs little');
      t.ok(after!.needed > 0);
    }
    const { differences } = await compareTrees(mountpoint, join(unpacked, 'rootfs'), {
      ignore: [
        // What a loader alone wants is hidden.
        { field: 'missing', glob: '/stargz.index.json' },
        { field: 'missing', glob: '/.no.prefetch.landmark' },
        { field: 'mtime', glob: '/' },
      ],
    });
    t.same(differences, [], engine);
    t.equal((await daemon.lamina(['umount', mountpoint])).code, 0);
  }
  const status = await daemon.lamina(['status', '/nowhere']);
  t.equal(status.code, 4);
});

t.test('What whoever built an eStargz has put first is fetched first', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const first = noise(200_000, 'first');
  const parts = [
    { name: 'first', content: first },
    { name: '.prefetch.landmark', content: '\x0f' },
    ...entries.slice(1, 300),
  ];
  const layer = await makeEstargz(parts);
  const { blob, tar, annotations } = layer;
  const image = await makeLayout(tempDir(t), { layers: [{ tar, blob, annotations }] });
  push(image.reference, registry.host, 'optimised:1');
  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const mountpoint = await mounted(daemon, `docker://${registry.host}/optimised:1`, '--engine', 'fuse');
  t.ok(await until(async () => (await contents(daemon))[0]!.fetched > first.length, 10_000), 'before it is read');
  t.ok(await until(async () => (await filled(daemon)) >= first.length, 10_000), 'and decompressed');
  await registry.stop();
  t.ok((await readFile(join(mountpoint, 'first'))).equals(first));
});

t.test('All that a read takes is asked for at once', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  // The seventh lies on a border of 64 KiB: what lies around is verified with it.
  const content = noise(10_000, 'seventh');
  const small = Array.from({ length: 100 }, (_, i) => ({
    name: `small-${i}`,
    content: i === 6 ? content : noise(10_000, `${i}`),
  }));
  const { tar, blob, annotations } = await makeEstargz(small);
  const image = await makeLayout(tempDir(t), { layers: [{ tar, blob, annotations }] });
  push(image.reference, registry.host, 'small:1');
  const proxy = await startFaultProxy(t, registry.host);
  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const mountpoint = await mounted(daemon, `docker://${proxy.host}/small:1`, '--engine', 'fuse');
  const before = proxy.seen.length;
  t.ok((await readFile(join(mountpoint, 'small-6'))).equals(content));
  t.equal(proxy.seen.length, before + 1);
});

t.test('What containers have read first on one machine is fetched before it is read on others', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  const read = ['d/small-200', 'other', 'd/small-20'];
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  for (const name of read) await readFile(join(mountpoint, name));
  const pushed = await daemon.lamina(['index', '--push', reference]);
  t.equal(pushed.code, 0, pushed.stderr);
  t.match(pushed.stderr, /Pushed sha256:[0-9a-f]{64}, a Lamina index of a trace of \d+ parts/);

  const other = await startDaemon(t, undefined, NO_BACKGROUND);
  const there = await mounted(other, reference, '--engine', 'fuse');
  t.ok(await until(async () => (await contents(other))[1]!.fetched > 3_000_000, 10_000), 'before it is read');
  t.ok(await until(async () => (await filled(other)) > 3_000_000, 10_000), 'and decompressed');
  const before = proxy.seen.length;
  for (const name of read) {
    t.ok((await readFile(join(there, name))).equals(await readFile(join(mountpoint, name))), name);
  }
  t.equal(proxy.seen.length, before, 'nothing has to be fetched for it');
  const again = await other.lamina(['index', '--push', reference]);
  t.match(again.stderr, /a trace of/, 'what was fetched ahead is passed on');

  const paused = await startDaemon(t, undefined, NO_BACKGROUND);
  t.equal((await paused.lamina(['daemon', 'pause'])).code, 0);
  await mounted(paused, reference, '--engine', 'fuse');
  await sleep(500);
  t.ok((await contents(paused))[1]!.fetched < 1_000_000, 'not where the network is left to others');

  // Of an index that cannot be used only the use is lost.
  proxy.fault = ({ url }) => (/referrers|sha256-/.test(url) ? { status: 500 } : undefined);
  const third = await startDaemon(t, undefined, NO_BACKGROUND);
  const without = mkdtempSync(join(third.directory, 'mnt-'));
  const warned = await third.lamina(['mount', reference, without]);
  t.equal(warned.code, 0);
  t.match(warned.stderr, /what refers to it cannot be listed/);
});

/** An eStargz that is given only to who has a password, and a daemon. */
async function servePrivate(t: Test): Promise<{ daemon: TestDaemon; reference: string }> {
  const registry = await startRegistry(t, { auth: true });
  const { tar, blob, annotations } = await makeEstargz(entries, { chunkSize: 256 * 1024 });
  const image = await makeLayout(tempDir(t), { layers: [{ tar, blob, annotations }] });
  push(image.reference, registry.host, 'private:1', ['--dest-creds', `${user}:${password}`]);
  return { daemon: await startDaemon(t, undefined, NO_BACKGROUND), reference: `docker://${registry.host}/private:1` };
}

t.test('What was typed as --creds is known after a crash of the server, and in no file', async (t) => {
  if (cannotRun(t)) return;
  const { daemon, reference } = await servePrivate(t);
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse', '--creds', `${user}:${password}`);
  await readFile(join(mountpoint, 'd/small-1'));
  const { stdout } = await daemon.lamina(['daemon', 'status', '--json']);
  process.kill((JSON.parse(stdout) as DaemonStatus).serverPid, 'SIGKILL');
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE), 'what had to be fetched after it');
  const found = await runCommand('grep', ['-rl', password, daemon.run, daemon.store]);
  t.strictSame([found.code, found.stdout], [1, ''], 'no file has the password');
});

t.test('What was typed as --creds is known to the process of fuse-native', async (t) => {
  if (cannotRun(t) || cannotLoadFuseNative(t)) return;
  const { daemon, reference } = await servePrivate(t);
  const creds = ['--creds', `${user}:${password}`];
  const mountpoint = await mounted(daemon, reference, '--transport', 'fuse-native', ...creds);
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE));
});

t.test('Of a registry that is far, more is asked for at once', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  const lengths = async (mountpoint: string, names: readonly string[]): Promise<number[]> => {
    const before = proxy.seen.length;
    for (const name of names) await readFile(join(mountpoint, name));
    const ranges = proxy.seen.slice(before).map(({ range }) => /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? []);
    return ranges.map(([, from, to]) => Number(to) + 1 - Number(from));
  };
  const near = await lengths(await mounted(daemon, reference, '--engine', 'fuse'), ['d/small-250', 'd/small-220']);
  // On a busy machine an answer may take as long as from afar.
  t.ok(
    near.some((length) => length < 128 * 1024),
    `near: ${near.join()}`,
  );
  proxy.fault = (passing) => (isBlob(passing) ? { delayMs: 100 } : undefined);
  const other = await startDaemon(t, undefined, NO_BACKGROUND);
  const far = await lengths(await mounted(other, reference, '--engine', 'fuse'), ['d/small-180', 'd/small-5']);
  t.ok(
    far.every((length) => length >= 128 * 1024),
    `far: ${far.join()}`,
  );
});

t.test('What was read of a lazy layer needs no registry, the rest fails until it is back', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  const small = await readFile(join(mountpoint, 'd/small-3'));
  proxy.fault = () => ({ hang: true });
  await daemon.lamina(['umount', '--all']);
  const offline = await mounted(daemon, reference, '--engine', 'fuse', '--offline');
  t.ok((await readFile(join(offline, 'd/small-3'))).equals(small), 'what was read before');
  t.equal(await errnoOf(readFile(join(offline, 'large'))), 'EIO');
  t.match(daemon.log(), /must not be asked/);
  await daemon.lamina(['umount', '--all']);

  const again = await mounted(daemon, reference, '--engine', 'fuse');
  const beside = await mounted(daemon, reference, '--engine', 'fuse', '--offline');
  const slow = errnoOf(readFile(join(again, 'other')));
  t.ok((await readFile(join(again, 'd/small-3'))).equals(small), 'a cached read does not wait behind one that hangs');
  t.equal(await slow, 'EIO', 'which ends in a bounded time');
  t.match(daemon.log(), /sends nothing of sha256/);
  proxy.fault = undefined;
  t.ok((await readFile(join(again, 'large'))).equals(LARGE), 'and when the registry is back, all is well');
  t.equal((await daemon.lamina(['umount', beside])).code, 0, 'whether or not the image is mounted offline beside');
});

t.test('A server that is killed while a read waits for the registry is replaced, and the read answered', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  proxy.fault = (passing) => (isBlob(passing) ? { delayMs: 500 } : undefined);
  const reading = readFile(join(mountpoint, 'large'));
  const asked = proxy.seen.length;
  await until(() => proxy.seen.length > asked, 5000);
  const { stdout } = await daemon.lamina(['daemon', 'status', '--json']);
  process.kill((JSON.parse(stdout) as { serverPid: number }).serverPid, 'SIGKILL');
  t.ok((await reading).equals(LARGE));
});

t.test('Layers are completed when nobody reads, and verified as a whole', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  await daemon.stop();
  const completing = await startDaemon(t, daemon.directory);
  t.equal((await completing.lamina(['daemon', 'pause'])).code, 0);
  await mounted(completing, reference);
  const status = async (): Promise<DaemonStatus> =>
    JSON.parse((await completing.lamina(['daemon', 'status', '--json'])).stdout) as DaemonStatus;
  const { background, serverPid } = await status();
  t.equal(background, 'paused');
  process.kill(serverPid, 'SIGKILL');
  t.equal((await status()).background, 'paused', 'and so it stays');
  await sleep(5000);
  t.ok(
    (await contents(completing)).some(({ fetched, size }) => fetched < size),
    'nothing comes that nobody reads',
  );
  t.equal((await completing.lamina(['daemon', 'resume'])).code, 0);
  const done = await until(
    async () => (await contents(completing)).every(({ fetched, size }) => fetched === size),
    60_000,
  );
  t.ok(done, 'all of it is here');
  t.ok(await until(() => completing.log().includes('a layer is here as a whole'), 5000));
  await proxy.stop();
  await completing.lamina(['umount', '--all']);
  const mountpoint = await mounted(completing, reference);
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE), 'the registry is not needed any more');
});

t.test('A table of contents that cannot be used makes the layer be read as a whole', async (t) => {
  if (cannotRun(t)) return;
  const lost = await serveEstargz(t, {
    edit: (all) => {
      all[1]!['name'] = 'caf\ufffd';
    },
  });
  const a = await lost.daemon.lamina(['mount', lost.reference]);
  t.equal(a.code, 0);
  t.match(a.stderr, /layer 2: it is read as a whole: .* lost bytes of names/);
  t.match((await contents(lost.daemon))[1], { index: 'tar', verified: 'layer digest' });

  const wrong = await serveEstargz(t);
  wrong.proxy.fault = (passing) =>
    isBlob(passing) && passing.url.includes(wrong.digest) && passing.range !== undefined && wrong.proxy.seen.length < 40
      ? { flipAt: 0 }
      : undefined;
  const b = await wrong.daemon.lamina(['mount', wrong.reference]);
  t.equal(b.code, 0);
  t.match(b.stderr, /layer 2: it is read as a whole/, 'a table that does not match is not believed');
  wrong.proxy.fault = undefined;
  const mountpoint = await mounted(wrong.daemon, wrong.reference);
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE));
});

t.test('An eStargz whose table of contents is in another image is mounted without its content', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const { tar, blob, annotations, table } = await makeEstargz(entries, { external: true });
  const image = await makeLayout(tempDir(t), { layers: [{ tar, blob, annotations }] });
  const { digest } = image.layers[0]!.descriptor;
  const of = { 'containerd.io/snapshot/stargz/layer.digest': digest };
  const tables = await makeLayout(tempDir(t), { layers: [{ ...table, annotations: of }] });
  push(image.reference, registry.host, 'external:1');
  const whole = await startDaemon(t, undefined, NO_BACKGROUND);
  const reference = `docker://${registry.host}/external:1`;
  const warned = await whole.lamina(['mount', reference, mkdtempSync(join(whole.directory, 'mnt-'))]);
  t.match(warned.stderr, /its tables of contents, which are in another image, cannot be had/);
  t.match(await contents(whole), [{ index: 'tar' }], 'without it the layer is read as a whole');
  push(tables.reference, registry.host, 'external:1-esgztoc');
  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const mountpoint = await mountedLazily(t, daemon, reference, { index: 'toc', verified: 'table of contents' });
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE));
});

t.test('zstd:chunked as skopeo makes it is mounted without its content', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const image = await makeLayout(tempDir(t), { layers: [{ entries }] });
  push(image.reference, registry.host, 'chunked:1', ['--dest-compress-format', 'zstd:chunked']);
  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const mountpoint = await mounted(daemon, `docker://${registry.host}/chunked:1`);
  const [lazy] = await contents(daemon);
  if (lazy?.index === 'tar') return void t.pass('this skopeo makes no zstd:chunked');
  t.ok(lazy!.fetched < lazy!.size / 10, `${lazy!.fetched} of ${lazy!.size} bytes`);
  for (const { name, content, type } of entries) {
    if (type !== undefined) continue;
    t.ok((await readFile(join(mountpoint, name))).equals(Buffer.from(content ?? '')), name);
  }
  t.ok(readFileSync(join(mountpoint, 'hard')).equals(LARGE));
});

/** Seekable zstd (zstd, contrib/seekable_format): a frame for each MiB, and where they are in a frame that decoders skip. */
function seekableZstd(bytes: Buffer): Buffer {
  const frames: Buffer[] = [];
  const table: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 1024 * 1024) {
    const piece = bytes.subarray(at, at + 1024 * 1024);
    const frame = execFileSync('zstd', ['-q', '-c', '-1'], { input: piece, maxBuffer: 1 << 24 });
    const entry = Buffer.alloc(8);
    entry.writeUInt32LE(frame.length, 0);
    entry.writeUInt32LE(piece.length, 4);
    frames.push(frame);
    table.push(entry);
  }
  const footer = Buffer.alloc(9);
  footer.writeUInt32LE(frames.length, 0);
  footer.writeUInt32LE(0x8f92eab1, 5);
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a5e, 0);
  header.writeUInt32LE(8 * frames.length + footer.length, 4);
  return Buffer.concat([...frames, header, ...table, footer]);
}

interface Indexed {
  readonly proxy: FaultProxy;
  readonly reference: string;
  /** The daemon of the machine that has made the indexes. */
  readonly maker: TestDaemon;
  readonly pushed: CliResult;
}

/** An image in a registry, behind a proxy, with the indexes that one machine has put beside it. */
async function serveIndexed(t: Test, host: string, image: MadeImage): Promise<Indexed> {
  push(image.reference, host, 'app:1');
  const proxy = await startFaultProxy(t, host);
  const reference = `docker://${proxy.host}/app:1`;
  const maker = await startDaemon(t, undefined, NO_BACKGROUND);
  const pushed = await maker.lamina(['index', '--push', reference]);
  t.equal(pushed.code, 0, pushed.stderr);
  return { proxy, reference, maker, pushed };
}

t.test('Layers of all kinds are lazy where a Lamina index refers to their image', async (t) => {
  if (cannotRun(t) || skipUnless(t, commandExists('zstd'), 'the command zstd is missing')) return;
  const registry = await startRegistry(t);
  const kinds = ['gzip', 'none', 'zstd'] as const;
  const contentOf = (kind: string): Buffer => noise(12_000_000, kind);
  const layers = await Promise.all(
    kinds.map(async (kind) => {
      const tar = await makeTar([...entries, { name: `of-${kind}`, content: contentOf(kind) }]);
      return { tar, compression: kind, ...(kind === 'zstd' ? { blob: seekableZstd(tar) } : {}) };
    }),
  );
  const image = await makeLayout(tempDir(t), { layers });
  const { proxy, reference, maker, pushed } = await serveIndexed(t, registry.host, image);
  t.match(pushed.stderr, /a SOCI index of 2 layers/);
  t.match(pushed.stderr, /a Lamina index of 3 layers, to/);
  const whole = await mounted(maker, reference);
  t.ok((await contents(maker)).every(({ index }) => index === 'tar'));

  for (const engine of engines) {
    if (engine === 'kernel' && kernelEngineObstacle() !== undefined) continue;
    const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
    const mountpoint = await mounted(daemon, reference, '--engine', engine);
    const known = await contents(daemon);
    for (const layer of known) {
      t.match(layer, { index: 'lamina', verified: 'Lamina index, provisional', source: 'registry' });
      t.ok(layer.fetched < layer.size / 20, `${layer.fetched} of ${layer.size} bytes`);
    }
    t.ok((await readFile(join(mountpoint, 'd/small-7'))).equals(noise(700 + 13 * 7, 'small 7')));
    const [, , upper] = await contents(daemon);
    t.ok(upper!.fetched < upper!.size / 4, `a small file costs ${upper!.fetched} of ${upper!.size} bytes`);
    let n = 0;
    proxy.fault = (passing) => (isBlob(passing) && n++ === 0 ? { flipAt: 5000 } : undefined);
    for (const kind of kinds) {
      t.ok(
        (await readFile(join(mountpoint, `of-${kind}`))).equals(contentOf(kind)),
        `${kind}, wrong bytes fetched again`,
      );
    }
    const { differences } = await compareTrees(mountpoint, whole);
    t.same(differences, [], engine);
    t.equal((await daemon.lamina(['umount', mountpoint])).code, 0);
  }
});

interface ReferrerList {
  readonly manifests: readonly Referrer[];
}

/** Where the list of what refers to an image is kept, by a tag, and what is in it. */
async function referrersOf(host: string, { manifest }: MadeImage): Promise<{ url: string; list: ReferrerList }> {
  const url = `http://${host}/v2/app/manifests/${manifest.digest.replace(':', '-')}`;
  return { url, list: (await (await fetch(url, { headers: { accept: INDEX } })).json()) as ReferrerList };
}

async function putReferrers(url: string, list: ReferrerList): Promise<void> {
  const answer = await fetch(url, { method: 'PUT', headers: { 'content-type': INDEX }, body: JSON.stringify(list) });
  if (!answer.ok) throw new Error(await answer.text());
}

t.test('A Lamina index counts in its own repository, and where it lies the layer is read as a whole', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const image = await makeLayout(tempDir(t), {
    layers: [{ entries: [...entries, { name: 'more', content: noise(12_000_000, 'more') }] }],
  });
  push(image.reference, registry.host, 'app:1');
  const reference = `docker://${registry.host}/app:1`;
  const maker = await startDaemon(t, undefined, NO_BACKGROUND);
  t.equal((await maker.lamina(['index', '--push', reference])).code, 0);
  const second = await startDaemon(t, undefined, NO_BACKGROUND);
  await readFile(join(await mounted(second, reference), 'd/small-9'));
  const added = await second.lamina(['index', '--push', reference]);
  t.match(added.stderr, /a Lamina index of a trace of/, 'from a machine that knows the layer by the first');
  const { url, list } = await referrersOf(registry.host, image);
  const own = list.manifests.find(({ artifactType }) => artifactType.includes('laminafs'))!;
  const manifests = `http://${registry.host}/v2/app/manifests`;
  const stored = await (await fetch(`${manifests}/${own.digest}`, { headers: { accept: MANIFEST } })).text();
  const client = new RegistryClient({ host: registry.host });
  t.teardown(() => client.close());
  const foreign = Buffer.from(stored.replace(image.manifest.digest, image.config.digest));
  await client.pushManifest('app', { bytes: foreign, mediaType: MANIFEST });
  const unusable = { ...own, digest: digestOf(foreign), size: foreign.length };
  await putReferrers(url, { ...list, manifests: [...list.manifests, unusable] });
  push(image.reference, registry.host, 'other:1');
  const both = await startDaemon(t, undefined, NO_BACKGROUND);
  await mounted(both, reference);
  t.ok(await until(async () => (await filled(both)) > 0, 10_000), 'what was read there is decompressed here');
  await mounted(both, `docker://${registry.host}/other:1`);
  const [theirs, others] = await contents(both);
  t.strictSame(
    [theirs?.index, others?.index],
    ['lamina', 'tar'],
    'its word counts in its own repository only, and the layers of the first index are found beside one of no use',
  );
  const { layers } = JSON.parse(stored) as { layers: { mediaType: string; digest: string; size: number }[] };
  const map = layers.find(({ mediaType }) => mediaType.includes('map'))!;
  const bytes = Buffer.from(await (await fetch(`http://${registry.host}/v2/app/blobs/${map.digest}`)).arrayBuffer());
  // A map whose first restart point is not where the layer begins; its checksum is right.
  const body = bytes.subarray(0, -32);
  const names = body.readUInt8(9) + body.readUInt8(10) + body.readUInt32LE(36);
  body.writeBigUInt64LE(512n, Math.ceil((48 + names) / 8) * 8 + 8);
  const lie = Buffer.concat([body, createHash('sha256').update(body).digest()]);
  const digest = `sha256:${createHash('sha256').update(lie).digest('hex')}`;
  await client.pushBlob('app', { digest: parseDigest(digest), size: lie.length, bytes: () => lie });
  const lying = Buffer.from(stored.replace(map.digest, digest));
  await client.pushManifest('app', { bytes: lying, mediaType: MANIFEST });
  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const mountpoint = mkdtempSync(join(daemon.directory, 'mnt-'));
  const { code, stderr } = await daemon.lamina(['mount', reference, mountpoint]);
  t.equal(code, 0, stderr);
  t.match(stderr, /it is read as a whole: The Lamina index of the layer cannot be used: its restart points/);
  t.match(await contents(daemon), [{ index: 'tar', verified: 'layer digest' }]);
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE));
});

t.test('A gzip layer is mounted without its content where a SOCI index refers to its image', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const content = noise(12_000_000, 'soci');
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [...entries, { name: 'soci', content }] }] });
  const { proxy, reference, maker, pushed } = await serveIndexed(t, registry.host, image);
  t.match(pushed.stderr, /Pushed sha256:[0-9a-f]{64}, a SOCI index of 1 layer/);
  const directory = join(maker.directory, 'soci');
  t.equal((await maker.lamina(['index', '--soci', directory, reference])).code, 0);
  execFileSync('skopeo', ['inspect', '--raw', `oci:${directory}`], { stdio: 'ignore' });
  const { url, list } = await referrersOf(registry.host, image);
  const others = list.manifests.filter(({ artifactType }) => !artifactType.includes('laminafs'));
  await putReferrers(url, { ...list, manifests: others });

  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const mountpoint = await mountedLazily(t, daemon, reference, { index: 'soci', verified: 'SOCI index, provisional' });
  let n = 0;
  proxy.fault = (passing) => (isBlob(passing) && n++ === 0 ? { flipAt: 5000 } : undefined);
  t.ok((await readFile(join(mountpoint, 'soci'))).equals(content), 'a wrong byte is fetched again');
  const unpacked = join(tempDir(t), 'unpacked');
  execFileSync('umoci', ['unpack', '--image', `${image.directory}:latest`, unpacked], { stdio: 'ignore' });
  const { differences } = await compareTrees(mountpoint, join(unpacked, 'rootfs'), {
    ignore: [{ field: 'mtime', glob: '/' }],
  });
  t.same(differences, []);

  for (const part of ['maps', 'layers']) execFileSync('sh', ['-c', 'rm -rf "$1"/*', 'sh', join(maker.store, part)]);
  await mounted(maker, reference);
  const verified = 'layer digest';
  t.match(
    (await contents(maker))[0],
    { index: 'tar', verified },
    'a layer that is here as a whole needs no index of others',
  );

  // SOCI v2: the manifest names the index, which then refers to nothing.
  const [entry] = (JSON.parse(readFileSync(join(directory, 'index.json'), 'utf8')) as Index).manifests;
  const stored = readFileSync(join(directory, 'blobs', entry!.digest.replace(':', '/')), 'utf8');
  const second = JSON.parse(stored.replace('soci.index.v1+json', 'soci.index.v2+json')) as object;
  const index = Buffer.from(JSON.stringify({ ...second, subject: undefined }));
  const named = `sha256:${createHash('sha256').update(index).digest('hex')}`;
  const manifests = `http://${registry.host}/v2/app/manifests`;
  const put = (name: string, body: string | Buffer): Promise<number> =>
    fetch(`${manifests}/${name}`, { method: 'PUT', headers: { 'content-type': MANIFEST }, body }).then((r) => r.status);
  t.equal(await put(named, index), 201);
  const manifest = (await (await fetch(`${manifests}/1`, { headers: { accept: MANIFEST } })).json()) as object;
  const annotations = { 'com.amazon.soci.index-digest': named };
  t.equal(await put('v2', JSON.stringify({ ...manifest, annotations })), 201);
  const bound = await startDaemon(t, undefined, NO_BACKGROUND);
  const place = await mounted(bound, `docker://${registry.host}/app:v2`);
  t.match((await contents(bound))[0], { index: 'soci', verified: 'SOCI index' });
  t.ok((await readFile(join(place, 'soci'))).equals(content));
});

/** Faults that a read of a lazy layer meets. `ends`: right, or failed with EIO; never anything else. */
const faults: readonly {
  readonly name: string;
  readonly fault: (n: number) => Fault | undefined;
  readonly ends: string;
}[] = [
  { name: 'latency of 50 ms', fault: () => ({ delayMs: 50 }), ends: 'right' },
  { name: '1 MB/s', fault: () => ({ bytesPerSecond: 1_000_000 }), ends: 'right' },
  {
    name: 'cut after 10 kB, every other',
    fault: (n) => (n % 2 === 0 ? { cutAfter: 10_000 } : undefined),
    ends: 'right',
  },
  { name: '500 twice', fault: (n) => (n <= 2 ? { status: 500 } : undefined), ends: 'right' },
  {
    name: '429, once',
    fault: (n) => (n <= 1 ? { status: 429, headers: { 'retry-after': '1' } } : undefined),
    ends: 'right',
  },
  { name: '200 to a range', fault: () => ({ ignoreRange: true }), ends: 'right' },
  { name: 'a wrong range, once', fault: (n) => (n <= 1 ? { shiftRange: 4096 } : undefined), ends: 'right' },
  { name: 'a wrong byte, once', fault: (n) => (n <= 1 ? { flipAt: 1000 } : undefined), ends: 'right' },
  { name: 'wrong bytes always', fault: () => ({ garble: true }), ends: 'EIO' },
  { name: 'wrong ranges always', fault: () => ({ shiftRange: 4096 }), ends: 'EIO' },
  { name: 'stalls after 5 kB, once', fault: (n) => (n <= 1 ? { stallAfter: 5000 } : undefined), ends: 'right' },
  { name: 'hangs', fault: () => ({ hang: true }), ends: 'EIO' },
  { name: '404', fault: () => ({ status: 404 }), ends: 'EIO' },
  { name: '401', fault: () => ({ status: 401 }), ends: 'EIO' },
];

/** Far from each other in the layer; read at the same time. */
const readUnderFaults = entries.filter(({ name }) =>
  ['d/small-20', 'd/small-150', 'd/small-290', 'other'].includes(name),
);

t.test('Reads of a lazy layer are right or EIO, whatever the network does, and never wrong', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon, digest } = await serveEstargz(t);
  const tables = await mounted(daemon, reference, '--engine', 'fuse');
  t.equal((await daemon.lamina(['umount', tables])).code, 0);
  for (const { name, fault, ends } of faults) {
    for (const part of ['blobs', 'layers']) execFileSync('rm', ['-rf', join(daemon.store, part)]);
    execFileSync('mkdir', [join(daemon.store, 'blobs'), join(daemon.store, 'layers')]);
    proxy.fault = undefined;
    const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
    let n = 0;
    proxy.fault = (passing) => (isBlob(passing) && passing.url.includes(digest) ? fault(++n) : undefined);
    const outcomes = { right: 0, EIO: 0, wrong: 0 };
    const read = async ({ name: file, content = '' }: Entry): Promise<void> => {
      const got = await readFile(join(mountpoint, file)).catch((e: unknown) => (e as { code: string }).code);
      const outcome =
        got === 'EIO' ? 'EIO' : typeof got !== 'string' && got.equals(Buffer.from(content)) ? 'right' : 'wrong';
      outcomes[outcome]++;
    };
    await Promise.all(readUnderFaults.map(read));
    t.same(outcomes, { right: 0, EIO: 0, wrong: 0, [ends]: readUnderFaults.length }, `${name} (${n} requests)`);
    proxy.fault = undefined;
    t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE), 'and then all is well');
    t.equal((await daemon.lamina(['umount', mountpoint])).code, 0);
  }
});
