/** Layers that are lazy by what is put beside their image in its registry: Lamina indexes, access traces, SOCI indexes. */
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtempSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { compareTrees } from '../../scripts/compare-trees.js';
import { digestOf, parseDigest } from '../../src/digest/index.js';
import { RegistryClient } from '../../src/source/registry/client.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { watchesMounts } from '../support/namespaces.js';
import type { CliResult } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import { startDaemon, until, type TestDaemon } from '../support/daemon.js';
import { isBlob, startFaultProxy, type FaultProxy } from '../support/fault-proxy.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { push, startRegistry } from '../support/registry.js';
import { skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { makeTar } from '../support/tar.js';
import {
  LARGE,
  NO_BACKGROUND,
  cannotRun,
  contents,
  engines,
  entries,
  filled,
  mounted,
  mountedLazily,
  noise,
  quiet,
  serveEstargz,
} from './served.js';

t.before(watchesMounts);

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

const INDEX = 'application/vnd.oci.image.index.v1+json';

interface Referrer {
  readonly artifactType: string;
  readonly digest: string;
}

interface Index {
  readonly manifests: readonly { readonly digest: string }[];
}

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
  await quiet(proxy);
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

t.test('What is read first of an image that has come as a whole is recorded too', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const more = { name: 'more', content: noise(4_000_000, 'more') };
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [...entries, more] }] });
  push(image.reference, registry.host, 'plain:1');
  const proxy = await startFaultProxy(t, registry.host);
  const reference = `docker://${proxy.host}/plain:1`;
  const read = ['d/small-200', 'other', 'd/small-20'];
  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  t.match(await contents(daemon), [{ index: 'tar', verified: 'layer digest' }]);
  for (const name of read) await readFile(join(mountpoint, name));
  const pushed = await daemon.lamina(['index', '--push', reference]);
  t.match(pushed.stderr, /Pushed sha256:[0-9a-f]{64}, a Lamina index of 1 layer, and a trace of [1-9]\d* parts?/);

  const other = await startDaemon(t, undefined, NO_BACKGROUND);
  const there = await mounted(other, reference, '--engine', 'fuse');
  t.match(await contents(other), [{ index: 'lamina' }]);
  t.ok(
    await until(async () => (await filled(other)) > 3_000_000, 10_000),
    'fetched and decompressed before it is read',
  );
  await quiet(proxy);
  const before = proxy.seen.length;
  for (const name of read) {
    t.ok((await readFile(join(there, name))).equals(await readFile(join(mountpoint, name))), name);
  }
  t.equal(proxy.seen.length, before, 'nothing has to be fetched for it');
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
