/** The trees of appc images (I023 to I026). The cases with names are those of appc/spec, pkg/acirenderer. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import { prepareImage } from '../../src/image/prepare.js';
import { ImageTree } from '../../src/image/tree.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import { readSealed } from '../../src/store/sealed.js';
import { Store } from '../../src/store/store.js';
import { directory, file, makeAci, type AciSpec } from '../support/aci.js';
import type { TarPart } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';
import { dump } from '../support/tree.js';

interface Case {
  /** By name, the lowest first: each may need those before it. */
  readonly deps?: Readonly<Record<string, AciSpec>>;
  readonly top: AciSpec;
}

async function open(t: Test, { deps = {}, top }: Case, compat: 'spec' | 'overlay' = 'spec'): Promise<ImageTree> {
  const dir = tempDir(t);
  for (const [name, spec] of Object.entries(deps)) {
    await makeAci(join(dir, 'deps', `${name}.aci`), { ...spec, manifest: { name, ...spec.manifest } });
  }
  const { path } = await makeAci(join(dir, 'top.aci'), top);
  const image = await resolveImage(parseReference(`aci:${path}`, '/'), { aciPath: [join(dir, 'deps')] });
  const tree = ImageTree.open(await prepareImage(image, { store: Store.open(join(dir, 'store')), compat }));
  t.teardown(() => tree.close());
  return tree;
}

const lines = (tree: ImageTree): string[] => dump(loadTree(new ErofsReader(readSealed(tree.prepared.treePath))));
const needs = (...names: string[]): { dependencies: { imageName: string }[] } => ({
  dependencies: names.map((imageName) => ({ imageName })),
});
const link = (name: string, linkname: string): TarPart => ({ name: `rootfs/${name}`, type: 'symlink', linkname });
const hard = (name: string, linkname: string): TarPart => ({ name: `rootfs/${name}`, type: 'link', linkname });
const five = 'hello';
const ten = 'hellohello';
const fifteen = 'hellohellohello';

t.test('rootfs/ is the root; whiteout names mean nothing; hard links have their targets', async (t) => {
  const entries = [
    file('etc/motd', 'hello'),
    hard('etc/again', 'rootfs/etc/motd'),
    file('etc/.wh.motd', 'a file'),
    file('.wh..wh..opq'),
    directory('.wh.dir'),
    file('.wh.dir/x', 'below it'),
    link('abs', '/etc/motd'),
    file('manifest', 'not that one'),
  ];
  const tree = await open(t, { top: { entries } });
  t.strictSame(lines(tree), [
    '/ 40755 0:0',
    '/.wh..wh..opq 100644 0:0 0',
    '/.wh.dir 40755 0:0',
    '/.wh.dir/x 100644 0:0 8',
    '/abs 120777 0:0 -> /etc/motd',
    '/etc 40755 0:0',
    '/etc/.wh.motd 100644 0:0 6',
    '/etc/again 100644 0:0 5 #1',
    '/etc/motd 100644 0:0 5 #1',
    '/manifest 100644 0:0 12',
  ]);
  t.equal(tree.readFile(tree.resolve('/.wh.dir/x'), 100).toString(), 'below it');
  t.equal(tree.readFile(tree.resolve('/abs'), 100).toString(), 'hello');
});

t.test('entries that are there twice, and hard links out of rootfs, are refused', async (t) => {
  const twice = [file('a', 'x'), file('a', 'y')];
  await t.rejects(open(t, { top: { entries: twice } }), { code: 'TAR_INVALID', message: /"\/a" twice/ });
  const directories = [directory('a'), file('a/b'), directory('a')];
  await t.rejects(open(t, { top: { entries: directories } }), { code: 'TAR_INVALID' });
  await t.rejects(open(t, { top: { entries: [directory('.')] } }), { code: 'TAR_INVALID', message: /"\/" twice/ });
  await t.rejects(open(t, { top: { entries: [hard('x', 'manifest')] } }), { code: 'LINK_INVALID', message: /rootfs/ });
});

t.test('the index of an archive is shared by the images that use it; the whitelist is theirs', async (t) => {
  const dir = tempDir(t);
  const store = Store.open(join(dir, 'store'));
  await makeAci(join(dir, 'base.aci'), { manifest: { name: 'base' }, entries: [file('a'), file('b')] });
  const names = async (pathWhitelist: string[]): Promise<string[]> => {
    const { path } = await makeAci(join(dir, 'x', 'top.aci'), { manifest: { ...needs('base'), pathWhitelist } });
    const image = await resolveImage(parseReference(`aci:${path}`, '/'), { aciPath: [dir] });
    const prepared = await prepareImage(image, { store, compat: 'spec' });
    cached.push(prepared.layers[0]?.cached ?? false);
    const tree = ImageTree.open(prepared);
    const list = [...tree.entries(1)].map(({ name }) => name);
    tree.close();
    return list;
  };
  const cached: boolean[] = [];
  t.strictSame(await names([]), ['a', 'b']);
  t.strictSame(await names(['/a']), ['a']);
  t.strictSame(await names(['/b']), ['b']);
  t.strictSame(cached, [false, true, true]);
});

t.test('rendering', async (t) => {
  const parentEntries = [
    file('a/file01.txt', five),
    file('a/file02.txt', five),
    file('a/file03.txt', five),
    link('b/link01.txt', 'file01.txt'),
    directory('c', 0o700),
    file('c/file01.txt', five, 0o700),
    directory('d', 0o700),
    file('d/file01.txt', five, 0o700),
    file('e/file01.txt', five, 0o700),
  ];
  const one = [
    file('a/file01.txt', five),
    file('a/file02.txt', five),
    file('a/file03.txt', five),
    file('a/file04.txt', five),
    link('b/link01.txt', 'file01.txt'),
  ];
  const two = [file('a/file01.txt', ten), file('a/file02.txt', ten), file('b/file01.txt', five)];
  const upper = [file('a/file01.txt', fifteen), file('b/file02.txt', five), file('c/file01.txt', five)];
  const upperList = [
    ...['/a/file01.txt', '/a/file02.txt', '/a/file03.txt', '/b/link01.txt'],
    ...['/b/file01.txt', '/b/file02.txt', '/c/file01.txt'],
  ];
  const oneList = [
    ...['/a/file01.txt', '/a/file02.txt', '/a/file03.txt', '/a/file04.txt'],
    ...['/b/link01.txt', '/b/file01.txt'],
  ];
  const rendered = [
    'a/',
    'a/file01.txt 15',
    'a/file02.txt 10',
    'a/file03.txt 5',
    'b/',
    'b/file01.txt 5',
    'b/file02.txt 5',
    'b/link01.txt ->',
    'c/',
    'c/file01.txt 5',
  ];
  const cases: Record<string, Case & { readonly expected: readonly string[] }> = {
    DirFromParent: {
      deps: { one: { entries: [directory('a')] } },
      top: { manifest: needs('one') },
      expected: ['a/'],
    },
    DirOverride: {
      deps: { one: { entries: [directory('a')] } },
      top: { manifest: needs('one'), entries: [directory('a', 0o700)] },
      expected: ['a/ 700'],
    },
    FileOverride: {
      deps: { one: { entries: [file('a/file01.txt', five)] } },
      top: { manifest: needs('one'), entries: [file('a/file01.txt', ten)] },
      expected: ['a/', 'a/file01.txt 10'],
    },
    FileOvverideDir: {
      deps: {
        one: { entries: [directory('a/b', 0o700), directory('a/b/c', 0o700), file('a/b/c/file01', five)] },
      },
      top: { manifest: needs('one'), entries: [file('a/b', ten)] },
      expected: ['a/', 'a/b 10'],
    },
    PWLOnlyParent: {
      deps: {
        one: {
          manifest: { pathWhitelist: ['/a/file01.txt', '/a/file02.txt', '/b/link01.txt', '/c/', '/d/'] },
          entries: parentEntries,
        },
      },
      top: { manifest: needs('one'), entries: [file('b/file01.txt', ten), file('c/file02.txt', five)] },
      expected: [
        ...['a/', 'a/file01.txt 5', 'a/file02.txt 5', 'b/', 'b/file01.txt 10', 'b/link01.txt ->'],
        ...['c/ 700', 'c/file02.txt 5', 'd/ 700'],
      ],
    },
    // acirenderer gives c the mode 0755 here: it leaves out directories that are not listed themselves, and makes them anew.
    PWLOnlyImage: {
      deps: { one: { entries: parentEntries } },
      top: {
        manifest: {
          ...needs('one'),
          pathWhitelist: [
            ...['/a/file01.txt', '/a/file02.txt', '/b/link01.txt'],
            ...['/b/file01.txt', '/c/file02.txt', '/d/'],
          ],
        },
        entries: [file('a/file01.txt', ten), file('c/file02.txt', five)],
      },
      expected: [
        'a/',
        'a/file01.txt 10',
        'a/file02.txt 5',
        'b/',
        'b/link01.txt ->',
        'c/ 700',
        'c/file02.txt 5',
        'd/ 700',
      ],
    },
    '2Deps1': {
      deps: { one: { manifest: { pathWhitelist: oneList }, entries: one }, two: { entries: two } },
      top: { manifest: { ...needs('one', 'two'), pathWhitelist: upperList }, entries: upper },
      expected: rendered,
    },
    '2Deps2': {
      deps: {
        one: { entries: one },
        two: { manifest: { pathWhitelist: ['/a/file01.txt', '/a/file02.txt', '/b/file01.txt'] }, entries: two },
      },
      top: { manifest: { ...needs('one', 'two'), pathWhitelist: upperList }, entries: upper },
      expected: rendered,
    },
    '3Deps': {
      deps: {
        one: { entries: one },
        three: {
          entries: [
            ...[file('a/file02.txt', five), file('b/file01.txt', five)],
            ...[directory('d', 0o700), file('d/file01.txt', five, 0o700)],
          ],
        },
        two: { manifest: needs('three'), entries: two },
      },
      top: { manifest: { ...needs('one', 'two'), pathWhitelist: upperList }, entries: upper },
      expected: rendered,
    },
    'a list that names nothing': {
      top: { manifest: { pathWhitelist: ['foo'] }, entries: [file('bar'), directory('baz')] },
      expected: [],
    },
    // acirenderer looks only at the uppermost list, and shows /x.
    'a path has to be in every list on the way': {
      deps: {
        three: { entries: [file('x'), file('y')] },
        two: { manifest: { ...needs('three'), pathWhitelist: ['/y', '/z'] }, entries: [file('z')] },
      },
      top: { manifest: { ...needs('two'), pathWhitelist: ['/x', '/y'] } },
      expected: ['y 0'],
    },
    'a symlink to a directory is replaced, not followed': {
      deps: { one: { entries: [directory('real'), file('real/x'), link('dir', 'real')] } },
      top: { manifest: needs('one'), entries: [directory('dir', 0o700), file('dir/y')] },
      expected: ['dir/ 700', 'dir/y 0', 'real/', 'real/x 0'],
    },
    'and where the upper image only implies the directory': {
      deps: { one: { entries: [directory('real'), link('dir', 'real')] } },
      top: { manifest: needs('one'), entries: [file('dir/y')] },
      expected: ['dir/', 'dir/y 0', 'real/'],
    },
    'a hard link to a file of a dependency': {
      deps: { one: { entries: [file('x', five)] } },
      top: { manifest: needs('one'), entries: [hard('y', 'rootfs/x')] },
      expected: ['x 5', 'y 5'],
    },
    'the same dependency twice': {
      deps: {
        base: { entries: [file('x', five), file('y', five)] },
        one: { manifest: needs('base'), entries: [file('x', ten)] },
      },
      top: { manifest: needs('one', 'base') },
      expected: ['x 5', 'y 5'],
    },
  };
  for (const [name, { expected, ...given }] of Object.entries(cases)) {
    await t.test(name, async (t) => {
      t.strictSame(
        lines(await open(t, given))
          .slice(1)
          .map(short),
        expected,
      );
      if (!name.startsWith('a symlink')) return;
      t.strictSame(
        lines(await open(t, given, 'overlay'))
          .slice(1)
          .map(short),
        expected,
        '--compat changes nothing',
      );
    });
  }
});

/** "a/ 700", "a/b 5", "a/l ->": mode of directories unless 755, size of files. */
function short(line: string): string {
  const [path = '', mode = '', , rest = ''] = line.split(' ');
  const name = path.slice(1);
  if (mode.startsWith('4')) return mode === '40755' ? `${name}/` : `${name}/ ${mode.slice(2)}`;
  return `${name} ${rest}`;
}
