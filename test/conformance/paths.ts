/** P: paths, symlinks and hard links. Nothing may leave the root, and links stay what the archive says they are. */
import { END, gnuLong, paxEntry, rawEntry, rawHeader } from '../support/tar.js';
import { raw, type Case } from './case.js';

const file = (name: string, content = ''): Buffer => rawEntry({ name }, content);
const symlink = (name: string, linkname: string): Buffer => rawHeader({ name, type: '2', linkname, mode: 0o777 });
const usr = ['usr/', 'usr/lib/', 'usr/lib/old=old', 'lib -> usr/lib'];
/** 25 components of 200 bytes: a path of 5,025. */
const LONG = Array.from({ length: 25 }, () => 'p'.repeat(200));
const longTree = LONG.map((_, i) => `/${LONG.slice(0, i + 1).join('/')}/`).join('\n');

/** More than 64 KiB of names, in order. */
const MANY_NAMES = Array.from({ length: 400 }, (_, i) => `${i + 100}-${'n'.repeat(180)}`);

export const pathCases: readonly Case[] = [
  {
    id: 'P001',
    what: 'names with ./, /, //, /./ and a trailing /',
    layers: [['./a/', './a/b=1', '/c=2', '//d//e=3', 'f/./g=4', 'h//']],
    tree: `
      /a/
      /a/b "1"
      /c "2"
      /d/
      /d/e "3"
      /f/
      /f/g "4"
      /h/`,
  },
  {
    id: 'P002a',
    what: 'names that climb above the root',
    layers: [raw(file('../x', '1'), file('a/../../y', '2'), file('/../z', '3'), END)],
    tree: `
      /x "1"
      /y "2"
      /z "3"`,
    note: /a name points above the root and is taken below it/,
    differs:
      'moby, containers/storage and go-containerregistry refuse such layers; umoci and containerd take the name below the root, as here.',
  },
  {
    id: 'P002b',
    what: 'a directory "..": the root',
    layers: [raw(rawHeader({ name: '../', type: '5', mode: 0o700 }), END)],
    tree: '/ 0700',
    note: /a name points above the root/,
  },
  {
    id: 'P002c',
    what: 'a file that is the root',
    layers: [raw(file('./', 'x'), END)],
    error: 'TAR_INVALID',
    differs: 'umoci refuses as we do; containerd, moby and containers/storage pass over it.',
  },
  {
    id: 'P002d',
    what: 'names are cleaned before any symlink is looked at',
    layers: [['d/', 'd/e/', 'l -> d/e', 'l/../f=x']],
    tree: `
      /d/
      /d/e/
      /f "x"
      /l -> d/e`,
  },
  {
    id: 'P003a',
    what: 'a file through an absolute symlink',
    layers: [['etc/', 'localetc -> /etc', 'localetc/unbroken=x']],
    tree: `
      /etc/
      /etc/unbroken "x"
      /localetc -> /etc`,
  },
  {
    id: 'P003b',
    what: 'a file through a symlink that goes up and out',
    layers: [['etc/', 'dummy/', 'dummy/out -> ../../../../etc', 'dummy/out/unbroken=x']],
    tree: `
      /dummy/
      /dummy/out -> ../../../../etc
      /etc/
      /etc/unbroken "x"`,
    differs: 'moby and containers/storage refuse links that lead out; umoci and containerd stay in the root, as here.',
  },
  {
    id: 'P003c',
    what: 'a file through several absolute symlinks',
    layers: [['etc/', 'localetc -> /localetc2', 'localetc2 -> /etc', 'localetc/unbroken=x']],
    tree: `
      /etc/
      /etc/unbroken "x"
      /localetc -> /localetc2
      /localetc2 -> /etc`,
  },
  {
    id: 'P003d',
    what: 'a file through several relative symlinks',
    layers: [['dummy/', 'localetc -> localetc2', 'localetc2 -> ./dummy/../etc', 'localetc/unbroken=x']],
    tree: `
      /dummy/
      /etc/
      /etc/unbroken "x"
      /localetc -> localetc2
      /localetc2 -> ./dummy/../etc`,
  },
  {
    id: 'P003e',
    what: 'a file over a symlink replaces the link, not what it names',
    layers: [['etc/', 'etc/emptied=notempty', 'localetc -> etc/emptied'], ['localetc']],
    tree: `
      /etc/
      /etc/emptied "notempty"
      /localetc`,
  },
  {
    id: 'P004a',
    what: 'a directory entry through a symlink, and a file in it',
    layers: [['localetc -> /etc', 'localetc/subdir/', 'localetc/subdir/unbroken=x']],
    tree: `
      /etc/
      /etc/subdir/
      /etc/subdir/unbroken "x"
      /localetc -> /etc`,
  },
  {
    id: 'P004b',
    what: 'an entry of an empty name through a symlink: the link itself is replaced by a directory',
    layers: [['etc/', 'etc/f=x', 'localetc -> etc', 'localetc/']],
    tree: `
      /etc/
      /etc/f "x"
      /localetc/`,
  },
  {
    id: 'P004c',
    what: 'a symlink to a directory that a later entry makes',
    layers: [['dummy/', 'dummy/link -> ../etc', 'dummy/link/f=x', 'etc/', 'etc/g=y']],
    tree: `
      /dummy/
      /dummy/link -> ../etc
      /etc/
      /etc/f "x"
      /etc/g "y"`,
  },
  {
    id: 'P004d',
    what: 'a symlink whose target ends in a slash',
    layers: [['etc/', 'localetc -> /etc/', 'localetc/f=x', 'dot -> ./', 'dot/g=y']],
    tree: `
      /dot -> ./
      /etc/
      /etc/f "x"
      /g "y"
      /localetc -> /etc/`,
  },
  {
    id: 'P005a',
    what: 'a symlink replaces a lower directory, later files go where it points',
    layers: [
      ['etc/', 'etc/old=x', 'usr/'],
      ['etc -> /usr', 'etc/new=y'],
    ],
    tree: `
      /etc -> /usr
      /usr/
      /usr/new "y"`,
  },
  {
    id: 'P005b',
    what: 'the same with a relative symlink, in a subdirectory and within one layer',
    layers: [['a/etc/', 'a/etc/old=x', 'a/usr/', 'a/etc -> ../a/usr', 'a/etc/new=y']],
    tree: `
      /a/
      /a/etc -> ../a/usr
      /a/usr/
      /a/usr/new "y"`,
  },
  {
    id: 'P006',
    what: 'directory, symlink, directory under one name',
    layers: [['d/', 'd/a=1', 't/', 'd -> t', 'd/b=2', 'd/', 'd/c=3']],
    tree: `
      /d/
      /d/c "3"
      /t/
      /t/b "2"`,
  },
  {
    id: 'P007a',
    what: 'lib/x over lower lib -> usr/lib, without an entry for lib',
    layers: [usr, ['lib/x=new']],
    tree: `
      /lib -> usr/lib
      /usr/
      /usr/lib/
      /usr/lib/old "old"
      /usr/lib/x "new"`,
    differs:
      "umoci and containerd's native snapshotter follow the link, as the specification's text has it; docker, podman and containerd on overlayfs put a directory lib in its place (P007b; rules_oci#857, kaniko#1038). --compat overlay does what they do.",
  },
  {
    id: 'P007b',
    what: 'the same, as overlayfs shows it',
    compat: 'overlay',
    layers: [usr, ['lib/x=new']],
    tree: `
      /lib/
      /lib/x "new"
      /usr/
      /usr/lib/
      /usr/lib/old "old"`,
    differs: 'As P007a.',
  },
  {
    id: 'P007c',
    what: 'a whiteout and an opaque marker through a lower symlink, as overlayfs shows it',
    compat: 'overlay',
    layers: [usr, ['lib/.wh.old']],
    tree: `
      /lib -> usr/lib
      /usr/
      /usr/lib/
      /usr/lib/old "old"`,
    differs:
      'An extractor onto overlayfs makes a directory lib for the whiteout, which hides the link; we make none for a whiteout (W009).',
  },
  {
    id: 'P008',
    what: 'a directory entry over a lower symlink replaces it',
    layers: [usr, ['lib/', 'lib/x=new']],
    tree: `
      /lib/
      /lib/x "new"
      /usr/
      /usr/lib/
      /usr/lib/old "old"`,
    differs: 'umoci has an option to keep such links (--keep-dirlinks), off by default.',
  },
  {
    id: 'P009a',
    what: 'symlinks that lead to each other, in one layer',
    layers: [['a -> b', 'b -> a', 'a/f']],
    error: 'PATH_LOOP',
    differs: 'All fail, after 255 links or 40.',
  },
  { id: 'P009b', what: 'the same, through a lower layer', layers: [['a -> a'], ['a/f']], error: 'PATH_LOOP' },
  {
    id: 'P009c',
    what: 'symlinks that lead to each other, of which nothing is made',
    layers: [['a -> b', 'b -> a', 'c -> c/c']],
    tree: '/a -> b\n/b -> a\n/c -> c/c',
  },
  {
    id: 'P010',
    what: 'a lower symlink that escapes, then a deletion and a file through it',
    layers: [
      ['etc/', 'etc/passwd=x', 'out -> ../../../../../etc'],
      ['out/.wh.passwd', 'out/new=y'],
    ],
    tree: `
      /etc/
      /etc/new "y"
      /out -> ../../../../../etc`,
  },
  {
    id: 'P011',
    what: 'a hard link within a layer',
    layers: [['a=x', 'd/', 'd/b => a', 'c => d/b']],
    tree: `
      /a #1 "x"
      /c #1 "x"
      /d/
      /d/b #1 "x"`,
  },
  {
    id: 'P012',
    what: 'hard link targets that are absolute, climb or are not clean',
    layers: [['a=x', 'b => /a', 'c => ../../../a', 'd => .//x/../a']],
    tree: `
      /a #1 "x"
      /b #1 "x"
      /c #1 "x"
      /d #1 "x"`,
    differs: 'kaniko writes absolute targets; moby failed on them until go-archive#99.',
  },
  {
    id: 'P013',
    what: 'a hard link to a symlink, absolute and relative, links the symlink',
    layers: [['etc/', 'etc/f=x', 'abs -> /etc/f', 'rel -> etc/f', 'h1 => abs', 'h2 => rel']],
    tree: `
      /abs #1 -> /etc/f
      /etc/
      /etc/f "x"
      /h1 #1 -> /etc/f
      /h2 #2 -> etc/f
      /rel #2 -> etc/f`,
  },
  {
    id: 'P014',
    what: 'a hard link to a symlink whose target comes later',
    layers: [['s -> etc/f', 'h => s', 'etc/f=x']],
    tree: `
      /etc/
      /etc/f "x"
      /h #1 -> etc/f
      /s #1 -> etc/f`,
  },
  {
    id: 'P014b',
    what: 'a hard link through symlinked directories',
    layers: [['usr/lib/', 'usr/lib/f=x', 'lib -> /usr/lib', 'h => lib/f', 'lib/g => usr/lib/f']],
    tree: `
      /h #1 "x"
      /lib -> /usr/lib
      /usr/
      /usr/lib/
      /usr/lib/f #1 "x"
      /usr/lib/g #1 "x"`,
  },
  {
    id: 'P015',
    what: 'a hard link in a directory without an entry',
    layers: [['a=x', 'no/entry/b => a']],
    tree: `
      /a #1 "x"
      /no/
      /no/entry/
      /no/entry/b #1 "x"`,
  },
  {
    id: 'P016',
    what: "a hard link to a lower layer's file",
    layers: [[{ name: 'd/a', content: 'x', uid: 7, mode: 0o600, mtime: new Date(3000) }], ['b => d/a']],
    tree: `
      /b 0600 7:0 @3 #1 "x"
      /d/
      /d/a 0600 7:0 @3 #1 "x"`,
    differs:
      'umoci and the single-directory extractors link it; on overlayfs containerd, moby and podman fail with ENOENT.',
  },
  {
    id: 'P016b',
    what: "a hard link to a lower layer's file through a lower symlink",
    layers: [['usr/lib/f=x', 'lib -> usr/lib'], ['h => lib/f']],
    tree: `
      /h #1 "x"
      /lib -> usr/lib
      /usr/
      /usr/lib/
      /usr/lib/f #1 "x"`,
    differs: 'As P016.',
  },
  {
    id: 'P016c',
    what: 'hard links that come before the directory that takes the place of a lower symlink, more than an attribute has room for',
    layers: [
      ['e/', 'd -> e'],
      ['a=x', ...MANY_NAMES.map((name) => `d/${name} => a`), 'd/', 'd/b=y'],
    ],
    tree: ['/a #1 "x"', '/d/', '/d/b "y"', '/e/', ...MANY_NAMES.map((name) => `/e/${name} #1 "x"`)].join('\n'),
  },
  {
    id: 'P017',
    what: 'a hard link to a file that the layer deletes',
    layers: [['a=x'], ['.wh.a', 'b => a']],
    error: 'LINK_INVALID',
    differs: 'Extractors link it or fail by the order of the two. Whiteouts act first, so the target is not there.',
  },
  {
    id: 'P018',
    what: 'a hard link before its target',
    layers: [['h => a', 'a=x']],
    tree: `
      /a #1 "x"
      /h #1 "x"`,
    differs: 'umoci, containerd and moby fail; containers/storage puts such links off, as here.',
  },
  {
    id: 'P018b',
    what: 'hard links before their target, one of the other',
    layers: [['h1 => h2', 'h2 => a', 'a=x']],
    tree: `
      /a #1 "x"
      /h1 #1 "x"
      /h2 #1 "x"`,
    differs: 'As P018.',
  },
  {
    id: 'P019',
    what: 'a hard link to nothing',
    layers: [['f'], ['h => no/such']],
    error: 'LINK_INVALID',
    differs: 'All fail, but go-containerregistry, which hands it on.',
  },
  { id: 'P020a', what: 'a hard link to a directory', layers: [['d/', 'h => d']], error: 'LINK_INVALID' },
  { id: 'P020b', what: 'a hard link to a lower directory', layers: [['d/'], ['h => d']], error: 'LINK_INVALID' },
  {
    id: 'P020c',
    what: 'a hard link to itself',
    layers: [['h => h']],
    error: 'LINK_INVALID',
    differs: 'umoci, containerd and moby remove the name and then fail; ratarmount passes over it.',
  },
  {
    id: 'P020d',
    what: 'a hard link of an existing name to itself',
    layers: [['h=x', 'h => h']],
    error: 'LINK_INVALID',
    differs: 'As P020c.',
  },
  { id: 'P020e', what: 'hard links to each other', layers: [['a => b', 'b => a']], error: 'LINK_INVALID' },
  { id: 'P020f', what: 'a hard link to the root', layers: [['h => /']], error: 'LINK_INVALID' },
  {
    id: 'P021',
    what: 'a linked name is written again later in the layer: the link keeps the old file',
    layers: [['a=old', 'h => a', 'a=new']],
    tree: `
      /a "new"
      /h "old"`,
  },
  {
    id: 'P022',
    what: 'an upper layer replaces one of two linked names',
    layers: [['a=x', 'b => a', 'c => a'], ['a=new'], ['.wh.b']],
    tree: `
      /a "new"
      /c "x"`,
  },
  {
    id: 'P023',
    what: 'a chain of hard links',
    layers: [['a=x', 'b => a', 'c => b', 'd => c']],
    tree: `
      /a #1 "x"
      /b #1 "x"
      /c #1 "x"
      /d #1 "x"`,
  },
  {
    id: 'P023b',
    what: 'hard links to a device, a fifo and a file with attributes',
    layers: [
      [
        { name: 'c', type: 'character-device', devmajor: 1, devminor: 3 },
        { name: 'p', type: 'fifo' },
        { name: 'f', content: 'x', pax: { 'SCHILY.xattr.user.a': '1' } },
        'c2 => c',
        'p2 => p',
        'f2 => f',
      ],
      ['f3 => f2', 'c3 => c'],
    ],
    tree: `
      /c #1 chr(1,3)
      /c2 #1 chr(1,3)
      /c3 #1 chr(1,3)
      /f #2 user.a="1" "x"
      /f2 #2 user.a="1" "x"
      /f3 #2 user.a="1" "x"
      /p #3 fifo
      /p2 #3 fifo`,
  },
  {
    id: 'P024a',
    what: 'symlink targets of 4,095 bytes and of bytes that are no text',
    layers: [
      raw(gnuLong('K', 't'.repeat(4095)), symlink('long', ''), gnuLong('K', '\xff\xfe/\x01'), symlink('odd', ''), END),
    ],
    tree: `
      /long -> <long>
      /odd -> \\xff\\xfe/\\x01`,
    contents: { long: 't'.repeat(4095) },
  },
  {
    id: 'P024b',
    what: 'a symlink target of 4,096 bytes',
    layers: [raw(gnuLong('K', 't'.repeat(4096)), symlink('long', ''), END)],
    error: 'LINK_INVALID',
  },
  { id: 'P024c', what: 'a symlink without a target', layers: [raw(symlink('l', ''), END)], error: 'LINK_INVALID' },
  {
    id: 'P024d',
    what: 'symlink targets of every length around a block of the tree',
    layers: [
      raw(
        ...[1, 60, 447, 448, 449, 511, 512, 513, 1024, 4095].flatMap((n, i) => [
          gnuLong('K', 'a'.repeat(n)),
          symlink(`l${i}`, ''),
        ]),
        END,
      ),
    ],
    tree: [1, 60, 447, 448, 449, 511, 512, 513, 1024, 4095].map((n, i) => `/l${i} -> ${'a'.repeat(n)}`).join('\n'),
  },
  {
    id: 'P025a',
    what: 'a name of 255 bytes',
    layers: [[`d/${'n'.repeat(255)}=x`]],
    tree: `
      /d/
      /d/${'n'.repeat(255)} "x"`,
  },
  { id: 'P025b', what: 'a name of 256 bytes', layers: [[`d/${'n'.repeat(256)}=x`]], error: 'METADATA_INVALID' },
  {
    id: 'P025c',
    what: 'a directory on the way with a name of 256 bytes',
    layers: [[`${'n'.repeat(256)}/f`]],
    error: 'METADATA_INVALID',
  },
  {
    id: 'P026',
    what: 'a path of more than 4,096 bytes',
    layers: [raw(paxEntry({ path: `${LONG.join('/')}/f` }), file('short', 'x'), END)],
    tree: `${longTree}\n/${LONG.join('/')}/f "x"`,
    differs: 'umoci, containerd and moby fail with ENAMETOOLONG; the kernel reaches such files step by step.',
  },
  {
    id: 'P027',
    what: 'a file twice',
    layers: [['f=first', 'g', { name: 'f', content: 'last', mode: 0o600 }]],
    tree: `
      /f 0600 "last"
      /g`,
    differs: 'go-containerregistry takes the first; all others the last (estargz#219).',
  },
  {
    id: 'P028',
    what: 'a directory twice',
    layers: [['d/', 'd/f=x', { name: 'd/', type: 'directory', mode: 0o700, uid: 3, mtime: new Date(4000) }]],
    tree: `
      /d/ 0700 3:0 @4
      /d/f "x"`,
    differs: 'go-containerregistry takes the first.',
  },
  {
    id: 'P029',
    what: 'directory, file, directory under one name in a layer',
    layers: [['d/', 'd/f=x', 'd=file', 'd/']],
    tree: '/d/',
  },
  {
    id: 'P029b',
    what: 'a directory with children, then a file of its name',
    layers: [['d/', 'd/f=x', 'd/e/f=x', 'd=file']],
    tree: '/d "file"',
  },
  {
    id: 'P030',
    what: 'names that differ in case or in Unicode form only',
    layers: [['README=1', 'readme=2', 'caf\u00e9=3', 'cafe\u0301=4']],
    tree: `
      /README "1"
      /cafe\\xcc\\x81 "4"
      /caf\\xc3\\xa9 "3"
      /readme "2"`,
  },
  {
    id: 'P031',
    what: 'names with newlines, spaces, quotes, backslashes and control bytes',
    layers: [raw(file('a\nb'), file(' c '), file('"d"'), file('e\\f'), file('\x01\x7f'), file('-rf'), file('*'), END)],
    tree: `
      /\\x01\\x7f
      /\\x20c\\x20
      /\\x22d\\x22
      /*
      /-rf
      /a\\x0ab
      /e\\x5cf`,
  },
];
