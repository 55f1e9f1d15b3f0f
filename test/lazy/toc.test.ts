/** Layers that are fetched when they are read, by the tables of contents that they bring: eStargz of our tests' own making, zstd:chunked as skopeo makes it. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtempSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { compareTrees } from '../../scripts/compare-trees.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { watchesMounts } from '../support/namespaces.js';
import { startDaemon, until } from '../support/daemon.js';
import { makeEstargz } from '../support/estargz.js';
import { startFaultProxy } from '../support/fault-proxy.js';
import { makeLayout } from '../support/images.js';
import { push, startRegistry } from '../support/registry.js';
import { tempDir } from '../support/tmp.js';
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
  serveEstargz,
} from './served.js';

t.before(watchesMounts);

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

t.test('To read a file to its end does not bring the one behind it', async (t) => {
  if (cannotRun(t)) return;
  const registry = await startRegistry(t);
  const program = noise(400_000, 'program');
  const files = [
    { name: 'program', content: program },
    { name: 'behind', content: noise(400_000, 'behind') },
    // A layer of which a third is read comes as a whole.
    { name: 'rest', content: noise(2_000_000, 'rest') },
  ];
  const { tar, blob, annotations } = await makeEstargz(files, { chunkSize: 256 * 1024 });
  const image = await makeLayout(tempDir(t), { layers: [{ tar, blob, annotations }] });
  push(image.reference, registry.host, 'two:1');
  for (const engine of engines) {
    if (engine === 'kernel' && kernelEngineObstacle() !== undefined) continue;
    const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
    const mountpoint = await mounted(daemon, `docker://${registry.host}/two:1`, '--engine', engine);
    t.ok((await readFile(join(mountpoint, 'program'))).equals(program));
    const [layer] = await contents(daemon);
    t.ok(layer!.fetched < program.length + 64 * 1024, `${engine}: ${layer!.fetched} bytes`);
  }
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
  // Who asks for less than the whole layer, from its end, gets a wrong byte of the table.
  wrong.proxy.fault = ({ url, range }) =>
    url.includes(wrong.digest) && Number(/^bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0) >= wrong.tocAt
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
