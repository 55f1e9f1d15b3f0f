import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { findLayer } from '../../src/image/known-layer.js';
import { prepareImage, type PreparedImage } from '../../src/image/prepare.js';
import type { ProgressEvent } from '../../src/image/progress.js';
import { ImageTree } from '../../src/image/tree.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import { Store } from '../../src/store/store.js';
import { blobPath, makeLayout, type LayerCompression } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import type { TarPart } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';
import { commandExists } from '../support/commands.js';
import { failure } from '../support/failure.js';

const random = randomBytes(3_000_000);

const layers: readonly (readonly TarPart[])[] = [
  [
    { name: 'etc/', type: 'directory', mode: 0o750, uid: 7 },
    { name: 'etc/passwd', content: 'root:x:0:0::/root:/bin/sh\n' },
    { name: 'etc/issue', content: 'base' },
    { name: 'usr/lib/', type: 'directory' },
    { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
    { name: 'usr/lib/random', content: random },
    { name: 'abs', type: 'symlink', linkname: '/etc/passwd' },
    { name: 'up', type: 'symlink', linkname: '../../../../etc/passwd' },
    { name: 'loop', type: 'symlink', linkname: 'loop' },
  ],
  [{ name: 'etc/.wh.issue' }, { name: 'lib/new', content: 'through the link' }],
  [{ name: 'hard', type: 'link', linkname: 'etc/passwd' }],
];

interface Prepared {
  readonly prepared: PreparedImage;
  readonly events: readonly ProgressEvent[];
}

async function prepare(store: Store, reference: string, compat: 'spec' | 'overlay' = 'spec'): Promise<Prepared> {
  const events: ProgressEvent[] = [];
  const image = await resolveImage(parseReference(reference, '/'));
  return { prepared: await prepareImage(image, { store, compat, onProgress: (e) => events.push(e) }), events };
}

function setup(t: Test): { dir: string; store: Store } {
  const dir = tempDir(t);
  return { dir, store: Store.open(join(dir, 'store')) };
}

t.test('an image is indexed once, in whatever form it comes', async (t) => {
  const { dir, store } = setup(t);
  const forms: LayerCompression[] = ['gzip', 'none', ...(commandExists('zstd') ? (['zstd'] as const) : [])];
  const trees = new Set<string>();
  for (const compression of forms) {
    const { reference } = await makeLayout(join(dir, compression), {
      layers: layers.map((entries) => ({ entries, compression })),
    });
    const first = await prepare(store, reference);
    trees.add(first.prepared.treePath);
    t.same(
      first.events.filter((e) => e.type === 'layer' && e.state === 'indexed').length,
      3,
      `${compression}: its map is new`,
    );
    const again = await prepare(store, reference);
    t.ok(
      again.prepared.layers.every((l) => l.cached),
      `${compression}: nothing is left to do the second time`,
    );
    t.match(again.events.at(-1), { type: 'tree', state: 'cached' });
    const image = again.prepared.image;
    t.ok(image.layers.every((layer) => findLayer(layer, store) !== undefined));
  }
  t.equal(trees.size, 1, 'one tree');
  t.equal(readdirSync(join(store.path, 'layers')).length, 3, 'one set of layers');

  const archive = join(dir, 'image.tar');
  execFileSync('tar', ['-C', join(dir, 'gzip'), '-cf', archive, '.']);
  const { prepared } = await prepare(store, `oci-archive:${archive}:latest`);
  t.ok(trees.has(prepared.treePath) && prepared.layers.every((l) => l.cached), 'an archive of it shares everything');
});

t.test('ImageTree finds paths inside the image and reads verified bytes', async (t) => {
  const { dir, store } = setup(t);
  const { reference } = await makeLayout(dir, { layers: layers.map((entries) => ({ entries })) });
  const { prepared } = await prepare(store, reference);
  const tree = ImageTree.open(prepared);
  t.teardown(() => tree.close());
  const names = (path: string): string[] => tree.entries(tree.resolve(path)).map((e) => e.name);
  t.same(names('/'), ['abs', 'etc', 'hard', 'lib', 'loop', 'up', 'usr']);
  t.same(names('etc'), ['passwd']);
  t.same(names('/lib/'), ['new', 'random'], 'through a symlink');
  const passwd = tree.resolve('etc/passwd');
  for (const path of ['abs', 'up', 'hard', 'lib/../../etc/passwd', './etc//passwd'])
    t.equal(tree.resolve(path), passwd, path);
  t.not(tree.resolve('abs', { followLast: false }), passwd);
  t.ok(tree.readFile(tree.resolve('lib/random')).equals(random));
  const part = Buffer.alloc(200_000);
  t.equal(tree.readRange(tree.resolve('lib/random'), 2_900_000, 200_000, part), 100_000, 'short only at the end');
  t.ok(part.subarray(0, 100_000).equals(random.subarray(2_900_000)));
  t.throws(() => tree.resolve('etc/nothing'), { code: 'PATH_NOT_FOUND' });
  t.throws(() => tree.resolve('etc/passwd/x'), { code: 'PATH_NOT_FOUND' });
  t.throws(() => tree.resolve('loop'), { code: 'PATH_LOOP' });
  t.throws(() => tree.readFile(tree.resolve('lib/random'), 1000), { code: 'LIMIT_EXCEEDED' });
  t.throws(() => tree.readFile(tree.resolve('etc')), { code: 'USAGE' });
});

t.test('--compat overlay has a tree of its own', async (t) => {
  const { dir, store } = setup(t);
  const { reference } = await makeLayout(dir, { layers: layers.map((entries) => ({ entries })) });
  const spec = await prepare(store, reference);
  const overlay = await prepare(store, reference, 'overlay');
  t.not(spec.prepared.treePath, overlay.prepared.treePath);
  const tree = ImageTree.open(overlay.prepared);
  t.same(
    tree.entries(tree.resolve('lib')).map((e) => e.name),
    ['new'],
  );
  tree.close();
});

t.test('a layer that cannot be used is named and leaves the others whole', async (t) => {
  const { dir, store } = setup(t);
  const made = await makeLayout(dir, { layers: layers.map((entries) => ({ entries })) });
  const bad = made.layers[1];
  if (bad === undefined) throw new Error('no layer');
  const path = blobPath(dir, bad.descriptor.digest);
  const bytes = readFileSync(path);
  writeFileSync(path, Buffer.from(bytes).fill(0, 20, 30));
  const e = await failure(prepare(store, made.reference));
  t.equal(e.code, 'BLOB_DIGEST_MISMATCH');
  t.equal(e.exitCode, 3);
  t.match(e.message, /layer 2 of 3/);
  t.notOk(existsSync(store.layerDirectory(bad.diffId as never)));
  t.same(readdirSync(join(store.path, 'tmp')), []);
  t.same(readdirSync(join(store.path, 'images')), []);
  writeFileSync(path, bytes);
  t.ok((await prepare(store, made.reference)).prepared.treePath, 'and works once it is mended');
});

t.test('one bad layer among many ends it all, whatever still waits for a thread', async (t) => {
  const { dir, store } = setup(t);
  const warnings: Error[] = [];
  const keep = (warning: Error): number => warnings.push(warning);
  process.on('warning', keep);
  t.teardown(() => process.off('warning', keep));
  const good = Array.from({ length: 20 }, (_, i) => ({ entries: [{ name: `f${i}`, content: 'x' }] }));
  const blob = Buffer.from('no layer '.repeat(1000));
  const { reference } = await makeLayout(dir, { layers: [{ entries: [], blob }, ...good] });
  const e = await failure(prepare(store, reference));
  t.equal(e.code, 'TAR_INVALID');
  t.match(e.message, /layer 1 of 21/);
  t.same(warnings, [], 'Node sees no leak in what waits');
  t.same(readdirSync(join(store.path, 'tmp')), []);
  const image = await resolveImage(parseReference(reference, '/'));
  const signal = AbortSignal.abort(new Error('before it began'));
  await t.rejects(prepareImage(image, { store, compat: 'spec', signal }), { message: 'before it began' });
});

t.test('a link to nothing fails when the layers are merged', async (t) => {
  const { dir, store } = setup(t);
  const { reference } = await makeLayout(dir, { layers: [{ entries: [{ name: 'l', type: 'link', linkname: 'no' }] }] });
  t.equal((await failure(prepare(store, reference))).code, 'LINK_INVALID');
});

t.test('a full disk fails with its own code and leaves nothing behind', async (t) => {
  if (skipUnless(t, isRoot, 'mounting a small tmpfs needs root')) return;
  const dir = tempDir(t);
  const small = join(dir, 'small');
  mkdirSync(small);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'lamina-test', small]);
  t.teardown(() => execFileSync('umount', ['-l', small]));
  const entries = Array.from({ length: 4000 }, (_, i) => ({ name: `some/longer/directory/file-${i}`, content: 'x' }));
  const { reference } = await makeLayout(join(dir, 'image'), { layers: [{ entries }] });
  const store = Store.open(join(small, 'store'));
  t.equal((await failure(prepare(store, reference))).code, 'DISK_FULL');
  for (const sub of ['layers', 'maps', 'images', 'tmp']) t.same(readdirSync(join(store.path, sub)), [], sub);
});

t.test('a damaged tree is found before it is used, and merged again', async (t) => {
  const { dir, store } = setup(t);
  const { reference } = await makeLayout(dir, { layers: [{ entries: [{ name: 'f', content: 'x', uid: 77 }] }] });
  const { treePath, layers: prepared } = (await prepare(store, reference)).prepared;
  const good = readFileSync(treePath);
  const bad = Buffer.from(good);
  bad.writeUInt8(78, bad.indexOf(77));
  writeFileSync(treePath, bad);
  const { events } = await prepare(store, reference);
  t.match(events.at(-1), { type: 'tree', state: 'merged' });
  t.ok(readFileSync(treePath).equals(good));

  writeFileSync(treePath, bad);
  const layerTree = join(prepared[0]?.directory ?? '', 'tree.erofs');
  writeFileSync(layerTree, readFileSync(layerTree).fill(1, 2000, 2001));
  await prepare(store, reference);
  t.ok(readFileSync(treePath).equals(good), 'a layer tree too');
});

t.test('a damaged index is made anew, and that is said', async (t) => {
  const { dir, store } = setup(t);
  const { reference } = await makeLayout(dir, {
    layers: [{ entries: [{ name: 'f', content: 'x' }] }, { entries: [{ name: 'g', content: 'y' }] }],
  });
  const { prepared } = await prepare(store, reference);
  const [first, second] = prepared.layers;
  if (first === undefined || second === undefined) throw new Error('no layers');
  const damaged = [join(first.directory, 'chunks'), join(second.directory, 'tree.erofs'), second.mapPath];
  for (const path of damaged) {
    const good = readFileSync(path);
    for (const bad of [Buffer.alloc(0), good.subarray(0, -1), Buffer.alloc(good.length)]) {
      writeFileSync(path, bad);
      rmSync(prepared.treePath);
      const again = (await prepare(store, reference)).prepared;
      t.match(again.notes, [/was damaged, and has been made anew/], path);
      t.ok(readFileSync(path).equals(good));
    }
  }
  for (const path of damaged) writeFileSync(path, '');
  rmSync(prepared.treePath);
  t.equal((await prepare(store, reference)).prepared.notes.length, 3, 'all at once');
  t.same(readdirSync(join(store.path, 'tmp')), []);
});
