/** Layers through the tar reader and the tree builder into the merge: what the specification's text says of each case. */
import t from 'tap';
import { LaminaError } from '../../src/errors.js';
import type { Inode } from '../../src/erofs/tree.js';
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { TreeBuilder } from '../../src/layer/tree-builder.js';
import type { TarEntry } from '../../src/tar/entry.js';
import { TarReader } from '../../src/tar/reader.js';
import { mergeLayers, type Compat } from '../../src/union/merge.js';
import { makeTar, paxEntry, rawHeader, type TarPart } from '../support/tar.js';
import { dump } from '../support/tree.js';

/** "path/" a directory, "path -> target" a symlink, "path => target" a hard link, "path=content" or "path" a file. */
function part(text: string): TarPart {
  const hard = text.split(' => ');
  if (hard[1] !== undefined) return { name: hard[0] ?? '', type: 'link', linkname: hard[1] };
  const soft = text.split(' -> ');
  if (soft[1] !== undefined) return { name: soft[0] ?? '', type: 'symlink', linkname: soft[1] };
  if (text.endsWith('/')) return { name: text, type: 'directory' };
  const [name = '', content = ''] = text.split('=');
  return { name, content };
}

async function layer(parts: readonly (string | TarPart)[]): Promise<Inode> {
  const reader = new TarReader((entry) => builder.add(entry));
  const builder = new TreeBuilder(reader.notes);
  reader.push(await makeTar(parts.map((p) => (typeof p === 'string' ? part(p) : p))));
  reader.end();
  const { root } = builder.finish(1 << 20);
  // Through the form on disk, as it is merged in earnest.
  return loadTree(new ErofsReader(Buffer.concat(encodeTree(root, { devices: [1 << 20] }))));
}

/** The merged tree: file lines shortened to "path size", "path/" and so on. */
async function merged(layers: readonly (readonly (string | TarPart)[])[], compat: Compat = 'spec'): Promise<string[]> {
  const trees: Inode[] = [];
  for (const parts of layers) trees.push(await layer(parts));
  return dump(mergeLayers(trees, compat))
    .slice(1)
    .map((line) => {
      const [path = '', mode = '', , ...rest] = line.split(' ');
      if (mode.startsWith('4')) return `${path}/`;
      return [path, ...rest].join(' ');
    });
}

async function code(layers: readonly (readonly (string | TarPart)[])[]): Promise<string> {
  try {
    await merged(layers);
  } catch (e) {
    return e instanceof LaminaError ? e.code : String(e);
  }
  return 'no error';
}

t.test('whiteouts act on the layers below and on nothing else', async (t) => {
  const base = ['a/', 'a/b/', 'a/b/c/', 'a/b/c/bar=1', 'file1=1', 'file2=1'];
  t.same(await merged([base, ['.wh.file1']]), ['/a/', '/a/b/', '/a/b/c/', '/a/b/c/bar 1', '/file2 1']);
  t.same(await merged([base, ['.wh.a']]), ['/file1 1', '/file2 1'], 'a directory with all in it');
  t.same(
    await merged([base, ['.wh.file1', 'file1=22']]).then((l) => l.at(-2)),
    '/file1 2',
    'before a new file of the name',
  );
  t.same(await merged([base, ['file1=22', '.wh.file1']]).then((l) => l.at(-2)), '/file1 2', 'after it');
  t.same(await merged([base, ['.wh.a', 'a/', 'a/new=1']]).then((l) => l.slice(0, 2)), ['/a/', '/a/new 1']);
  t.same(
    await merged([base, ['.wh.a', 'a/new=1']]).then((l) => l.slice(0, 2)),
    ['/a/', '/a/new 1'],
    'without an entry for the directory',
  );
  t.same(await merged([base, ['.wh.a', 'a/.wh.b']]), ['/file1 1', '/file2 1']);
  t.same(await merged([base, ['a/.wh.b', '.wh.a']]), ['/file1 1', '/file2 1']);
  t.same(
    await merged([base, ['x/y/.wh.nothing']]),
    await merged([base]),
    'of what is not there, and no parents appear',
  );
  t.same(
    await merged([base, ['.wh.file1'], ['file1=333']]).then((l) => l.at(-2)),
    '/file1 3',
    'added again by a later layer',
  );
  t.same(await merged([['f=1'], ['.wh.f'], ['g=1']]), ['/g 1']);
  t.same(await merged([['s -> t', 't=1'], ['.wh.s']]), ['/t 1'], 'a symlink, not its target');
  t.same(
    await merged([['etc/', 'etc/x=1', 'local -> etc'], ['local/.wh.x']]),
    ['/etc/', '/local -> etc'],
    'through a symlink below',
  );
  t.same(await merged([['etc=1'], ['dne/../.wh.etc']]), [], 'names are cleaned first');
  t.same(await merged([['.whatever=1', '.hidden=1'], ['.whx=1']]), ['/.hidden 1', '/.whatever 1', '/.whx 1']);
});

t.test('an opaque directory hides what is below it wherever its marker stands', async (t) => {
  const base = ['a/', 'a/b/', 'a/b/c/', 'a/b/c/bar=1'];
  const upper = ['a/', 'a/b/', 'a/b/c/', 'a/b/c/foo=1'];
  const only = ['/a/', '/a/b/', '/a/b/c/', '/a/b/c/foo 1'];
  t.same(await merged([base, ['a/.wh..wh..opq', ...upper]]), only, 'first');
  t.same(await merged([base, [...upper, 'a/.wh..wh..opq']]), only, 'last');
  t.same(await merged([base, ['a/b/c/foo=1', 'a/.wh..wh..opq']]), only, 'with implied directories');
  t.same(await merged([base, ['none/.wh..wh..opq']]), await merged([base]), 'where nothing is');
  t.same(await merged([['f=1'], ['f/.wh..wh..opq']]), ['/f 1'], 'over a file');
  t.same(await merged([base, ['.wh..wh..opq', 'new=1']]), ['/new 1'], 'the root');
  t.same(await merged([base, ['a/b/.wh.c'], ['a/.wh..wh..opq']]), ['/a/']);
  t.same(
    await merged([
      ['d/', 'd/x=1', 'l -> d'],
      ['l/', 'l/.wh..wh..opq', 'l/n=1'],
    ]),
    ['/d/', '/d/x 1', '/l/', '/l/n 1'],
    'a new directory over a symlink',
  );
});

t.test('whiteout names that mean nothing are refused or hidden', async (t) => {
  for (const name of ['.wh.', '.wh..', '.wh...', 'd/.wh.', 'd/.wh..'])
    t.equal(await code([[name]]), 'WHITEOUT_INVALID', name);
  t.same(
    await merged([
      ['x=1'],
      ['.wh..wh.aufs', '.wh..wh.orph/', '.wh..wh.plnk/', '.wh..wh.plnk/1=content', 'a => .wh..wh.plnk/1'],
    ]),
    ['/a 7', '/x 1'],
  );
  t.same(await merged([['.wh.dir/file=1', 'x=1']]), ['/x 1'], 'below such a name');
  t.same(await merged([['l -> .wh.b', 'l/file=1']]), ['/l -> .wh.b'], 'where a symlink leads');
  t.same(await merged([['l -> .wh.b'], ['l/file=1']]), ['/l -> .wh.b'], 'where one of a lower layer leads');
  t.same(await merged([['d/', 'd/f=1'], [{ name: '.wh.d', type: 'directory' }]]), [], 'a whiteout that is a directory');
  t.same(await merged([['f=1'], ['.wh.f=content']]), [], 'a whiteout with content');
});

t.test('entries replace what they meet, directories keep their children', async (t) => {
  t.same(
    await merged([
      ['d/', 'd/a=1'],
      ['d/', 'd/b=1'],
    ]),
    ['/d/', '/d/a 1', '/d/b 1'],
  );
  t.same(await merged([['d/', 'd/a=1'], ['d=22']]), ['/d 2']);
  t.same(await merged([['d=1'], ['d/', 'd/a=1']]), ['/d/', '/d/a 1']);
  t.same(await merged([['d=1'], ['d/a=1']]), ['/d/', '/d/a 1']);
  t.same(await merged([['d/', 'd/a=1'], ['d -> x']]), ['/d -> x']);
  t.same(await merged([['f=1', 'f/child=1']]), ['/f/', '/f/child 1'], 'in one layer too');
  t.same(await merged([['f=1', 'f=22']]), ['/f 2'], 'of two entries the last');
  t.same(await merged([['d/', 'd/x=1', 'd=1', 'd/']]), ['/d/']);
  t.same(await merged([['./', './a=1', '/b=1', 'c//d=1', '../../e=1', 'x/../f=1']]), [
    '/a 1',
    '/b 1',
    '/c/',
    '/c/d 1',
    '/e 1',
    '/f 1',
  ]);
  t.same(await merged([]), [], 'no layer');
  t.equal(await code([[rawHeader({ name: './', type: '2', linkname: 'x' })]]), 'TAR_INVALID');
});

t.test('directories keep or change their attributes', async (t) => {
  const dir = (mode: number, uid: number, mtime: number): TarPart => ({
    name: 'd',
    type: 'directory',
    mode,
    uid,
    mtime: new Date(mtime * 1000),
  });
  const attributes = async (...layers: (string | TarPart)[][]): Promise<string | undefined> => {
    const root = mergeLayers(await Promise.all(layers.map((l) => layer(l))), 'spec');
    const d = root.children?.get('d');
    return d === undefined
      ? undefined
      : `${d.mode.toString(8)} ${d.uid} ${d.mtime} ${[...(d.xattrs?.keys() ?? [])].join()}`;
  };
  t.equal(await attributes([dir(0o700, 5, 9)], ['d/f=1']), '40700 5 9 ', 'implied: as below');
  t.equal(await attributes([dir(0o700, 5, 9)], [dir(0o711, 6, 10)]), '40711 6 10 ', 'of its own: as the entry says');
  t.equal(await attributes(['d/f=1']), '40755 0 0 ', 'implied and nothing below');
  t.equal(
    await attributes([paxEntry({ 'SCHILY.xattr.user.a': '1' }), dir(0o700, 5, 9)], [dir(0o700, 5, 9)]),
    '40700 5 9 ',
    'xattrs go with them',
  );
  t.equal(await attributes([dir(0o700, 1, 1), dir(0o711, 2, 2)]), '40711 2 2 ', 'of two entries the last');
  const root = mergeLayers(
    [await layer([{ name: './', type: 'directory', mode: 0o555, uid: 3 }]), await layer(['x=1'])],
    'spec',
  );
  t.match(root, { mode: 0o40555, uid: 3 }, 'the root too');
});

t.test('symlinks on the way are followed inside the image, or replaced in the overlay way', async (t) => {
  const base = ['usr/', 'usr/lib/', 'usr/lib/a=1', 'lib -> usr/lib'];
  t.same(await merged([base, ['lib/x=1']]), ['/lib -> usr/lib', '/usr/', '/usr/lib/', '/usr/lib/a 1', '/usr/lib/x 1']);
  t.same(await merged([base, ['lib/x=1']], 'overlay'), ['/lib/', '/lib/x 1', '/usr/', '/usr/lib/', '/usr/lib/a 1']);
  t.same(
    await merged([base, ['lib/', 'lib/x=1']]),
    ['/lib/', '/lib/x 1', '/usr/', '/usr/lib/', '/usr/lib/a 1'],
    'an entry for the directory replaces the link',
  );
  t.same(
    await merged([base, ['lib/x=1', 'lib/']]),
    ['/lib/', '/usr/', '/usr/lib/', '/usr/lib/a 1', '/usr/lib/x 1'],
    'in the order of the archive',
  );
  t.same(
    await merged([['l -> /abs/d', 'l/x=1']]),
    ['/abs/', '/abs/d/', '/abs/d/x 1', '/l -> /abs/d'],
    'made in the same layer',
  );
  t.same(await merged([['l -> ../../..', 'l/x=1']]), ['/l -> ../../..', '/x 1'], 'never above the root');
  t.same(await merged([['d/', 'l -> d'], ['l/../x=1']]), ['/d/', '/l -> d', '/x 1'], 'names are cleaned by the letter');
  t.equal(await code([['a -> b', 'b -> a', 'a/x=1']]), 'PATH_LOOP');
  t.equal(await code([['a -> b', 'b -> a'], ['a/x=1']]), 'PATH_LOOP');
  t.same(await merged([['dangling -> no/where'], ['dangling/x=1']]), [
    '/dangling -> no/where',
    '/no/',
    '/no/where/',
    '/no/where/x 1',
  ]);
});

t.test('hard links share an inode, within a layer and with the layers below', async (t) => {
  t.same(await merged([['a=1', 'b => a', 'c => b']]), ['/a 1 #1', '/b 1 #1', '/c 1 #1']);
  t.same(await merged([['a=1'], ['b => a']]), ['/a 1 #1', '/b 1 #1'], 'to a lower file');
  t.same(await merged([['a=1'], ['b => a', 'a=22']]), ['/a 2', '/b 1'], 'which is replaced then');
  t.same(await merged([['b => a', 'a=1']]), ['/a 1 #1', '/b 1 #1'], 'before its target');
  const chain = ['a => s/b', 'd/b => s/c', 'd/c => s/e', 'x/y => d/b', 'd/e=1'];
  for (const order of [chain, chain.toReversed().slice(1), [...chain.slice(1, 4), 'a => s/b']]) {
    t.same(
      await merged([['d/', 's -> d', ...order, ...(order === chain ? [] : ['d/e=1'])]]),
      ['/a 1 #1', '/d/', '/d/b 1 #1', '/d/c 1 #1', '/d/e 1 #1', '/s -> d', '/x/', '/x/y 1 #1'],
      'one before the other, through a symlink',
    );
  }
  t.same(
    await merged([['d/', 'a => t/f', 'b => a', 't => s', 's -> d', 'd/f=1']]),
    ['/a 1 #1', '/b 1 #1', '/d/', '/d/f 1 #1', '/s -> d #2', '/t -> d #2'],
    'and through one that is such a link itself',
  );
  t.same(await merged([['a=1', 'b => a', 'a=22']]), ['/a 2', '/b 1'], 'the old content stays in the link');
  t.same(await merged([['a=1', 'b => a'], ['a=22']]), ['/a 2', '/b 1']);
  t.same(await merged([['d/', 'd/a=1', 'l -> d', 'b => /l/a', 'c => ../../d/a']]), [
    '/b 1 #1',
    '/c 1 #1',
    '/d/',
    '/d/a 1 #1',
    '/l -> d',
  ]);
  t.same(
    await merged([['s -> nowhere', 'h => s']]),
    ['/h -> nowhere #1', '/s -> nowhere #1'],
    'to a symlink: the link itself',
  );
  t.same(await merged([['a=1'], ['x/y/b => a']]), ['/a 1 #1', '/x/', '/x/y/', '/x/y/b 1 #1']);
  t.same(await merged([['a=1', 'b => a', 'b => a']]), ['/a 1 #1', '/b 1 #1'], 'twice');
  t.same(await merged([['a=1', 'b => a', 'a => b']]), ['/a 1 #1', '/b 1 #1'], 'to each other');
  for (const bad of [
    [['b => a']],
    [['a=1'], ['.wh.a', 'b => a']],
    [['d/', 'b => d']],
    [['d/'], ['b => d']],
    [['a=1', 'a => a']],
    [['a=1'], ['a => a']],
    [['d/', 'd/a=1', 'l -> d', 'd/a => l/a']],
    [['d/', 'l -> d', 'a => l/b', 'd/b => l/a']],
    [['b => /']],
  ]) {
    t.equal(await code(bad), 'LINK_INVALID', JSON.stringify(bad));
  }
});

t.test('150,000 hard links wait for one name', (t) => {
  const of = { mode: 0o100644, uid: 0, gid: 0, mtime: 0, mtimeNsec: 0, size: 0, rdev: 0, extents: [] };
  const link = (order: number, path: string): Inode => ({
    ...of,
    order,
    xattrs: new Map([['trusted.lamina.link', Buffer.from(path)]]),
  });
  const children = new Map(Array.from({ length: 150_000 }, (_, i) => [`a${i}`, link(i + 1, '/m')]));
  children.set('m', link(150_001, '/z')).set('z', { ...of, order: 150_002 });
  const root = mergeLayers([{ ...of, mode: 0o040755, order: 0, children }], 'spec').children;
  t.equal(new Set(root?.values()).size, 1);
  t.equal(root?.size, 150_002);
  t.end();
});

t.test('what a layer replaces itself counts for what came in between', async (t) => {
  const base = ['l -> t', 'low=333'];
  t.same(await merged([base, ['l/a=1', 'b => t/a', 'l/a/']]), ['/b 1', '/l -> t', '/low 3', '/t/', '/t/a/']);
  t.same(
    await merged([base, ['l/a=1', 'b => t/a', 'l/a=22', 'c => t/a', 'l/a => low']]),
    ['/b 1', '/c 2', '/l -> t', '/low 3 #1', '/t/', '/t/a 3 #1'],
    'as often as it does',
  );
  t.same(
    await merged([base, ['t/a=1', 'l/a=22', 'b => t/a']]),
    ['/b 2 #1', '/l -> t', '/low 3', '/t/', '/t/a 2 #1'],
    'a link means what is there, though the layer has put it there by another name',
  );
  t.same(
    await merged([base, ['l/a/b=1', 'l/a=22', 'l/a/c=1', 'x => t/a/c', 'l/a=333']]),
    ['/l -> t', '/low 3', '/t/', '/t/a 3', '/x 1'],
    'directories that are only implied',
  );
  t.same(await merged([base, ['b => later', 'later=1', 'b=22']]), ['/b 2', '/l -> t', '/later 1', '/low 3']);
  t.same(
    await merged([
      ['d/', 't/x=1', 't/y/z=1', 'l -> t'],
      ['d/l/.wh..wh..opq', 'd=1', 'l/', 'l/y=1', 'l/y/.wh.z', 'l/.wh.x', 'l/y=22'],
    ]),
    ['/d 1', '/l/', '/l/y 2', '/t/', '/t/x 1', '/t/y/', '/t/y/z 1'],
    'whiteouts below a directory of its own are not of what a lower symlink of its name leads to',
  );
  t.same(
    await merged([base, ['b => later', 'c => b', 'later=1', 'b=22']]),
    ['/b 2', '/c 1 #1', '/l -> t', '/later 1 #1', '/low 3'],
    'a target that comes later',
  );
  t.same(await merged([base, ['b => nothing', 'b=22']]), ['/b 2', '/l -> t', '/low 3'], 'or never');
  t.same(
    await merged([['x -> .'], ['d/', 'x/d=1', 'd/', 'd/f=1']]),
    ['/d/', '/d/f 1', '/x -> .'],
    'a directory that comes again',
  );
  t.same(
    await merged([
      ['t/', 'a -> t'],
      ['.wh.a', 'a/x=1', 'a=22'],
    ]),
    ['/a 2', '/t/'],
    'whiteouts come first',
  );
  t.same(
    await merged([
      ['d/', 'd/low=1'],
      ['d=1', 'd/', '.wh..lamina/0/.wh.d', '.wh..lamina/0/d=1', '.wh..lamina='],
    ]),
    ['/d/'],
    'and no image can have what says so',
  );
});

t.test('what goes through a symlink of its layer is where the layers below lead it', async (t) => {
  const base = ['e/', 'e/s/', 'd -> e/s'];
  const lines = ['/d -> e/s', '/e/'];
  t.same(await merged([base, ['x -> d/../a', 'x/f=1']]), [...lines, '/e/a/', '/e/a/f 1', '/e/s/', '/x -> d/../a']);
  t.same(await merged([['x -> d/../a', 'x/f=1']]), ['/a/', '/a/f 1', '/x -> d/../a'], 'without any');
  t.same(
    await merged([base, ['d/x -> ../a', 'd/x/f=1']]),
    [...lines, '/e/a/', '/e/a/f 1', '/e/s/', '/e/s/x -> ../a'],
    'from a directory that is only implied',
  );
  t.same(
    await merged([base, ['d/', 'd/x -> ../a', 'd/x/f=1']]),
    ['/a/', '/a/f 1', '/d/', '/d/x -> ../a', '/e/', '/e/s/'],
    "or is the layer's own",
  );
  const links = ['x -> d/../a', 'x/f=1', 'x/f=22', 'i => x/f', 'x/g => i', 'x/sub/', 'x/sub/k=333'];
  t.same(
    await merged([base, ['g=4444', 'h => x/f', ...links, 'x/sub/k=55555', 'e/a/j => x/sub/k']]),
    [
      ...lines,
      '/e/a/',
      '/e/a/f 2 #1',
      '/e/a/g 2 #1',
      '/e/a/j 5 #2',
      '/e/a/sub/',
      '/e/a/sub/k 5 #2',
      '/e/s/',
      '/g 4',
      '/h 2 #1',
      '/i 2 #1',
      '/x -> d/../a',
    ],
    'with hard links and what is replaced',
  );
  t.same(
    await merged([base, ['a/g=4444', 'b => a/g', ...links, 'a/l -> ../q', 'a/l/m=1']], 'overlay'),
    [
      '/a/',
      '/a/f 2 #1',
      '/a/g 2 #1',
      '/a/l -> ../q',
      '/a/sub/',
      '/a/sub/k 3',
      '/b 4',
      ...lines,
      '/e/s/',
      '/i 2 #1',
      '/q/',
      '/q/m 1',
      '/x -> d/../a',
    ],
    'but not where the layers are laid over each other',
  );
  t.same(await merged([base, ['x -> d/../a', 'x/.wh.y/f=1', 'x/.wh.z']]), [...lines, '/e/s/', '/x -> d/../a']);
});

t.test('a directory has more hard links than one attribute has room for', async (t) => {
  const names = Array.from({ length: 1000 }, (_, i) => `${'n'.repeat(200)}${i}`);
  const links = names.map((name) => `${name} => f`);
  t.equal(await code([['f=1', ...links]]), 'no error');
  const [last = ''] = names.slice(-1);
  const both = await merged([[`${last}=22`], ['f=1', ...links, `g => ${last}`]]);
  t.ok(
    both.every((line) => line.endsWith(' 1 #1')),
    'nor is a lower file taken for one of them',
  );
  t.same(await merged([['f=1', ...links, ...links]]), await merged([['f=1', ...links]]), 'all of them replaced');
  // What comes before the directory goes where the lower symlink leads.
  for (const some of [names.slice(0, 3), names]) {
    const inDirectory = some.map((name) => `d/${name} => f`);
    const lines = await merged([
      ['e/', 'd -> e'],
      ['f=1', ...inDirectory, 'd/'],
    ]);
    t.equal(lines.filter((line) => line.startsWith('/e/n')).length, some.length);
    t.equal(lines.filter((line) => line.startsWith('/d/n')).length, 0);
  }
  const whitedOut = names.slice(0, 400);
  const whiteouts = whitedOut.flatMap((name) => [`d/${name}=`, `d/.wh.${name}`]);
  const lower = whitedOut.map((name) => `e/${name}/x=1`);
  const over = await merged([[...lower, 'd -> e'], whiteouts]);
  t.equal(over.length, whitedOut.length + 2);
  t.equal(over.filter((line) => line.endsWith(' 0')).length, whitedOut.length, 'what a name whites out is gone');
});

t.test('a directory becomes a symlink, and each of its many files is whited out', async (t) => {
  const names = Array.from({ length: 400 }, (_, i) => `${'n'.repeat(200)}${i}`);
  const base = ['d/', 'd/s/', ...names.map((name) => `d/${name}`), 'e/', `e/${names[9]}=22`];
  const whiteouts = names.map((name) => `d/.wh.${name}`);
  const after = ['/d -> e', '/e/', `/e/${names[9]} 2`];
  t.same(await merged([base, ['d -> e', ...whiteouts, 'd/s/.wh..wh..opq', 'd/.wh.s']]), after);
  t.same(await merged([base, [...whiteouts, 'd -> e', 'd/.wh.s', 'd/s/.wh.f']]), after, 'the symlink last');
  const through = await merged([
    ['e/', 'e/f=1', 'e/g=1', 'e/s/x=1', 'd -> e'],
    ['.wh.d', 'd/.wh.f', 'd/s/.wh..wh..opq'],
  ]);
  t.same(through, ['/e/', '/e/f 1', '/e/g 1', '/e/s/', '/e/s/x 1'], 'below a whiteout nothing is followed');
  const far = `${`${'n'.repeat(200)}/`.repeat(1000)}.wh.x`;
  t.equal(
    await code([base, ['d -> e', paxEntry({ path: `d/${far}` }), rawHeader({})]]),
    'no error',
    'a path of 200 KB',
  );
});

t.test('a tree from before whiteouts without a place had a tree', async (t) => {
  const root = await layer(['d -> e']);
  root.xattrs = new Map([['trusted.lamina.detached', Buffer.from('d/f\0d/o/.wh..wh..opq\0g')]]);
  const base = await layer(['d -> k', 'k/', 'k/f=1', 'k/g=1', 'k/o/x=1', 'e/', 'e/f=1', 'g=1']);
  const names = dump(mergeLayers([base, root], 'spec')).map((line) => line.split(' ')[0]);
  t.same(names, ['/', '/d', '/e', '/e/f', '/k', '/k/g', '/k/o']);
});

t.test('a tree from before what is superseded was kept', async (t) => {
  const root = await layer(['d/', 'd/f=1']);
  const d = root.children?.get('d');
  if (d !== undefined) d.xattrs = new Map([['trusted.lamina.whiteout', Buffer.from('y')]]);
  const names = dump(mergeLayers([await layer(['d/', 'd/low=1']), root], 'spec')).map((line) => line.split(' ')[0]);
  t.same(names, ['/', '/d', '/d/f']);
});

t.test('a layer cannot cost much more than its bytes', async (t) => {
  const deep = 'd/'.repeat(2000);
  const chain = Array.from({ length: 20 }, (_, i) => `s${i} -> ${i === 0 ? '' : `s${i - 1}/`}${deep}`);
  t.equal(await code([[...chain, 's19/x=1']]), 'PATH_LOOP', 'symlinks that make one path of many');
  t.equal(await code([chain, ['s19/x=1']]), 'PATH_LOOP');
  t.equal(await code([[...chain.slice(0, 1), 's0/x=1'], ['s0/y=1']]), 'no error', 'but 2000 directories are fine');
  const whiteout = [paxEntry({ path: `${'a/'.repeat(10_000)}.wh.x` }), rawHeader({})];
  t.equal(await code([whiteout]), 'LIMIT_EXCEEDED', 'a whiteout deeper than any file can be');

  const value = Buffer.alloc(60_000);
  const attributes = Object.fromEntries(Array.from({ length: 15 }, (_, i) => [`SCHILY.xattr.trusted.${i}`, value]));
  const reader = new TarReader((entry) => builder.add(entry));
  const builder = new TreeBuilder(reader.notes);
  const entry = Buffer.concat([paxEntry(attributes), rawHeader({})]);
  t.throws(
    () => {
      for (let i = 0; i < 2000; i++) reader.push(entry);
    },
    { code: 'LIMIT_EXCEEDED' },
    'attributes, if they are dropped',
  );
  const empty = Object.fromEntries(Array.from({ length: 7000 }, (_, i) => [`SCHILY.xattr.trusted.${i}`, '']));
  const entries: TarEntry[] = [];
  const one = new TarReader((found) => entries.push(found));
  one.push(Buffer.concat([paxEntry(empty), rawHeader({})]));
  const another = new TreeBuilder(one.notes);
  t.throws(
    () => {
      for (let i = 0; i < 1000; i++) for (const found of entries) another.add(found);
    },
    { code: 'LIMIT_EXCEEDED' },
    'attributes without a value too',
  );

  // Each link would map the 20,000 runs again: 40 million of them, 8 s.
  const runs = Array.from({ length: 20_000 }, (_, i) => ({
    offset: i * 1024,
    length: 512,
    device: 1,
    position: i * 512,
  }));
  const attributesOf = { uid: 0, gid: 0, mtime: 0, mtimeNsec: 0, rdev: 0, order: 1 };
  const file: Inode = { ...attributesOf, mode: 0o100644, size: 20_000 * 1024, extents: runs };
  const names = new Map(Array.from({ length: 2000 }, (_, i) => [`link${i}`, file]));
  const started = process.cpuUsage();
  const root = mergeLayers([{ ...attributesOf, mode: 0o040755, size: 0, children: names }], 'spec');
  t.equal(root.children?.size, 2000);
  t.ok(process.cpuUsage(started).user < 3_000_000, 'links to one sparse file');
});

t.test('metadata that would harm or cannot be is dropped or refused', async (t) => {
  const withXattrs = [
    paxEntry({
      'SCHILY.xattr.user.ok': '1',
      'SCHILY.xattr.security.capability': 'cap',
      'SCHILY.xattr.trusted.overlay.opaque': 'y',
      'SCHILY.xattr.user.overlay.opaque': 'y',
      'SCHILY.xattr.security.selinux': 'label',
    }),
    'f=1',
  ];
  t.same(await merged([withXattrs]), ['/f 1 security.capability=cap user.ok=1']);
  t.same(await merged([[paxEntry({ 'SCHILY.xattr.user.x': '1' }), 's -> t']]), ['/s -> t']);
  t.same(
    await merged([
      [rawHeader({ name: 'dev', type: '3' })],
      [rawHeader({ name: 'n', type: '4', devmajor: 7, devminor: 300 })],
    ]),
    ['/dev', `/n rdev ${(300 & 0xff) | (7 << 8) | ((300 & ~0xff) << 12)}`],
    'a device 0:0 is no whiteout',
  );
  t.equal(await code([[rawHeader({ name: 'n', type: '3', devmajor: 4096 })]]), 'METADATA_INVALID');
  t.equal(await code([[{ name: `d/${'n'.repeat(256)}`, content: '' }]]), 'METADATA_INVALID');
  t.same(await merged([[{ name: 'n'.repeat(255), content: '' }]]), [`/${'n'.repeat(255)} 0`]);
  t.equal(await code([[rawHeader({ name: 's', type: '2' })]]), 'LINK_INVALID', 'a symlink to nothing');
  t.equal(
    await code([[paxEntry({ linkpath: 'x'.repeat(4096) }), rawHeader({ name: 's', type: '2' })]]),
    'LINK_INVALID',
  );
  t.equal(await code([[paxEntry({ path: 'a/'.repeat(9000) }), rawHeader({ name: 'f' })]]), 'LIMIT_EXCEEDED');
});
