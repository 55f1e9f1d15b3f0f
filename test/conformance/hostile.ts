/**
 * U: the archives that umoci tests its extraction with, hostile ones first, as layers. The facts are from its
 * oci/layer/tar_extract_test.go, which makes its entries in memory; the trees are those that it asks for.
 */
import { END, rawEntry, rawHeader } from '../support/tar.js';
import { raw, type Case } from './case.js';

const file = (name: string): Buffer => rawEntry({ name }, 'container content');

/** What a symlink `link` in the root names, before `link/file` is written. Each leads to the root itself. */
const linksOut: Readonly<Record<string, string>> = {
  U002a: '/',
  U002b: '/../',
  U002c: '/../../../../../../../../../../../../../../../',
  U002d: '/./.././.././.././.././.././.././.././.././../',
  U002e: '..',
};

export const hostileCases: readonly Case[] = [
  {
    id: 'U001a',
    what: 'umoci: a name that begins with /..',
    layers: [raw(file('/../file'), END)],
    tree: '/file "container content"',
    note: /a name points above the root/,
  },
  {
    id: 'U001b',
    what: 'umoci: a name that begins with ..',
    layers: [raw(file('../file'), END)],
    tree: '/file "container content"',
    note: /a name points above the root/,
  },
  ...Object.entries(linksOut).map(([id, target]): Case => ({
    id,
    what: `umoci: a file through a symlink to ${target}`,
    layers: [
      raw(rawHeader({ name: 'link', type: '2', linkname: target, mode: 0o777 }), END),
      raw(file('link/file'), END),
    ],
    tree: `
        /file "container content"
        /link -> ${target}`,
    differs: 'moby and containers/storage refuse links that lead out; umoci stays in the root, as here.',
  })),
  {
    id: 'U003',
    what: 'umoci: hard links whose targets are absolute or climb, with owners of their own that do not count',
    layers: [
      raw(
        rawEntry({ name: 'regular', uid: 7 }, 'x'),
        rawHeader({ name: 'hard link', type: '1', linkname: '/regular', uid: 1337, gid: 2020 }),
        rawHeader({ name: 'link', type: '2', linkname: '../../../regular', uid: 8, mode: 0o777 }),
        rawHeader({ name: 'hard link to symlink', type: '1', linkname: '../../../link', uid: 1337, gid: 2020 }),
        END,
      ),
    ],
    tree: `
      /hard\\x20link #1 7:0 "x"
      /hard\\x20link\\x20to\\x20symlink #2 8:0 -> ../../../regular
      /link #2 8:0 -> ../../../regular
      /regular #1 7:0 "x"`,
  },
  {
    id: 'U004',
    what: 'umoci: an opaque directory with lower symlinks that lead to the root and far above it: nothing there is touched',
    layers: [
      [
        'etc/',
        'etc/shadow=root',
        'keep=1',
        'd/',
        'd/link -> ..',
        'd/sub/',
        'd/sub/bad -> ../../../../../../etc/shadow',
      ],
      ['d/', 'd/.wh..wh..opq', 'd/bad -> /../../../../etc/shadow'],
    ],
    tree: `
      /d/
      /d/bad -> /../../../../etc/shadow
      /etc/
      /etc/shadow "root"
      /keep "1"`,
  },
  {
    id: 'U005',
    what: 'umoci: whiteouts of symlinks that name the root and a file above it, of a hidden file and of a full directory',
    layers: [
      ['etc/', 'etc/shadow=root', 'a -> /..', 'b -> ../../../etc/shadow', '.hidden=1', 'd/', 'd/.sub/', 'd/.sub/f=2'],
      ['.wh.a', '.wh.b', '.wh..hidden', '.wh.d'],
    ],
    tree: `
      /etc/
      /etc/shadow "root"`,
  },
  {
    id: 'U006',
    what: 'umoci: an opaque directory hides what is lower on every level, and what the layer itself has survives',
    layers: [
      ['d/', 'd/1=a', 'd/1a/', 'd/1a/2=a', 'd/1a/2a/', 'd/1a/2a/3=a', 'd/1a/2b/', 'd/1a/2b/3=a', 'd/1b/', 'd/1b/2/'],
      ['d/1a/2b/3=b', 'd/.wh..wh..opq', 'd/1a/up -> ../../../', 'd/some/dir/where=b'],
    ],
    tree: `
      /d/
      /d/1a/
      /d/1a/2b/
      /d/1a/2b/3 "b"
      /d/1a/up -> ../../../
      /d/some/
      /d/some/dir/
      /d/some/dir/where "b"`,
  },
  {
    id: 'U007',
    what: 'umoci: whiteouts in an opaque directory, of names that the layer has too, before and after them',
    layers: [
      ['d/', 'd/A=a', 'd/B=a', 'd/C=a', 'd/dir1/', 'd/dir1/f=a', 'd/dir2/', 'd/dir2/f=a', 'd/dir2/link -> ../bad'],
      [
        ...['d/.wh..wh..opq', 'd/.wh.B', 'd/A=b', 'd/B=b', 'd/.wh.A', 'd/.wh.C', 'd/.wh.dir2', 'd/dir1/', 'd/dir1/g=b'],
        ...['d/.wh.dir1', 'd/dir2/', 'd/dir2/g=b'],
      ],
    ],
    tree: `
      /d/
      /d/A "b"
      /d/B "b"
      /d/dir1/
      /d/dir1/g "b"
      /d/dir2/
      /d/dir2/g "b"`,
  },
  {
    id: 'U008',
    what: 'umoci: a file three directories below a name that is a file',
    layers: [['nondir=x', 'nondir/foo/bar/baz=y']],
    tree: `
      /nondir/
      /nondir/foo/
      /nondir/foo/bar/
      /nondir/foo/bar/baz "y"`,
    differs:
      'umoci 0.4, containerd, moby and containers/storage fail with ENOTDIR; later umoci makes directories (W032).',
  },
];
