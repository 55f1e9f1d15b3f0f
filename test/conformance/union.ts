/** W: whiteouts, opaque directories and what a layer does to the layers below (image-spec layer.md). */
import { manyLayers, type Case, type LayerOfCase } from './case.js';

const base = ['a/', 'a/b/', 'a/b/c/', 'a/b/c/bar=bar'];
const etc: LayerOfCase = ['etc/', 'etc/hosts=127.0.0.1', 'etc/issue=base'];

/** 80 KB together. */
const longNames = Array.from({ length: 400 }, (_, i) => `${'n'.repeat(200)}${i}`);

export const unionCases: readonly Case[] = [
  {
    id: 'W001',
    what: "the specification's example: a file and a directory are deleted",
    layers: [
      ['file1=1', 'a/', 'a/file=2', 'b/', 'b/file=3', 'c/', 'c/file3=3', 'c/file4=4'],
      ['.wh.file1', '.wh.b', 'a/.wh.file'],
    ],
    tree: `
      /a/
      /c/
      /c/file3 "3"
      /c/file4 "4"`,
  },
  {
    id: 'W002',
    what: "the specification's opaque directory, its marker first",
    layers: [base, ['a/.wh..wh..opq', 'a/', 'a/b/', 'a/b/c/', 'a/b/c/foo=foo']],
    tree: `
      /a/
      /a/b/
      /a/b/c/
      /a/b/c/foo "foo"`,
  },
  {
    id: 'W003',
    what: 'the same, its marker last',
    layers: [base, ['a/', 'a/b/', 'a/b/c/', 'a/b/c/foo=foo', 'a/.wh..wh..opq']],
    tree: `
      /a/
      /a/b/
      /a/b/c/
      /a/b/c/foo "foo"`,
  },
  {
    id: 'W004',
    what: 'a whiteout before a new file of that name',
    layers: [['f=old'], ['.wh.f', 'f=new']],
    tree: '/f "new"',
    differs: 'go-containerregistry drops the new file; a whiteout hides lower files only.',
  },
  {
    id: 'W005',
    what: 'a whiteout after a new file of that name',
    layers: [['f=old'], ['f=new', '.wh.f']],
    tree: '/f "new"',
    differs:
      "containerd's native snapshotter, moby and containers/storage delete the file, their overlay ways fail with EEXIST; umoci keeps it, as the specification says: a whiteout hides lower files only, wherever it stands.",
  },
  {
    id: 'W006',
    what: 'a directory is deleted and made again in one layer',
    layers: [
      ['d/', 'd/old=old', 'd/sub/', 'd/sub/old=old'],
      ['.wh.d', 'd/', 'd/new=new'],
    ],
    tree: `
      /d/
      /d/new "new"`,
    differs: 'On overlayfs containerd, moby and containers/storage let the old children shine through; umoci does not.',
  },
  {
    id: 'W006b',
    what: 'the same, the whiteout last',
    layers: [
      ['d/', 'd/old=old'],
      ['d/', 'd/new=new', '.wh.d'],
    ],
    tree: `
      /d/
      /d/new "new"`,
    differs: 'As W005.',
  },
  {
    id: 'W007',
    what: 'a directory is deleted and has a new file, without an entry of its own',
    layers: [
      [{ name: 'd/', type: 'directory', mode: 0o700, uid: 5 }, 'd/old=old'],
      ['.wh.d', 'd/new=new'],
    ],
    tree: `
      /d/
      /d/new "new"`,
    differs: 'On overlayfs containerd, moby and containers/storage fail with ENOTDIR; umoci unpacks it.',
  },
  {
    id: 'W008',
    what: 'a directory is deleted, and a file in it too',
    layers: [
      ['d/', 'd/x=x'],
      ['.wh.d', 'd/.wh.x'],
    ],
    tree: '',
    differs: 'On overlayfs containerd fails with ENOTDIR; containers/storage passes it over.',
  },
  {
    id: 'W009',
    what: 'the whiteout of what is not there makes no directories',
    layers: [['f=x'], ['no/such/.wh.thing']],
    tree: '/f "x"',
    differs:
      'containerd, moby and containers/storage make the parents; umoci does not: the layer has no entry for them.',
  },
  {
    id: 'W010',
    what: 'an opaque marker in a directory that is not there',
    layers: [['f=x'], ['no/such/.wh..wh..opq']],
    tree: '/f "x"',
    differs: 'As W009.',
  },
  {
    id: 'W011',
    what: 'an opaque marker below a lower file',
    layers: [['f=x'], ['f/.wh..wh..opq']],
    tree: '/f "x"',
    differs: 'containerd, moby and containers/storage fail with ENOTDIR; umoci leaves the file.',
  },
  {
    id: 'W012',
    what: 'an opaque marker after files in directories without entries',
    layers: [base, ['a/b/new/foo=foo', 'a/.wh..wh..opq']],
    tree: `
      /a/
      /a/b/
      /a/b/new/
      /a/b/new/foo "foo"`,
    differs:
      "containerd's native snapshotter, moby and containers/storage remove the new files with their implied directories; umoci keeps them.",
  },
  {
    id: 'W013',
    what: 'an opaque root',
    layers: [
      [...base, 'f=x'],
      ['new=new', '.wh..wh..opq'],
    ],
    tree: '/new "new"',
  },
  {
    id: 'W014a',
    what: 'a whiteout of nothing',
    layers: [['f'], ['.wh.']],
    error: 'WHITEOUT_INVALID',
    differs: 'moby and containers/storage remove the directory that it is in; the specification says to refuse.',
  },
  {
    id: 'W014b',
    what: 'the same in a directory',
    layers: [['d/', 'd/f'], ['d/.wh.']],
    error: 'WHITEOUT_INVALID',
    differs: 'As W014a.',
  },
  {
    id: 'W015a',
    what: 'a whiteout of "."',
    layers: [['f'], ['.wh..']],
    error: 'WHITEOUT_INVALID',
    differs: 'umoci would remove the directory, or its parent, even above the root; containerd refuses.',
  },
  {
    id: 'W015b',
    what: 'a whiteout of ".."',
    layers: [['f'], ['.wh...']],
    error: 'WHITEOUT_INVALID',
    differs: 'As W015a.',
  },
  {
    id: 'W015c',
    what: 'a whiteout of ".." in a directory',
    layers: [['d/f'], ['d/.wh...']],
    error: 'WHITEOUT_INVALID',
    differs: 'As W015a.',
  },
  {
    id: 'W016',
    what: "AUFS' own files",
    layers: [['f=x'], ['.wh..wh.aufs', '.wh..wh.orph/', 'd/.wh..wh.aufs']],
    tree: '/f "x"',
    note: /a name that starts with \.wh\. is hidden/,
    differs: 'moby leaves them out at the top only, umoci and containerd take them for whiteouts of .wh.aufs.',
  },
  {
    id: 'W017',
    what: "a hard link into AUFS' directory of links",
    layers: [['.wh..wh.plnk/', '.wh..wh.plnk/1.2=linked', 'f => .wh..wh.plnk/1.2']],
    tree: '/f "linked"',
    note: /a name that starts with \.wh\. is hidden/,
    differs: 'umoci and containerd show the directory; moby and containers/storage hide it and link to it.',
  },
  {
    id: 'W018a',
    what: 'a whiteout that is a directory',
    layers: [['f', 'g'], ['.wh.f/']],
    tree: '/g',
    note: /a whiteout is not an empty file/,
  },
  {
    id: 'W018b',
    what: 'a whiteout that is a symlink',
    layers: [['f', 'g'], ['.wh.f -> g']],
    tree: '/g',
    note: /a whiteout is not an empty file/,
  },
  {
    id: 'W018c',
    what: 'a whiteout with content',
    layers: [
      ['f', 'g'],
      ['.wh.f=content', 'h=x'],
    ],
    tree: `
      /g
      /h "x"`,
    note: /a whiteout is not an empty file/,
  },
  {
    id: 'W019',
    what: 'a file below a name that starts like a whiteout',
    layers: [['etc/', 'etc/f'], ['.wh.etc/somefile=x']],
    tree: `
      /etc/
      /etc/f`,
    note: /a name that starts with \.wh\. is hidden/,
    differs: 'containerd and umoci show /.wh.etc/somefile; the specification says that no such name can exist.',
  },
  {
    id: 'W020',
    what: 'the whiteout of a symlink leaves what it names',
    layers: [['etc/', 'etc/f=x', 'link -> etc'], ['.wh.link']],
    tree: `
      /etc/
      /etc/f "x"`,
  },
  {
    id: 'W021',
    what: 'a whiteout through a symlink to a directory',
    layers: [['etc/', 'etc/f=x', 'etc/g', 'local -> etc'], ['local/.wh.f']],
    tree: `
      /etc/
      /etc/g
      /local -> etc`,
    differs:
      "containerd's native snapshotter and umoci follow the link, overlayfs puts a directory in its place (P007).",
  },
  {
    id: 'W022',
    what: 'a whiteout through a symlink to nothing',
    layers: [['f', 'dead -> no/such'], ['dead/.wh.f']],
    tree: `
      /dead -> no/such
      /f`,
  },
  {
    id: 'W023',
    what: 'a whiteout by a path with ".."',
    layers: [etc, ['dne/../.wh.etc']],
    tree: '',
  },
  {
    id: 'W024',
    what: 'deleted by the second layer, added again by the third',
    layers: [['f=1'], ['.wh.f'], ['f=3']],
    tree: '/f "3"',
  },
  {
    id: 'W025',
    what: 'deleted by the second layer, the third makes its directory opaque',
    layers: [
      ['d/', 'd/f=1', 'd/g=1'],
      ['d/.wh.f', 'd/h=2'],
      ['d/.wh..wh..opq', 'd/i=3'],
    ],
    tree: `
      /d/
      /d/i "3"`,
  },
  {
    id: 'W026',
    what: 'the same layer twice',
    layers: [
      ['d/', 'd/f=x', 'l => d/f'],
      ['d/', 'd/f=x', 'l => d/f'],
    ],
    tree: `
      /d/
      /d/f #1 "x"
      /l #1 "x"`,
  },
  {
    id: 'W026b',
    what: 'the same layer twice, with one between that deletes',
    layers: [['d/', 'd/f=x'], ['.wh.d'], ['d/', 'd/f=x']],
    tree: `
      /d/
      /d/f "x"`,
  },
  {
    id: 'W027',
    what: 'names that only look like whiteouts',
    layers: [
      ['.hidden=1', '.whatever=2', 'hatever=3', '.wh=4'],
      ['.whx=5', 'x.wh.hatever=6'],
    ],
    tree: `
      /.hidden "1"
      /.wh "4"
      /.whatever "2"
      /.whx "5"
      /hatever "3"
      /x.wh.hatever "6"`,
  },
  {
    id: 'W028',
    what: 'no marker can be seen, listed or opened',
    layers: [
      ['d/', 'd/f=x'],
      ['d/.wh.f', 'd/.wh..wh..opq', 'd/g=y'],
    ],
    tree: `
      /d/
      /d/g "y"`,
    observe: [
      {
        command: ['sh', '-c', 'ls -a d; cat d/.wh.f d/.wh..wh..opq 2>&1; stat d/.wh..wh..opq 2>&1; true'],
        prints: /^\.\n\.\.\ng\n.*No such file.*\n.*No such file.*\n.*No such file.*\n$/,
      },
    ],
  },
  {
    id: 'W029',
    what: 'an entry for a lower directory gives it new attributes',
    layers: [
      [
        {
          name: 'd/',
          type: 'directory',
          mode: 0o700,
          uid: 1,
          gid: 2,
          mtime: new Date(5000),
          pax: { 'SCHILY.xattr.user.a': '1' },
        },
        'd/f=x',
      ],
      [
        {
          name: 'd/',
          type: 'directory',
          mode: 0o1777,
          uid: 3,
          gid: 4,
          mtime: new Date(9000),
          pax: { 'SCHILY.xattr.user.b': '2' },
        },
        'd/g=y',
      ],
    ],
    tree: `
      /d/ 01777 3:4 @9 user.b="2"
      /d/f "x"
      /d/g "y"`,
    differs: 'containerd, moby and containers/storage leave the attribute user.a; the specification says: replaced.',
  },
  {
    id: 'W030',
    what: 'a child added without an entry for its directory',
    layers: [
      [
        {
          name: 'd/',
          type: 'directory',
          mode: 0o700,
          uid: 1,
          gid: 2,
          mtime: new Date(5000),
          pax: { 'SCHILY.xattr.user.a': '1' },
        },
      ],
      ['d/f=x', 'd/e/f=y'],
    ],
    tree: `
      /d/ 0700 1:2 @5 user.a="1"
      /d/e/
      /d/e/f "y"
      /d/f "x"`,
    differs:
      'moby and containers/storage on overlayfs show 0755 root instead of the lower directory; umoci and containerd keep it.',
  },
  {
    id: 'W031',
    what: 'every type over every other',
    layers: [
      [
        'file-dir=x',
        'dir-file/',
        'dir-file/sub/',
        'dir-file/sub/f',
        'dir-link/',
        'dir-link/f',
        'link-dir -> t',
        'link-file -> t',
        't/',
        't/f=t',
        'file-link=x',
        { name: 'file-fifo' },
        { name: 'dir-chr/', type: 'directory' },
      ],
      [
        'file-dir/',
        'dir-file=y',
        'dir-link -> t',
        'link-dir/',
        'link-dir/g',
        'link-file=z',
        'file-link -> t',
        { name: 'file-fifo', type: 'fifo' },
        { name: 'dir-chr', type: 'character-device', devmajor: 1, devminor: 5 },
      ],
    ],
    tree: `
      /dir-chr chr(1,5)
      /dir-file "y"
      /dir-link -> t
      /file-dir/
      /file-fifo fifo
      /file-link -> t
      /link-dir/
      /link-dir/g
      /link-file "z"
      /t/
      /t/f "t"`,
  },
  {
    id: 'W032',
    what: 'a file, then a file below it, in one layer',
    layers: [['a=x', 'a/b=y']],
    tree: `
      /a/
      /a/b "y"`,
    differs:
      'umoci 0.4, containerd, moby and containers/storage fail with ENOTDIR; later umoci puts a directory in place of the file. A later entry replaces, as the specification has it.',
  },
  {
    id: 'W032b',
    what: 'a lower file, and a file below it',
    layers: [['a=x'], ['a/b=y']],
    tree: `
      /a/
      /a/b "y"`,
    differs:
      "umoci 0.4 and containerd's native snapshotter fail with ENOTDIR; later umoci and overlayfs show the directory.",
  },
  {
    id: 'W033a',
    what: 'continuity: basic changes',
    layers: [
      [
        'etc/',
        'etc/hosts=one',
        'etc/hosts.allow => etc/hosts',
        'usr/',
        'usr/local/',
        'usr/local/lib/',
        'usr/local/lib/so=00',
        'usr/local/lib/so.2 -> so',
        'home/',
      ],
      [
        'etc/',
        'etc/hosts=two',
        'usr/',
        'usr/local/',
        'usr/local/lib/',
        'usr/local/lib/so=000',
        { name: 'home/derek/', type: 'directory', mode: 0o700, uid: 1000, gid: 1000 },
      ],
      ['etc/.wh.hosts', 'home/derek/.bashrc=x', 'usr/local/lib/.wh.so.2'],
    ],
    tree: `
      /etc/
      /etc/hosts.allow "one"
      /home/
      /home/derek/ 0700 1000:1000
      /home/derek/.bashrc "x"
      /usr/
      /usr/local/
      /usr/local/lib/
      /usr/local/lib/so "000"`,
  },
  {
    id: 'W033b',
    what: 'continuity: deletion',
    layers: [
      ['test/somedir/', 'test/somedir/f=x', 'test/other/', 'lib/', 'lib/hidden'],
      ['test/.wh.somedir', 'lib/.wh.hidden', 'lib/not-hidden'],
    ],
    tree: `
      /lib/
      /lib/not-hidden
      /test/
      /test/other/`,
  },
  {
    id: 'W033c',
    what: 'continuity: update',
    layers: [
      ['etc/', 'etc/hosts=old', 'etc/config=old'],
      ['etc/hosts=updated'],
      [{ name: 'etc/config', content: 'new', mode: 0o600 }],
    ],
    tree: `
      /etc/
      /etc/config 0600 "new"
      /etc/hosts "updated"`,
  },
  {
    id: 'W033d',
    what: 'continuity: a new hard link to an unmodified lower file',
    layers: [
      ['etc/', 'etc/hosts=x'],
      ['etc/', 'etc/hosts=x', 'etc/hosts.allow => etc/hosts'],
    ],
    tree: `
      /etc/
      /etc/hosts #1 "x"
      /etc/hosts.allow #1 "x"`,
  },
  {
    id: 'W033e',
    what: 'continuity: linked before, unmodified',
    layers: [['etc/', 'etc/hosts=x', 'etc/hosts.allow => etc/hosts'], ['etc/other=y']],
    tree: `
      /etc/
      /etc/hosts #1 "x"
      /etc/hosts.allow #1 "x"
      /etc/other "y"`,
  },
  {
    id: 'W033f',
    what: 'continuity: linked before, both names modified',
    layers: [
      ['etc/', 'etc/hosts=x', 'etc/hosts.allow => etc/hosts'],
      ['etc/hosts=new', 'etc/hosts.allow => etc/hosts'],
    ],
    tree: `
      /etc/
      /etc/hosts #1 "new"
      /etc/hosts.allow #1 "new"`,
  },
  {
    id: 'W033g',
    what: 'continuity: directory permissions change',
    layers: [
      ['d1/', 'd1/f', 'd2/'],
      [
        { name: 'd1/', type: 'directory', mode: 0o700 },
        { name: 'd2/', type: 'directory', mode: 0o711, uid: 7 },
      ],
    ],
    tree: `
      /d1/ 0700
      /d1/f
      /d2/ 0711 7:0`,
  },
  {
    id: 'W033h',
    what: "continuity: a parent's permissions survive a new child",
    layers: [
      [
        { name: 'd/', type: 'directory', mode: 0o700 },
        { name: 'd/e/', type: 'directory', mode: 0o751, gid: 9 },
      ],
      ['d/e/f=x'],
      ['d/e/g/h=y'],
    ],
    tree: `
      /d/ 0700
      /d/e/ 0751 0:9
      /d/e/f "x"
      /d/e/g/
      /d/e/g/h "y"`,
  },
  {
    id: 'W034a',
    what: 'go-containerregistry: a file deleted and one that stays',
    layers: [['foo.txt=foo', 'bar.txt=bar'], ['.wh.foo.txt']],
    tree: '/bar.txt "bar"',
  },
  {
    id: 'W034b',
    what: 'go-containerregistry: a directory deleted whose name begins another',
    layers: [['foo/', 'foo/f', 'foobar/', 'foobar/f', 'foo-bar'], ['.wh.foo']],
    tree: `
      /foo-bar
      /foobar/
      /foobar/f`,
  },
  {
    id: 'W034c',
    what: 'go-containerregistry: a file overwritten twice',
    layers: [['f=one'], ['f=two'], ['f=three']],
    tree: '/f "three"',
  },
  {
    id: 'W035a',
    what: 'fuse-overlayfs#151: a whiteout at the root hides nothing of that name elsewhere',
    layers: [['root/', 'root/test=x', 'test=y'], ['.wh.test']],
    tree: `
      /root/
      /root/test "x"`,
  },
  {
    id: 'W035b',
    what: 'fuse-overlayfs#425: an opaque directory hides lower files further down too',
    layers: [
      ['p/', 'p/setuptools/', 'p/setuptools/cache/', 'p/setuptools/cache/config=0'],
      ['p/setuptools/', 'p/setuptools/.wh..wh..opq', 'p/setuptools/cache/', 'p/setuptools/cache/depends=1'],
    ],
    tree: `
      /p/
      /p/setuptools/
      /p/setuptools/cache/
      /p/setuptools/cache/depends "1"`,
  },
  {
    id: 'W035c',
    what: 'fuse-overlayfs#136: deleted in one layer, made again in the next',
    layers: [['d1/', 'd1/d2/', 'd1/d2/foo'], ['.wh.d1'], ['d1/', 'd1/d2/']],
    tree: `
      /d1/
      /d1/d2/`,
  },
  {
    id: 'W036',
    what: '520 layers, more than overlayfs takes',
    layers: () => manyLayers(520),
    tree: Array.from({ length: 52 }, (_, i) => `/f${String(i).padStart(2, '0')} "${468 + i}"`).join('\n'),
    differs: 'overlayfs takes 500 lower directories at most, docker 127.',
  },
  {
    id: 'W037',
    what: 'whiteout and opaque marker together, and a lower symlink in their place',
    layers: [
      ['t/', 't/f=x', 'd -> t'],
      ['.wh.d', 'd/.wh..wh..opq', 'd/n=new'],
    ],
    tree: `
      /d/
      /d/n "new"
      /t/
      /t/f "x"`,
    differs: 'As W037b.',
  },
  {
    id: 'W037b',
    what: 'a whiteout below a name that the layer deletes, and a lower symlink in its place',
    layers: [
      ['t/', 't/f=x', 'd -> t'],
      ['d/.wh.f', '.wh.d'],
    ],
    tree: `
      /t/
      /t/f "x"`,
    differs:
      'An extractor that meets d/.wh.f first deletes /t/f; one that meets .wh.d first does not. Order must not matter.',
  },
  {
    id: 'W037c',
    what: 'the same in the other order',
    layers: [
      ['t/', 't/f=x', 'd -> t'],
      ['.wh.d', 'd/.wh.f'],
    ],
    tree: `
      /t/
      /t/f "x"`,
  },
  {
    id: 'W038',
    what: 'a directory becomes a symlink, and each of its files is whited out, 400 with long names, as umoci repack has it',
    layers: [
      ['d/', ...longNames.map((name) => `d/${name}`), 'e/', 'e/f=x'],
      ['d -> e', ...longNames.map((name) => `d/.wh.${name}`)],
    ],
    tree: `
      /d -> e
      /e/
      /e/f "x"`,
  },
  {
    id: 'W038b',
    what: 'the same, and the symlink leads to a file of such a name',
    layers: [
      ['d/', 'd/f=1', 'e/', 'e/f=2'],
      ['d -> e', 'd/.wh.f'],
    ],
    tree: `
      /d -> e
      /e/
      /e/f "2"`,
    differs:
      'umoci unpack deletes /e/f, which it has not deleted where it made the layer: a whiteout is of what the layers below have at its path.',
  },
];
