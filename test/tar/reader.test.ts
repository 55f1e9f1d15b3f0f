import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { TarEntry } from '../../src/tar/entry.js';
import { TarReader } from '../../src/tar/reader.js';
import { END, base256, gnuLong, padded, paxEntry, rawEntry, rawHeader } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';
import { codeOf } from '../support/failure.js';

function readAll(tar: Buffer, cuts: readonly number[] = []): { entries: TarEntry[]; notes: string[] } {
  const entries: TarEntry[] = [];
  const reader = new TarReader((entry) => entries.push(entry));
  let at = 0;
  for (const cut of [...cuts, tar.length]) {
    reader.push(tar.subarray(at, cut));
    at = cut;
  }
  reader.end();
  return { entries, notes: reader.notes.list() };
}

const one = (...parts: Buffer[]): TarEntry => {
  const { entries } = readAll(Buffer.concat([...parts, END]));
  if (entries[0] === undefined || entries.length !== 1) throw new Error(`${entries.length} entries`);
  return entries[0];
};

t.test('TarReader reads the end of an archive as Go does', async (t) => {
  const file = rawEntry({ name: 'a' }, 'x');
  t.equal(readAll(Buffer.alloc(0)).entries.length, 0, 'an empty stream');
  t.equal(readAll(Buffer.alloc(512)).entries.length, 0, 'one zero block');
  t.equal(readAll(END).entries.length, 0, 'two zero blocks');
  t.equal(readAll(file).entries.length, 1, 'no end of archive');
  t.equal(readAll(Buffer.concat([file, Buffer.alloc(512)])).entries.length, 1, 'one zero block after a file');
  t.equal(
    readAll(Buffer.concat([file, END, Buffer.from('garbage'), file])).entries.length,
    1,
    'what follows is ignored',
  );
  t.equal(readAll(file.subarray(0, 513)).entries.length, 1, 'the last padding may be missing');
  t.equal(
    codeOf(() => readAll(Buffer.concat([Buffer.alloc(512), file]))),
    'TAR_INVALID',
    'a header after a zero block',
  );
  t.equal(
    codeOf(() => readAll(file.subarray(0, 512))),
    'TAR_TRUNCATED',
    'no data',
  );
  t.equal(
    codeOf(() => readAll(file.subarray(0, 300))),
    'TAR_TRUNCATED',
    'half a header',
  );
  t.equal(
    codeOf(() => readAll(Buffer.concat([paxEntry({ path: 'x' }).subarray(0, 1000), Buffer.alloc(0)]))),
    'no error',
  );
  t.equal(
    codeOf(() => readAll(rawEntry({ type: 'x' }, '9 path=x').subarray(0, 520))),
    'TAR_INVALID',
    'a malformed header is one at the end too',
  );
});

t.test('TarReader takes header fields as they are', async (t) => {
  t.match(
    one(rawEntry({ name: 'dir/', type: '0' })),
    { type: 'directory', name: 'dir/' },
    'slash and no size: a directory',
  );
  t.match(one(rawEntry({ name: 'dir/', type: '0' }, 'x')), { type: 'file' }, 'slash and data: a file');
  t.match(one(rawEntry({ name: 'old', type: '\0', magic: '\0' }, 'x')), { type: 'file', size: 1 });
  t.match(one(rawEntry({ name: 'x'.repeat(100), prefix: 'p'.repeat(155) })), {
    name: `${'p'.repeat(155)}/${'x'.repeat(100)}`,
  });
  t.match(one(rawEntry({ name: 'd', type: 'D', magic: 'ustar  \0' }, 'listing')), { type: 'directory', size: 0 });
  t.match(one(rawEntry({ name: 'c', type: '7' }, 'xy')), { type: 'file', size: 2 });
  t.match(
    one(rawHeader({ name: 'l', type: '2', linkname: 'to', size: 999 })),
    { type: 'symlink', linkName: 'to', size: 0 },
    'sizes of links say nothing',
  );
  t.match(one(rawHeader({ name: 'n', type: '3', devmajor: 5, devminor: 77 })), {
    type: 'char',
    devMajor: 5,
    devMinor: 77,
  });
  t.match(one(rawEntry({ name: 'm', mode: 0o106755 })), { mode: 0o6755 }, 'type bits of the mode do not count');
  t.match(
    one(rawHeader({ name: 'b', uid: base256(3_000_000_000n, 8), mtime: base256(-5n & ((1n << 95n) - 1n), 12) })),
    { uid: 3_000_000_000 },
  );
  t.match(one(rawHeader({ name: Buffer.from([0xff, 0xfe, 0x80]) })), { name: '\xff\xfe\x80' }, 'names are bytes');
  t.equal(
    codeOf(() => one(rawHeader({ checksum: 1 }))),
    'TAR_INVALID',
  );
  t.equal(
    codeOf(() => one(rawHeader({ size: base256(-1n & ((1n << 95n) - 1n), 12) }))),
    'TAR_INVALID',
    'negative size',
  );
  t.equal(
    codeOf(() => one(rawHeader({ uid: base256(4_294_967_295n, 8) }))),
    'METADATA_INVALID',
  );
  t.equal(
    codeOf(() => one(rawHeader({ type: 'M' }))),
    'TAR_UNSUPPORTED',
  );
  t.equal(
    codeOf(() => one(rawHeader({ mode: Buffer.from('9999999\0') }))),
    'TAR_INVALID',
  );
});

t.test('PAX records and GNU long names override the header, each for one file', async (t) => {
  const file = rawEntry({ name: 'short' }, 'data');
  t.match(one(paxEntry({ path: 'long', mtime: '-1.25', uid: '5', gid: '6' }), file), {
    name: 'long',
    mtime: -2,
    mtimeNsec: 750_000_000,
    uid: 5,
    gid: 6,
  });
  t.match(one(paxEntry({ mtime: '1.1234567899' }), file), { mtime: 1, mtimeNsec: 123_456_789 });
  t.match(one(paxEntry({ path: '' }), file), { name: 'short' }, 'empty: as the header says');
  t.match(
    one(paxEntry({ path: 'one' }), paxEntry({ uid: '7' }), file),
    { name: 'short', uid: 7 },
    'the later header replaces',
  );
  t.match(one(gnuLong('L', 'gnu'), paxEntry({ path: 'pax' }), file), { name: 'gnu' }, 'the GNU name wins');
  t.match(one(gnuLong('L', 'one'), gnuLong('L', 'two\0cut'), file), { name: 'two' });
  t.match(one(gnuLong('K', 'target'), rawHeader({ type: '2', linkname: 'no' })), { linkName: 'target' });
  t.match(one(gnuLong('L', ''), paxEntry({ path: 'pax' }), file), { name: 'pax' }, 'an empty one says nothing');
  t.match(one(rawEntry({ type: 'L' }), file), { name: 'short' });
  t.match(one(gnuLong('K', ''), rawHeader({ type: '2', linkname: 'target' })), { linkName: 'target' });
  const xattrs = one(
    paxEntry({ 'SCHILY.xattr.user.b': Buffer.from([0, 255, 10]), 'SCHILY.xattr.user.e': '' }),
    file,
  ).xattrs;
  t.same(
    [...xattrs],
    [
      ['user.b', Buffer.from([0, 255, 10])],
      ['user.e', Buffer.alloc(0)],
    ],
  );

  const { entries } = readAll(Buffer.concat([paxEntry({ path: 'x' }, 'g'), file, END]));
  t.match(entries, [{ name: 'short' }], 'global headers are ignored');
  t.match(readAll(Buffer.concat([file, paxEntry({ path: 'x' }), END])).notes, [/describes no file/]);

  for (const bad of ['5 a=b', '6 a=b', '1 =\n', 'x', '9999999 a=b\n', '6 a\0=b\n']) {
    t.equal(
      codeOf(() => one(rawEntry({ type: 'x' }, bad), file)),
      'TAR_INVALID',
      JSON.stringify(bad),
    );
  }
  t.equal(
    codeOf(() => one(paxEntry({ path: 'a\0b' }), file)),
    'TAR_INVALID',
  );
  t.equal(
    codeOf(() => one(paxEntry({ mtime: 'now' }), file)),
    'TAR_INVALID',
  );
  t.equal(
    codeOf(() => one(rawEntry({ type: 'x' }, Buffer.alloc(1024 * 1024 + 1)), file)),
    'LIMIT_EXCEEDED',
  );
});

t.test('a PAX size counts for the next file only, and always', async (t) => {
  const data = padded(Buffer.from('four'));
  // The header claims nothing, the PAX header four bytes: what looks like a header inside must stay data.
  const hidden = rawEntry({ name: 'hidden' });
  t.match(one(paxEntry({ size: '512' }), rawHeader({ name: 'outer', size: 0 }), hidden), { name: 'outer', size: 512 });
  t.match(one(paxEntry({ size: '4' }), gnuLong('L', 'long'), rawHeader({ name: 'f', size: 0 }), data), {
    name: 'long',
    size: 4,
  });
  t.equal(
    codeOf(() => one(paxEntry({ size: '-1' }), rawHeader({ name: 'f' }))),
    'TAR_INVALID',
  );
});

t.test('no header comes between a file and its extended header', async (t) => {
  const file = rawEntry({ name: 'f' }, 'x');
  const before = [
    paxEntry({ size: '1024' }),
    rawEntry({ name: 'l', type: 'L' }, 'n\0'),
    rawEntry({ name: 'l', type: 'K' }, 'n\0'),
  ];
  for (const between of [paxEntry({ comment: 'c' }, 'g'), rawHeader({ name: 'label', type: 'V' })]) {
    for (const extended of before)
      t.equal(
        codeOf(() => one(extended, between, file)),
        'TAR_INVALID',
      );
    t.equal(one(between, paxEntry({ path: 'p' }), file).name, 'p');
  }
});

t.test('cutting the stream anywhere changes nothing', async (t) => {
  const tar = Buffer.concat([
    paxEntry({ path: 'some/long/name', 'SCHILY.xattr.user.x': 'value' }),
    rawEntry({ name: 'f' }, 'content'),
    gnuLong('L', 'l'.repeat(200)),
    rawEntry({ name: 'g', magic: 'ustar  \0' }, Buffer.alloc(700, 1)),
    rawHeader({ name: 'dir/', type: '5' }),
    END,
  ]);
  const whole = readAll(tar);
  t.equal(whole.entries.length, 3);
  for (let cut = 0; cut <= tar.length; cut++)
    if (JSON.stringify(readAll(tar, [cut])) !== JSON.stringify(whole)) t.fail(`cut at ${cut}`);
  for (let cut = 0; cut < tar.length; cut++) {
    const code = codeOf(() => readAll(tar.subarray(0, cut)));
    if (code !== 'no error' && code !== 'TAR_TRUNCATED') t.fail(`${code} when cut short at ${cut}`);
  }
});

t.test('sparse files of every form that GNU tar writes have their bytes where they belong', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'in'));
  const path = join(dir, 'in', 'sparse');
  const fd = openSync(path, 'w');
  // More segments than a header holds, on and off block borders of the data.
  for (let i = 0; i < 30; i++) writeSync(fd, `segment ${i}`, i * 65536 + (i % 3) * 4096);
  writeSync(fd, 'end', 40 * 65536 - 3);
  closeSync(fd);
  const content = readFileSync(path);
  for (const format of [
    ['--format=gnu'],
    ['--sparse-version=0.0', '--format=pax'],
    ['--sparse-version=0.1', '--format=pax'],
    ['--sparse-version=1.0', '--format=pax'],
  ]) {
    const tar = execFileSync('tar', ['-C', join(dir, 'in'), '-S', ...format, '-cf', '-', 'sparse'], {
      maxBuffer: 1 << 26,
    });
    const [entry] = readAll(tar).entries;
    if (entry === undefined) throw new Error('no entry');
    const got = Buffer.alloc(entry.size);
    for (const run of entry.data) tar.copy(got, run.offset, run.position, run.position + run.length);
    t.equal(entry.name, 'sparse', format.join(' '));
    t.ok(got.equals(content), `${format.join(' ')}: content`);
    t.ok(entry.data.length > 20, `${entry.data.length} segments`);
  }
});

t.test('sparse maps that lie are refused', async (t) => {
  const sparse = (map: string, size = '4', data = 'data'): string =>
    codeOf(() =>
      one(
        paxEntry({
          'GNU.sparse.map': map,
          'GNU.sparse.size': size,
          'GNU.sparse.numblocks': String(map.split(',').length / 2),
        }),
        rawEntry({ name: 'f' }, data),
      ),
    );
  t.equal(sparse('0,4'), 'no error');
  t.equal(sparse('0,4,2,1', '10', 'data1'), 'SPARSE_INVALID', 'overlap');
  t.equal(sparse('8,4'), 'SPARSE_INVALID', 'beyond the end');
  t.equal(sparse('0,3'), 'SPARSE_INVALID', 'too little data');
  t.equal(sparse('0,x'), 'SPARSE_INVALID', 'no number');
  t.equal(sparse('0,-4'), 'SPARSE_INVALID', 'negative');
  t.equal(sparse('0,99999999999999999999'), 'SPARSE_INVALID', 'too large');
  const bomb = paxEntry({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '1' });
  t.equal(
    codeOf(() => one(bomb, rawEntry({ name: 'f' }, padded(Buffer.from('99999999\n'))))),
    'LIMIT_EXCEEDED',
  );
  t.equal(
    codeOf(() => one(paxEntry({ 'SUN.holesdata': ' 0 1' }), rawEntry({ name: 'f' }))),
    'SPARSE_INVALID',
  );
});

t.test('which records make a sparse file is as in Go', async (t) => {
  const version = { 'GNU.sparse.major': '0', 'GNU.sparse.minor': '1', 'GNU.sparse.map': '0,5' };
  const both = paxEntry({ ...version, 'GNU.sparse.realsize': '5', 'GNU.sparse.size': '8' });
  t.equal(one(both, rawEntry({ name: 'f' }, 'hello')).size, 8);
  const noMap = paxEntry({ 'GNU.sparse.numblocks': '1', 'GNU.sparse.size': '8' });
  t.match(one(noMap, rawEntry({ name: 'f' }, 'hello')), { size: 5, data: [{ length: 5 }] }, 'a plain file');
});

t.test('what GNU tar packs is read back', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'in', 'sub'), { recursive: true });
  writeFileSync(join(dir, 'in', 'sub', 'ünï'.repeat(40)), 'x');
  writeFileSync(join(dir, 'in', 'file'), 'content');
  for (const format of ['gnu', 'pax', 'ustar', 'v7', 'oldgnu']) {
    const names = format === 'ustar' || format === 'v7' ? ['in/file'] : ['in'];
    const tar = execFileSync('tar', ['-C', dir, `--format=${format}`, '-cf', '-', ...names]);
    const listed = execFileSync('tar', ['-tf', '-', '--quoting-style=literal'], { input: tar })
      .toString('latin1')
      .trim()
      .split('\n');
    t.same(
      readAll(tar).entries.map((e) => e.name),
      listed,
      format,
    );
  }
});

t.test('TarReader: the origin of an entry, where it is asked for', async (t) => {
  const entries: TarEntry[] = [];
  const reader = new TarReader((entry) => entries.push(entry), { origins: true });
  const tar = Buffer.concat([
    rawEntry(
      {
        name: 'a',
        mode: 0o100644,
        patch: [
          [265, Buffer.from('user')],
          [297, Buffer.from('group')],
        ],
      },
      'a',
    ),
    paxEntry({ uname: 'm\u00fcller', comment: 'x', gname: '', 'SCHILY.xattr.user.a': Buffer.from([0xff, 0]) }),
    rawEntry({ name: 'b', type: '5', patch: [[297, Buffer.alloc(32, 'g')]] }),
    rawEntry({ name: 'v7', magic: '\0\0\0\0\0\0\0\0', patch: [[265, Buffer.from('nobody')]] }),
    END,
    Buffer.alloc(5000),
  ]);
  reader.push(tar);
  reader.end();
  t.strictSame(
    entries.map(({ origin }) => origin),
    [
      { position: 512, mode: 0o100644, uname: 'user', gname: 'group', records: new Map() },
      {
        ...{ position: 2560, mode: 0o644, uname: 'm\xc3\xbcller', gname: 'g'.repeat(32) },
        records: new Map([
          ['uname', 'm\xc3\xbcller'],
          ['comment', 'x'],
          ['gname', ''],
          ['SCHILY.xattr.user.a', '\xff\0'],
        ]),
      },
      { position: 3072, mode: 0o644, uname: '', gname: '', records: new Map() },
    ],
  );
  t.equal(reader.archiveSize, tar.length - 5000, 'with the blocks that end it');
  t.notOk('origin' in one(rawEntry({})));
});
