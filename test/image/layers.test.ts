/** provenance, origins and layerChanges where layers meet in odd ways; the merged tree itself is the judge of what is there. */
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { ErofsReader } from '../../src/erofs/reader.js';
import type { Inode } from '../../src/erofs/tree.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { compareImages, layerChanges } from '../../src/image/diff.js';
import { prepareImage, type PreparedImage } from '../../src/image/prepare.js';
import { origins, provenance } from '../../src/image/provenance.js';
import { realPath } from '../../src/image/real-path.js';
import { ImageTree } from '../../src/image/tree.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import { Store } from '../../src/store/store.js';
import { makeLayout, type ImageSpec } from '../support/images.js';
import { tempDir } from '../support/tmp.js';

async function prepared(
  t: Test,
  layers: readonly NonNullable<ImageSpec['layers'][number]['entries']>[],
): Promise<PreparedImage> {
  const directory = tempDir(t);
  const { reference } = await makeLayout(join(directory, 'image'), { layers: layers.map((entries) => ({ entries })) });
  const image = await resolveImage(parseReference(reference, '/'), {});
  return prepareImage(image, { store: Store.open(join(directory, 'store')), compat: 'spec' });
}

const dir = 'directory' as const;

t.test('a path that comes, goes and comes again', async (t) => {
  const image = await prepared(t, [
    [{ name: 'a/b/c', content: '1' }],
    [{ name: '.wh.a' }],
    [{ name: 'a/b/c', content: '333' }],
    [{ name: 'a', content: 'a file' }],
    [{ name: 'a/b/c', type: dir }],
  ]);
  const steps = (path: string): unknown[] =>
    provenance(image, 'spec', path).history.map(({ layer, change }) => [layer, change]);
  t.strictSame(steps('/a/b/c'), [
    [1, 'added'],
    [2, 'removed'],
    [3, 'added'],
    [4, 'removed'],
    [5, 'added'],
  ]);
  t.strictSame(steps('/a/b'), [
    [1, 'implied'],
    [2, 'removed'],
    [3, 'implied'],
    [4, 'removed'],
    [5, 'implied'],
  ]);
  const { layer, hidden } = provenance(image, 'spec', '/a/b/c');
  t.equal(layer, 5);
  t.match(hidden, [
    { layer: 1, by: 2, entry: { size: 1 } },
    { layer: 3, by: 4, entry: { size: 3 } },
  ]);
  t.strictSame(provenance(image, 'spec', '/nothing'), { layer: undefined, history: [], hidden: [] });
});

t.test('hard links into lower layers, and names that are replaced', async (t) => {
  const image = await prepared(t, [
    [{ name: 'x', content: 'x' }],
    [
      { name: 'y', type: 'link', linkname: 'x' },
      { name: 'x', content: 'new' },
    ],
  ]);
  const origin = origins(image, 'spec');
  t.strictSame([origin('/x'), origin('/y'), origin('/'), origin('/z')], [2, 2, undefined, undefined]);
  t.match(layerChanges(image, 'spec')[1]?.changes, [
    { path: '/x', kind: 'changed' },
    { path: '/y', kind: 'added' },
  ]);
});

t.test('every name of the merged tree has an origin, and each deletion is one', async (t) => {
  const image = await prepared(t, [
    [
      { name: 'usr/lib/a', content: 'a' },
      { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
      { name: 'd/x/y', content: '' },
      { name: 'd/z', content: '' },
    ],
    [
      { name: 'lib/.wh.a' },
      { name: 'lib/sub/b', content: 'b' },
      { name: 'd/.wh..wh..opq' },
      { name: 'd/.wh.z' },
      { name: 'd/x/new', content: '' },
    ],
  ]);
  const tree = ImageTree.open(image);
  t.teardown(() => tree.close());
  const origin = origins(image, 'spec');
  const walk = (nid: number, path: string): string[] =>
    tree.entries(nid).flatMap(({ name, nid: child, type }) => {
      const below = `${path}/${name}`;
      return [below, ...(type === 4 ? walk(child, below) : [])];
    });
  const paths = walk(1, '');
  t.ok(
    paths.every((path) => origin(path) !== undefined),
    paths.join(' '),
  );
  const { changes = [] } = layerChanges(image, 'spec')[1] ?? {};
  t.strictSame(
    changes.map(({ path, kind }) => `${kind} ${path}`),
    [
      'added /d/x/new',
      'deleted /d/x/y',
      'deleted /d/z',
      'deleted /usr/lib/a',
      'added /usr/lib/sub',
      'added /usr/lib/sub/b',
    ],
  );
  t.equal(realPath(tree, '/lib/sub/../../lib/./sub//b'), '/usr/lib/sub/b');
  t.equal(realPath(tree, '/lib', { followLast: false }), '/lib');
  t.equal(realPath(tree, '/lib/', { followLast: false }), '/usr/lib');
  t.equal(realPath(tree, '/../..'), '/');
  t.throws(() => realPath(tree, '/lib/nothing'), { code: 'PATH_NOT_FOUND' });
});

t.test('what a layer replaces itself is no step of its own', async (t) => {
  const image = await prepared(t, [
    [
      { name: 'd/x', content: '' },
      { name: 'd/y', content: '' },
      { name: 'e/f/z', content: '' },
      { name: 'l', type: 'symlink', linkname: 't' },
    ],
    [
      { name: 'd/new', content: '' },
      { name: 'd', content: 'a file' },
      { name: 'd', type: dir },
      { name: 'd/y', content: 'other' },
      { name: 'e/f', content: 'a file' },
      { name: 'e', content: 'a file' },
      { name: 'l/a', content: '1' },
      { name: 'l/a', content: '22' },
      { name: 'l', content: '' },
      { name: 'n', content: '' },
      { name: 'n/c', content: '' },
    ],
  ]);
  const steps = (path: string): unknown[] =>
    provenance(image, 'spec', path).history.map(({ layer, change }) => [layer, change]);
  t.strictSame(steps('/d'), [
    [1, 'implied'],
    [2, 'replaced'],
  ]);
  t.strictSame(steps('/d/x'), [
    [1, 'added'],
    [2, 'removed'],
  ]);
  t.strictSame(steps('/d/new'), []);
  t.strictSame(steps('/t/a'), [[2, 'added']]);
  t.strictSame(steps('/n'), [[2, 'implied']]);
  const origin = origins(image, 'spec');
  t.strictSame([origin('/t'), origin('/t/a'), origin('/d/x'), origin('/.wh..lamina')], [2, 2, undefined, undefined]);
  const { changes = [] } = layerChanges(image, 'spec')[1] ?? {};
  t.strictSame(
    changes.map(({ path, kind }) => `${kind} ${path}`),
    [
      'changed /d',
      'deleted /d/x',
      'changed /d/y',
      'changed /e',
      'changed /l',
      'added /n',
      'added /n/c',
      'added /t',
      'added /t/a',
    ],
  );
});

t.test('compareImages: a directory has more names than a call takes arguments', (t) => {
  const attributes = { uid: 0, gid: 0, mtime: 0, mtimeNsec: 0, size: 0, rdev: 0, order: 0 };
  const file: Inode = { ...attributes, mode: 0o100644, extents: [] };
  const treeOf = (count: number): ImageTree => {
    const children = new Map(Array.from({ length: count }, (_, i) => [`f${i}`, file]));
    const reader = new ErofsReader(
      Buffer.concat(encodeTree({ ...attributes, mode: 0o040755, children }, { devices: [] })),
    );
    // Of an image nothing else is looked at where nothing is in both.
    return Object.assign(Object.create(ImageTree.prototype) as ImageTree, { reader });
  };
  let added = 0;
  for (const { kind } of compareImages(treeOf(0), treeOf(200_000))) if (kind === 'added') added++;
  t.equal(added, 200_000);
  t.end();
});
