/** T: the tar container. What Go's archive/tar does is the measure, because the tools that make and unpack layers use it. */
import {
  BLOCK,
  END,
  base256,
  gnuLong,
  makeTar,
  padded,
  paxEntry,
  paxRecord,
  rawEntry,
  rawHeader,
} from '../support/tar.js';
import { gnuTar, raw, type Case, type Part } from './case.js';
import { hollow } from './expected.js';

const GNU = 'ustar  \0';
const MIB = 1024 * 1024;
const ZERO = Buffer.alloc(BLOCK);
/** Two's complement of a small negative number, for base256. */
const negative = (value: bigint, width: number): bigint => (1n << BigInt(8 * width - 1)) + value;

const file = (name: string, content = ''): Buffer => rawEntry({ name }, content);
const noise = (size: number): Buffer => Buffer.from(Array.from({ length: size }, (_, i) => (i * 7 + (i >> 8)) & 0xff));

/** A file of holes and seven pieces: more than the four that an old GNU header holds. */
const PIECES = [0, 98_304, 200_704, 299_008, 397_312, 499_712, 598_016];
/** Holes are asked of the file system; a file made by seeking has them on every one that matters. */
const makeSparse = `
  truncate -s 700000 sparse
  for at in ${PIECES.join(' ')}; do
    yes "piece at $at " | tr -d '\\n' | head -c 4096 | dd of=sparse bs=1 seek=$at conv=notrunc status=none
  done`;
const sparseContent = ((): Buffer => {
  const bytes = Buffer.alloc(700_000);
  for (const at of PIECES) bytes.fill(`piece at ${at} `, at, at + 4096);
  return bytes;
})();
const gnuSparse = (...options: string[]): (() => readonly ReturnType<typeof gnuTar>[]) => {
  return () => [gnuTar(makeSparse, '-S', ...options, 'sparse')];
};

const pax = (records: Readonly<Record<string, string | Uint8Array>>, entry: Buffer): Buffer =>
  Buffer.concat([paxEntry(records), entry]);

/** A PAX 1.0 sparse file: map, then the pieces. */
function sparse10(name: string, size: number, pieces: readonly (readonly [at: number, bytes: string])[]): Buffer {
  const numbers = [pieces.length, ...pieces.flatMap(([at, bytes]) => [at, bytes.length])];
  const body = Buffer.concat([
    padded(Buffer.from(numbers.map((n) => `${n}\n`).join(''))),
    Buffer.from(pieces.map((p) => p[1]).join('')),
  ]);
  const records = {
    'GNU.sparse.major': '1',
    'GNU.sparse.minor': '0',
    'GNU.sparse.name': name,
    'GNU.sparse.realsize': String(size),
  };
  return pax(records, rawEntry({ name: `GNUSparseFile.1/${name}` }, body));
}

const inner = await makeTar([{ name: 'inner', content: 'inside' }]);
const LONG = 'long/'.repeat(40) + 'name';
/** The lines of a chain of directories. */
const chain = (names: readonly string[]): string =>
  names.map((_, i) => `/${names.slice(0, i + 1).join('/')}/`).join('\n');
const longLines = `${chain(Array.from({ length: 40 }, () => 'long'))}\n/${LONG} "x"`;
const DEEP = Array.from({ length: 1000 }, (_, i) => `d${i % 10}`);
const MANY = Array.from({ length: 2000 }, (_, i) => `file-${String(i).padStart(4, '0')}`);

export const tarCases: readonly Case[] = [
  {
    id: 'T001a',
    what: 'a layer of no bytes',
    layers: [{ tar: Buffer.alloc(0), compression: 'none' }],
    tree: '',
  },
  {
    id: 'T001b',
    what: 'a blob of no bytes that calls itself gzip',
    layers: [
      { tar: Buffer.alloc(0), blob: Buffer.alloc(0), mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip' },
    ],
    tree: '',
    differs: 'containerd and moby take it as an empty layer; umoci fails on the gzip header. Such layers exist.',
  },
  { id: 'T002a', what: 'one block of zeros', layers: [raw(ZERO)], tree: '' },
  { id: 'T002b', what: 'two blocks of zeros', layers: [raw(END)], tree: '' },
  { id: 'T003', what: 'no end of archive', layers: [raw(file('f', 'x'))], tree: '/f "x"' },
  { id: 'T004', what: 'one zero block at the end', layers: [raw(file('f', 'x'), ZERO)], tree: '/f "x"' },
  {
    id: 'T005',
    what: 'a header after a zero block',
    layers: [raw(file('f'), ZERO, file('g'), END)],
    error: 'TAR_INVALID',
    differs: 'GNU tar warns of a lone zero block and stops there; Go, and so all image tools, refuse.',
  },
  {
    id: 'T006',
    what: 'bytes after the end of the archive',
    layers: [raw(file('f', 'x'), END, Buffer.from('garbage'), file('g'))],
    tree: '/f "x"',
  },
  {
    id: 'T007',
    what: 'two archives one after the other',
    layers: [raw(file('first'), END, file('second'), END)],
    tree: '/first',
    differs: 'ratarmount and tar -i show both; every image tool stops at the first end. The diffID covers both.',
  },
  {
    id: 'T008a',
    what: 'the data of a file ends early',
    layers: [raw(rawEntry({ name: 'f' }, noise(2000)).subarray(0, 1500))],
    error: 'TAR_TRUNCATED',
  },
  {
    id: 'T008b',
    what: 'no data at all for a file that has some',
    layers: [raw(rawHeader({ name: 'f', size: 10 }))],
    error: 'TAR_TRUNCATED',
  },
  {
    id: 'T009',
    what: 'a header ends early',
    layers: [raw(file('f'), file('g').subarray(0, 200))],
    error: 'TAR_TRUNCATED',
  },
  {
    id: 'T010',
    what: 'the last file lacks its padding',
    layers: [raw(file('f', 'content').subarray(0, BLOCK + 7))],
    tree: '/f "content"',
  },
  {
    id: 'T011',
    what: 'V7, by GNU tar',
    layers: () => [gnuTar('mkdir d; echo hi > d/f; ln -s f d/l; ln d/f d/h', '--format=v7', 'd')],
    tree: `
      /d/
      /d/f #1 "hi\\n"
      /d/h #1 "hi\\n"
      /d/l -> f`,
  },
  {
    id: 'T012a',
    what: 'the ustar prefix, by GNU tar',
    layers: () => [gnuTar(`mkdir -p ${LONG.slice(0, -5)}; printf x > ${LONG}`, '--format=ustar', 'long')],
    tree: longLines,
  },
  {
    id: 'T012b',
    what: 'a ustar prefix in a GNU header, as Go before 1.8 wrote it',
    layers: [raw(rawEntry({ name: 'name', magic: GNU, prefix: 'some/prefix' }, 'x'), END)],
    tree: `
      /some/
      /some/prefix/
      /some/prefix/name "x"`,
    differs:
      'GNU tar takes it for access and change times. Go, containerd and moby read the prefix: such layers exist.',
  },
  {
    id: 'T013',
    what: 'a name of exactly 100 bytes, without a NUL',
    layers: [raw(file('n'.repeat(100), 'x'), END)],
    tree: `/${'n'.repeat(100)} "x"`,
  },
  {
    id: 'T014a',
    what: 'GNU long names and link targets, by GNU tar',
    layers: () => [
      gnuTar(
        `mkdir -p ${LONG.slice(0, -5)}; printf x > ${LONG}; ln -s ${'t'.repeat(150)} l; ln ${LONG} h`,
        '--format=gnu',
        'long',
        'l',
        'h',
      ),
    ],
    tree: `
      /h #1 "x"
      /l -> ${'t'.repeat(150)}
      ${longLines.replace(' "x"', ' #1 "x"')}`,
  },
  {
    id: 'T014b',
    what: 'a long name wins over name and prefix of the header',
    layers: [raw(gnuLong('L', 'long'), rawEntry({ name: 'short', prefix: 'p' }, 'x'), END)],
    tree: '/long "x"',
  },
  {
    id: 'T015',
    what: 'a NUL inside a GNU long name',
    layers: [raw(gnuLong('L', 'kept\0dropped'), file('short', 'x'), END)],
    tree: '/kept "x"',
  },
  {
    id: 'T016',
    what: 'two GNU long names for one file',
    layers: [raw(gnuLong('L', 'first'), gnuLong('L', 'second'), file('short', 'x'), END)],
    tree: '/second "x"',
  },
  {
    id: 'T017',
    what: 'a GNU long name and a PAX path, in both orders',
    layers: [
      raw(
        gnuLong('L', 'gnu-1'),
        pax({ path: 'pax-1' }, file('short', '1')),
        paxEntry({ path: 'pax-2' }),
        gnuLong('L', 'gnu-2'),
        file('short', '2'),
        END,
      ),
    ],
    tree: `
      /gnu-1 "1"
      /gnu-2 "2"`,
    differs: 'Python takes whichever comes last; Go, and so all image tools, the GNU name.',
  },
  {
    id: 'T018',
    what: 'PAX path, linkpath, size, uid, gid and mtime',
    layers: [
      raw(
        pax(
          { path: 'file-ü', size: '5', uid: '3000000', gid: '4000000', mtime: '1700000000.5' },
          Buffer.concat([rawHeader({ name: 'short', size: 0 }), padded(Buffer.from('hello'))]),
        ),
        pax({ path: 'link', linkpath: 't'.repeat(120) }, rawHeader({ name: 's', type: '2', linkname: 'short' })),
        END,
      ),
    ],
    tree: `
      /file-\\xc3\\xbc 3000000:4000000 @1700000000.5 "hello"
      /link -> ${'t'.repeat(120)}`,
  },
  {
    id: 'T019',
    what: 'empty PAX values leave the header as it is',
    layers: [raw(pax({ path: '', size: '', uid: '', mtime: '' }, rawEntry({ name: 'f', uid: 5, mtime: 7 }, 'x')), END)],
    tree: '/f 5:0 @7 "x"',
  },
  {
    id: 'T020',
    what: 'two PAX headers for one file: the second replaces the first',
    layers: [raw(paxEntry({ uid: '11', path: 'first' }), paxEntry({ gid: '12' }), rawEntry({ name: 'f' }, 'x'), END)],
    tree: '/f 0:12 "x"',
    differs: 'Python and libarchive merge the two; Go keeps the second only.',
  },
  {
    id: 'T021',
    what: 'a PAX size before a GNU long name counts for the file (CVE-2025-62518)',
    layers: [
      raw(
        paxEntry({ size: '5' }),
        gnuLong('L', `${'d/'.repeat(300)}f`),
        rawHeader({ name: 'short', size: 0 }),
        padded(Buffer.from('hello')),
        file('after', 'y'),
        END,
      ),
    ],
    tree: `
      /after "y"
      ${chain(Array.from({ length: 300 }, () => 'd'))}
      /${'d/'.repeat(300)}f "hello"`,
    differs: 'tokio-tar and astral-tar used it for the long name, node-tar before 7.5.16 too: other files appeared.',
  },
  {
    id: 'T022a',
    what: 'a PAX size over a header size of 0, with an archive as the data (a tar smuggled past the reader)',
    layers: [
      raw(pax({ size: String(inner.length) }, rawHeader({ name: 'archive', size: 0 })), inner, file('after', 'y'), END),
    ],
    tree: `
      /after "y"
      /archive <inner>`,
    contents: { inner },
  },
  {
    id: 'T022b',
    what: 'a PAX size smaller than the header says',
    layers: [
      raw(
        pax({ size: '3' }, rawHeader({ name: 'f', size: 2048 })),
        padded(Buffer.from('abc')),
        file('after', 'y'),
        END,
      ),
    ],
    tree: `
      /after "y"
      /f "abc"`,
  },
  {
    id: 'T023',
    what: 'a PAX header at the end, without a file',
    layers: [raw(file('f'), paxEntry({ path: 'nothing' }), END)],
    tree: '/f',
    note: /an extended header at the end describes no file/,
    differs: 'tokio-tar and libarchive refuse; Go sees the end of the archive.',
  },
  {
    id: 'T024a',
    what: 'a PAX record without its newline',
    layers: [raw(rawEntry({ name: 'x', type: 'x' }, '12 path=abcd'), file('f'), END)],
    error: 'TAR_INVALID',
  },
  {
    id: 'T024b',
    what: 'a PAX record longer than the header',
    layers: [raw(rawEntry({ name: 'x', type: 'x' }, '99 path=abc\n'), file('f'), END)],
    error: 'TAR_INVALID',
  },
  {
    id: 'T025',
    what: 'a PAX header of more than 1 MiB',
    layers: [raw(paxEntry({ comment: 'c'.repeat(1024 * 1024) }), file('f'), END)],
    error: 'LIMIT_EXCEEDED',
  },
  {
    id: 'T026a',
    what: 'a NUL in a PAX path',
    layers: [raw(pax({ path: 'a\0b' }, file('f')), END)],
    error: 'TAR_INVALID',
  },
  {
    id: 'T026b',
    what: 'a NUL in a PAX linkpath',
    layers: [raw(pax({ linkpath: 'a\0b' }, rawHeader({ name: 'l', type: '2' })), END)],
    error: 'TAR_INVALID',
  },
  {
    id: 'T027',
    what: 'NUL and newline in the value of an attribute',
    layers: [raw(pax({ 'SCHILY.xattr.user.odd': Buffer.from('a\0b\nc\0') }, file('f')), END)],
    tree: '/f user.odd="a\\x00b\\x0ac\\x00"',
  },
  {
    id: 'T028',
    what: 'a PAX mtime that is no number',
    layers: [raw(pax({ mtime: '1.2.3' }, file('f')), END)],
    error: 'TAR_INVALID',
  },
  {
    id: 'T029',
    what: 'PAX times before 1970',
    layers: [
      raw(
        pax({ mtime: '-2146608000' }, file('a')),
        pax({ mtime: '-1.25' }, file('b')),
        pax({ mtime: '-0.1' }, file('c')),
        END,
      ),
    ],
    tree: `
      /a @-2146608000
      /b @-2.75
      /c @-1.9`,
    differs: 'containerd clamps to 1970, umoci keeps them; the specification asks for the mtime.',
  },
  {
    id: 'T030',
    what: 'more digits than nanoseconds have',
    layers: [raw(pax({ mtime: '1350244992.0239601089999999' }, file('f')), END)],
    tree: '/f @1350244992.023960108',
  },
  {
    id: 'T031',
    what: 'times beyond what can be told',
    layers: [
      raw(pax({ mtime: '99999999999999999999' }, file('f')), pax({ mtime: '-99999999999999999999' }, file('g')), END),
    ],
    tree: `
      /f @9007199254740991
      /g @-9007199254740991`,
    note: /a modification time is out of range/,
    differs: 'Go, and so umoci, cannot read such a number and refuses; libarchive clamps it, as here.',
  },
  {
    id: 'T032',
    what: 'a PAX global header, as git archive writes it',
    layers: [raw(paxEntry({ comment: 'abc', uid: '55', mtime: '99' }, 'g'), file('f', 'x'), END)],
    tree: '/f "x"',
    differs:
      'umoci fails on it; GNU tar, Python and libarchive apply it; containerd, moby and containers/storage ignore it.',
  },
  {
    id: 'T032b',
    what: 'a global header between an extended header and its file',
    layers: [raw(paxEntry({ size: '512' }), paxEntry({ comment: 'abc' }, 'g'), file('f'), file('g'), END)],
    error: 'TAR_INVALID',
    differs:
      'Go forgets the size, though umoci fails on any global header; GNU tar, bsdtar and Python take it for that of /f, with /g as its content.',
  },
  {
    id: 'T033',
    what: 'base-256 size, owner and time, the time negative',
    layers: [
      raw(
        rawHeader({ name: 'f', magic: GNU, size: base256(3n, 12), uid: base256(3_000_000n, 8), gid: base256(2n, 8) }),
        padded(Buffer.from('abc')),
        rawEntry({ name: 'g', magic: GNU, mtime: base256(negative(-5n, 12), 12) }),
        rawEntry({ name: 'h', magic: GNU, mtime: base256(0x1_0000_0000n, 12) }),
        END,
      ),
    ],
    tree: `
      /f 3000000:2 "abc"
      /g @-5
      /h @4294967296`,
  },
  {
    id: 'T034',
    what: 'a negative size',
    layers: [raw(rawHeader({ name: 'f', size: base256(negative(-512n, 12), 12) }), END)],
    error: 'TAR_INVALID',
  },
  {
    id: 'T035a',
    what: 'a sparse file of more than 8 GiB',
    layers: [raw(sparse10('big', 9 * 1024 ** 3, [[9 * 1024 ** 3 - MIB, 'end'.padStart(MIB, '\0')]]), END)],
    tree: '/big <big>',
    contents: { big: hollow(9 * 1024 ** 3, 'end') },
  },
  {
    id: 'T035b',
    what: 'a file that says that it has 9 GiB, and has not',
    layers: [raw(rawHeader({ name: 'f', size: base256(9n * 1024n ** 3n, 12) }), padded(Buffer.from('x')))],
    error: 'TAR_TRUNCATED',
  },
  {
    id: 'T036',
    what: 'owners beyond 2^21, in base-256 and PAX',
    layers: [
      raw(
        rawEntry({ name: 'a', magic: GNU, uid: base256(4_294_967_294n, 8), gid: base256(2_097_152n, 8) }),
        pax({ uid: '4294967294', gid: '2097152' }, file('b')),
        END,
      ),
    ],
    tree: `
      /a 4294967294:2097152
      /b 4294967294:2097152`,
  },
  {
    id: 'T037a',
    what: 'user 2^32 - 1',
    layers: [raw(pax({ uid: '4294967295' }, file('f')), END)],
    error: 'METADATA_INVALID',
    differs: 'umoci and containerd hand it to chown(2), to which -1 says "leave it": the file ends up owned by root.',
  },
  {
    id: 'T037b',
    what: 'a negative group',
    layers: [raw(rawEntry({ name: 'f', gid: base256(negative(-2n, 8), 8) }), END)],
    error: 'METADATA_INVALID',
    differs: 'As T037a.',
  },
  {
    id: 'T037c',
    what: 'a negative user in PAX',
    layers: [raw(pax({ uid: '-1' }, file('f')), END)],
    error: 'METADATA_INVALID',
    differs: 'As T037a.',
  },
  {
    id: 'T038',
    what: 'a checksum over signed bytes',
    layers: [raw(signedSum(rawEntry({ name: Buffer.from([0xe9, 0xe8, 0x61]) }, 'x')), END)],
    tree: '/\\xe9\\xe8a "x"',
  },
  {
    id: 'T039',
    what: 'a wrong checksum',
    layers: [raw(rawEntry({ name: 'f', checksum: 1 }), file('g'), END)],
    error: 'TAR_INVALID',
    differs:
      'node-tar warns and looks for the next header. Where headers are is a matter of trust here: none is guessed.',
  },
  {
    id: 'T040',
    what: 'numbers with leading and trailing spaces and NULs, and blank ones',
    layers: [
      raw(
        rawEntry(
          {
            name: 'f',
            mode: Buffer.from('   755 \0'),
            uid: Buffer.from('     7  '),
            gid: Buffer.alloc(8),
            size: Buffer.from('          3 '),
            mtime: Buffer.from('11\0\0\0\0\0\0\0\0\0\0'),
          },
          'abc',
        ),
        END,
      ),
    ],
    tree: '/f 0755 7:0 @9 "abc"',
  },
  {
    id: 'T041a',
    what: 'typeflag NUL and a trailing slash: a directory',
    layers: [raw(rawEntry({ name: 'd/', type: '\0', mode: 0o755, magic: '\0' }), file('d/f', 'x'), END)],
    tree: `
      /d/
      /d/f "x"`,
  },
  {
    id: 'T041c',
    what: 'the same with a size, as archives from before ustar have it: no data follows',
    layers: [raw(rawEntry({ name: 'd/', type: '\0', mode: 0o755, magic: '\0', size: 1 }), file('d/f', 'x'), END)],
    tree: `
      /d/
      /d/f "x"`,
    differs: 'GNU tar and Go pass over a block that is not there, and lose what comes next; bsdtar and tarfile do not.',
  },
  {
    id: 'T041b',
    what: 'a long directory name with a trailing slash in PAX',
    layers: [raw(pax({ path: `${'n'.repeat(120)}/` }, rawEntry({ name: 'short', type: '5', mode: 0o700 })), END)],
    tree: `/${'n'.repeat(120)}/ 0700`,
  },
  {
    id: 'T042a',
    what: 'typeflag 0 and a trailing slash without data: a directory',
    layers: [raw(rawEntry({ name: 'd/', type: '0', mode: 0o755 }), file('d/f', 'x'), END)],
    tree: `
      /d/
      /d/f "x"`,
    differs:
      'Go makes an empty file of it (and d/f then fails); GNU tar and libarchive a directory, as V7 tars meant it.',
  },
  {
    id: 'T042b',
    what: 'typeflag 0 and a trailing slash, but data: a file',
    layers: [raw(rawEntry({ name: 'f/', type: '0' }, 'x'), END)],
    tree: '/f "x"',
  },
  {
    id: 'T043',
    what: 'typeflag 7, a contiguous file',
    layers: [raw(rawEntry({ name: 'f', type: '7' }, 'xyz'), file('g'), END)],
    tree: `
      /f "xyz"
      /g`,
    differs: 'GNU tar and libarchive read a file; the Go extractors know no such type and fail.',
  },
  {
    id: 'T044a',
    what: 'a volume label',
    layers: [raw(rawEntry({ name: 'label', type: 'V', magic: GNU }), file('f'), END)],
    tree: '/f',
    differs: 'The Go extractors fail on it; GNU tar, which writes it, prints it.',
  },
  {
    id: 'T044b',
    what: 'the second part of a file of another archive',
    layers: [raw(rawEntry({ name: 'f', type: 'M', magic: GNU }, 'x'), END)],
    error: 'TAR_UNSUPPORTED',
  },
  {
    id: 'T044c',
    what: 'an unknown typeflag',
    layers: [raw(rawEntry({ name: 'f', type: 'Q' }), END)],
    error: 'TAR_UNSUPPORTED',
  },
  {
    id: 'T045',
    what: 'links, devices and directories with a size: no data follows',
    layers: [
      raw(
        rawHeader({ name: 'd/', type: '5', size: 1234, mode: 0o755 }),
        rawHeader({ name: 'l', type: '2', linkname: 't', size: 512, mode: 0o777 }),
        rawHeader({ name: 'p', type: '6', size: 99999 }),
        rawHeader({ name: 'c', type: '3', size: 1, devmajor: 1, devminor: 3 }),
        file('t', 'x'),
        rawHeader({ name: 'h', type: '1', linkname: 't', size: 1 }),
        END,
      ),
    ],
    tree: `
      /c chr(1,3)
      /d/
      /h #1 "x"
      /l -> t
      /p fifo
      /t #1 "x"`,
    differs: 'libarchive may read data behind a hard link; Go never does.',
  },
  {
    id: 'T046',
    what: 'a GNU incremental backup (typeflag D)',
    layers: () => [gnuTar('mkdir d; echo hi > d/f', '--format=gnu', '--listed-incremental=snapshot', 'd')],
    tree: `
      /d/
      /d/f "hi\\n"`,
    differs: 'The Go extractors fail on the type; GNU tar makes the directory.',
  },
  {
    id: 'T047a',
    what: 'an old GNU sparse file with an extension block, by GNU tar',
    layers: gnuSparse('--format=gnu'),
    tree: '/sparse <sparse>',
    contents: { sparse: sparseContent },
    differs:
      'Go reads them, but umoci, containerd, moby and containers/storage fail on their typeflag. GNU tar -S writes them.',
  },
  {
    id: 'T047b',
    what: 'an old GNU sparse file with two extension blocks and pieces off block borders',
    layers: [raw(oldGnuSparse('f', 60, 1000, 'abcdefg'), file('after', 'y'), END)],
    tree: `
      /after "y"
      /f <pieces>`,
    contents: { pieces: pieces(60, 1000, 'abcdefg') },
    differs: 'As T047a.',
  },
  {
    id: 'T048a',
    what: 'a PAX 0.0 sparse file, by GNU tar',
    layers: gnuSparse('--format=posix', '--sparse-version=0.0'),
    tree: '/sparse <sparse>',
    contents: { sparse: sparseContent },
  },
  {
    id: 'T048b',
    what: 'a PAX 0.1 sparse file, by GNU tar',
    layers: gnuSparse('--format=posix', '--sparse-version=0.1'),
    tree: '/sparse <sparse>',
    contents: { sparse: sparseContent },
  },
  {
    id: 'T048c',
    what: 'a PAX 1.0 sparse file, by GNU tar',
    layers: gnuSparse('--format=posix', '--sparse-version=1.0'),
    tree: '/sparse <sparse>',
    contents: { sparse: sparseContent },
  },
  {
    id: 'T048d',
    what: 'a PAX sparse version that nobody has defined: a plain file',
    layers: [raw(pax({ 'GNU.sparse.major': '9', 'GNU.sparse.minor': '9' }, file('f', 'stored')), END)],
    tree: '/f "stored"',
  },
  {
    id: 'T049a',
    what: 'a sparse file without data',
    layers: [raw(sparse10('f', 5000, []), sparse10('g', 5000, [[5000, '']]), END)],
    tree: `
      /f <zeros>
      /g <zeros>`,
    contents: { zeros: Buffer.alloc(5000) },
  },
  {
    id: 'T049b',
    what: 'a sparse file without a hole, and one of no bytes',
    layers: [raw(sparse10('f', 9, [[0, 'unbroken!']]), sparse10('g', 0, []), END)],
    tree: `
      /f "unbroken!"
      /g`,
  },
  {
    id: 'T049c',
    what: 'pieces that meet within a block',
    layers: [
      raw(
        sparse10('f', 1500, [
          [0, 'a'.repeat(700)],
          [700, 'b'.repeat(3)],
          [1400, 'c'.repeat(100)],
        ]),
        END,
      ),
    ],
    tree: '/f <f>',
    contents: {
      f: Buffer.concat([Buffer.from('a'.repeat(700) + 'bbb'), Buffer.alloc(697), Buffer.from('c'.repeat(100))]),
    },
  },
  {
    id: 'T050a',
    what: 'pieces of a sparse file overlap',
    layers: [
      raw(
        sparse10('f', 5000, [
          [0, 'aaaa'],
          [2, 'bbbb'],
        ]),
        END,
      ),
    ],
    error: 'SPARSE_INVALID',
  },
  {
    id: 'T050b',
    what: 'a piece beyond the end of the file',
    layers: [raw(sparse10('f', 10, [[8, 'aaaa']]), END)],
    error: 'SPARSE_INVALID',
  },
  {
    id: 'T050c',
    what: 'pieces that are not all of the data',
    layers: [
      raw(
        pax({ 'GNU.sparse.map': '0,1', 'GNU.sparse.size': '10', 'GNU.sparse.numblocks': '1' }, file('f', 'xyz')),
        END,
      ),
    ],
    error: 'SPARSE_INVALID',
  },
  {
    id: 'T050d',
    what: 'a sparse map that counts more pieces than it has data for',
    layers: [
      raw(
        pax(
          { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '10' },
          rawEntry({ name: 'f' }, padded(Buffer.from('1000000\n0\n'))),
        ),
        END,
      ),
    ],
    error: 'SPARSE_INVALID',
  },
  {
    id: 'T050e',
    what: 'a sparse file with two sizes, and one without a map',
    layers: [
      raw(
        pax(
          { 'GNU.sparse.map': '0,1', 'GNU.sparse.numblocks': '1', 'GNU.sparse.realsize': '1', 'GNU.sparse.size': '3' },
          file('f', 'x'),
        ),
        pax({ 'GNU.sparse.numblocks': '1', 'GNU.sparse.size': '10' }, file('g', 'plain')),
        END,
      ),
    ],
    tree: `
      /f <two>
      /g "plain"`,
    contents: { two: 'x\0\0' },
  },
  {
    id: 'T051',
    what: "Sun's way to say where holes are",
    layers: [raw(pax({ 'SUN.holesdata': ' 0 10 20' }, file('f', 'x')), END)],
    error: 'SPARSE_INVALID',
    differs:
      'umoci, as every Go tool, shows the packed bytes as the content, which is wrong without a word; libarchive reads it.',
  },
  {
    id: 'T052',
    what: 'the STAR format: a shorter prefix, times behind it',
    layers: [
      raw(
        rawEntry(
          {
            name: 'name',
            magic: 'ustar\x0000',
            prefix: 'star-prefix',
            patch: [
              [476, Buffer.from('00000000007\0')],
              [488, Buffer.from('00000000007\0')],
              [508, Buffer.from('tar\0')],
            ],
          },
          'x',
        ),
        END,
      ),
    ],
    tree: `
      /star-prefix/
      /star-prefix/name "x"`,
  },
  {
    id: 'T053',
    what: 'names in Latin-1, KOI8-R and EUC-JP, and targets',
    layers: [
      raw(
        file('caf\xe9', 'x'),
        file('\xd0\xd2\xc9\xd7\xc5\xd4'),
        gnuLong('L', '\xb4\xc1\xbb\xfa'.repeat(40)),
        file('short'),
        pax({ path: Buffer.from([0xff, 0xfe, 0x2f, 0x80]) }, file('short')),
        rawHeader({ name: 'l', type: '2', linkname: '\xe9\xff', mode: 0o777 }),
        END,
      ),
    ],
    tree: `
      /caf\\xe9 "x"
      /l -> \\xe9\\xff
      ${'/\\xb4\\xc1\\xbb\\xfa' + '\\xb4\\xc1\\xbb\\xfa'.repeat(39)}
      /\\xd0\\xd2\\xc9\\xd7\\xc5\\xd4
      /\\xff\\xfe/
      /\\xff\\xfe/\\x80`,
  },
  {
    id: 'T054a',
    what: 'a directory without a name is the root',
    layers: [raw(rawHeader({ name: '', type: '5', mode: 0o711 }), file('f'), END)],
    tree: `
      / 0711
      /f`,
  },
  {
    id: 'T054b',
    what: 'a file without a name',
    layers: [raw(rawEntry({ name: '' }, 'x'), file('f'), END)],
    tree: '/f',
    note: /an entry without a name is ignored/,
    differs: 'umoci takes it for the root and refuses; containerd, moby and containers/storage pass over it.',
  },
  {
    id: 'T055',
    what: 'archives in archives, and two thousand files',
    layers: [
      [
        ...Array.from({ length: 20 }, (_, i): Part => ({ name: `tars/${String(i).padStart(2, '0')}`, content: inner })),
        ...MANY.map((name): Part => ({ name: `many/${name}`, content: name })),
      ],
    ],
    tree: [
      '/many/',
      ...MANY.map((name) => `/many/${name} "${name}"`),
      '/tars/',
      ...Array.from({ length: 20 }, (_, i) => `/tars/${String(i).padStart(2, '0')} <inner>`),
    ].join('\n'),
    contents: { inner },
  },
  {
    id: 'T056',
    what: 'a thousand directories in each other',
    layers: [raw(pax({ path: `${DEEP.join('/')}/f` }, file('short', 'x')), END)],
    tree: `${chain(DEEP)}\n/${DEEP.join('/')}/f "x"`,
  },
  {
    id: 'T057',
    what: 'PAX records with a NUL in the key, and without one',
    layers: [raw(rawEntry({ name: 'x', type: 'x' }, paxRecord('a\0b', 'c')), file('f'), END)],
    error: 'TAR_INVALID',
  },
];

/** Rewrites the checksum as the sum of signed bytes. */
function signedSum(entry: Buffer): Buffer {
  const bytes = Buffer.from(entry);
  bytes.fill(' ', 148, 156);
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += bytes.readInt8(i);
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return bytes;
}

/** `count` pieces, each `step` bytes after the one before, in header and extension blocks (GNU tar manual, sparse formats). */
function oldGnuSparse(name: string, count: number, step: number, piece: string): Buffer {
  const octal = (value: number): Buffer => Buffer.from(`${value.toString(8).padStart(11, '0')}\0`);
  const segments = Array.from({ length: count }, (_, i) => Buffer.concat([octal(i * step), octal(piece.length)]));
  const data = Buffer.from(piece.repeat(count));
  const header = rawHeader({
    name,
    type: 'S',
    magic: GNU,
    size: data.length,
    patch: [
      [386, Buffer.concat(segments.slice(0, 4))],
      [482, Buffer.from([1])],
      [483, octal(count * step)],
    ],
  });
  const extensions: Buffer[] = [];
  for (let at = 4; at < count; at += 21) {
    const block = Buffer.alloc(BLOCK);
    block.set(Buffer.concat(segments.slice(at, at + 21)));
    block.writeUInt8(at + 21 < count ? 1 : 0, 504);
    extensions.push(block);
  }
  return Buffer.concat([header, ...extensions, padded(data)]);
}

function pieces(count: number, step: number, piece: string): Buffer {
  const bytes = Buffer.alloc(count * step);
  for (let i = 0; i < count; i++) bytes.write(piece, i * step, 'latin1');
  return bytes;
}
