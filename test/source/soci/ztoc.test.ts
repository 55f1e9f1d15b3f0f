import { gzipSync } from 'node:zlib';
import t from 'tap';
import { FlatWriter } from '../../../src/source/soci/flatbuffer.js';
import { decodeZtoc, encodeZtoc, type Ztoc } from '../../../src/source/soci/ztoc.js';
import { codeOf } from '../../compress/support.js';
import { paxEntry, makeTar, rawEntry } from '../../support/tar.js';
import { tempDir } from '../../support/tmp.js';
import { buildZtoc, plainOf, readZtoc, skipWithoutOracle } from './support.js';

/**
 * Made by Google's flatbuffers 25.12.19 (Python), called in the order in which SOCI's ztoc_marshaler.go calls it; the values
 * are those of `known`.
 */
const golden = Buffer.from(
  [
    'GAAAAAAAAAAQACgAJAAgABAACAAcAAQAEAAAADAAAAAAIAAAAAAAANIEAAAAAAAAAAAAAOQAAABQBAAAZAQAAAwAEAAAAAwACAAEAAwAAACwAA',
    'AACAAAAAEAAAACAAAAVAAAAAQAAABHAAAAc2hhMjU2OmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJi',
    'YmJiYmJiYmJiYmJiYmIARwAAAHNoYTI1NjphYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYW',
    'FhYWFhYWFhAAwAAAACAAAAAABAAAAAAAAAAAYACAAEAAYAAAAEAAAABAAAADAAAADUAAAAFAIAAMwCAAAgADQAMAAsACQAAAAgABQAAAAAABAA',
    'DAAIAAAAAAAEACAAAAAwAAAAMAAAAEgAAABQAAAA7QEAAAAAAAAAAAAATAAAAAACAAAAAAAASAAAAEwAAAAAAAAAFAAAADIwMjQtMDItMjlUMT',
    'I6MDA6MDBaAAAAAAQAAAByb290AAAAAAQAAAByb290AAAAAAAAAAAAAAAAAwAAAGRpcgAEAAAAZGlyLwAAAAAgAEQAQAA8ADQALAAoABwAGAAU',
    'ABAADAAIAAAAAAAEACAAAABAAAAA0AAAAOgAAADsAAAA/v///+gDAACkgQAAAAAAAAAAAADcAAAAZAAAAAAAAAAACgAAAAAAANAAAADUAAAAAw',
    'AAAGQAAAAsAAAABAAAALD///8IAAAAEAAAAAUAAAAtMC43NQAAAAUAAABtdGltZQAAANT///8IAAAADAAAAAMAAAD/AHgAEwAAAFNDSElMWS54',
    'YXR0ci51c2VyLmIACAAMAAgABAAIAAAACAAAAAwAAAAAAAAAAAAAABMAAABTQ0hJTFkueGF0dHIudXNlci5hABcAAAAxOTY5LTEyLTMxVDIzOj',
    'U5OjU5LjI1WgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADAAAAcmVnAAgAAABkaXIvZmlsZQAAAAAgAEgARABAADgAAAA0ACgAAAAAACQAIAAc',
    'ABAACAAEACAAAABEAAAAAQAAAAAAAAAFAAAAAAAAAAAAAAAwAAAAUAAAAFQAAAC2AQAAAAAAAAAAAABMAAAAAA4AAAAAAABIAAAAUAAAAAAAAA',
    'AeAAAAMTk3MC0wMS0wMVQwMDowMDowMC4wMDAwMDAwMDFaAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAY2hhcgAAAAADAAAAZGV2ACAA',
    'OAA0ADAAJAAAACAAFAAAAAAAEAAMAAgAAAAAAAQAIAAAADQAAAA0AAAATAAAAFAAAAD/AQAAAAAAAAAAAABIAAAAABAAAAAAAAAAAAAASAAAAF',
    'AAAAAAAAAAFAAAADk5OTktMTItMzFUMjM6NTk6NTlaAAAAAAAAAAAAAAAAAAAAAAAAAAAIAAAAZGlyL2ZpbGUAAAAABwAAAHN5bWxpbmsAAQAA',
    'AGwAAAARAAAAQVdTIFNPQ0kgQ0xJIHYwLjIAAAADAAAAMC45AA==',
  ].join(''),
  'base64',
);

const file = {
  ...{
    linkName: '',
    mode: 0o777,
    uid: 0,
    gid: 0,
    uname: '',
    gname: '',
    mtimeNsec: 0,
    size: 0,
    devMajor: 0,
    devMinor: 0,
  },
  records: new Map<string, string>(),
};
const known = {
  tool: 'AWS SOCI CLI v0.2',
  compressedSize: 1234,
  uncompressedSize: 8192,
  algorithm: 'gzip',
  maxSpanId: 1,
  files: [
    {
      ...file,
      type: 'directory',
      name: 'dir/',
      offset: 512,
      mode: 493,
      uname: 'root',
      gname: 'root',
      mtime: 1709208000,
    },
    {
      ...{ ...file, type: 'file', name: 'dir/file', offset: 2560, size: 100, mode: 33188, uid: 1000, gid: 4294967294 },
      ...{ mtime: -1, mtimeNsec: 250_000_000 },
      records: new Map([
        ['SCHILY.xattr.user.a', ''],
        ['SCHILY.xattr.user.b', '\xff\0x'],
        ['mtime', '-0.75'],
      ]),
    },
    {
      ...{ ...file, type: 'char', name: 'dev', offset: 3584, mode: 438, devMajor: 5, devMinor: 1 },
      ...{ mtime: 0, mtimeNsec: 1 },
    },
    { ...file, type: 'symlink', name: 'l', offset: 4096, linkName: 'dir/file', mtime: 253402300799 },
  ],
  spanDigests: [`sha256:${'a'.repeat(64)}`, `sha256:${'b'.repeat(64)}`],
  checkpoints: Buffer.from('020000000000400000000000', 'hex'),
} as unknown as Ztoc;

t.test('decodeZtoc and encodeZtoc: the bytes of the official builder', async (t) => {
  t.strictSame(decodeZtoc(golden), known);
  t.ok(encodeZtoc(known).equals(golden));
});

t.test('decodeZtoc reads what another builder lays out in another way', async (t) => {
  if (skipWithoutOracle(t)) return;
  const tar = await makeTar([
    paxEntry({ 'SCHILY.xattr.user.x': Buffer.from([0x80, 0]), mtime: '1.25' }),
    rawEntry({ name: 'a', uid: 5, mode: 0o1644 }, 'content'),
    { name: 'b', type: 'symlink', linkname: 'a', uname: 'me', gname: 'us' },
  ]);
  const directory = tempDir(t);
  for (const [layer, zinfo] of [
    [gzipSync(tar), 1],
    [gzipSync(tar), 2],
    [tar, 'tar'],
  ] as const) {
    const { bytes, plain } = buildZtoc(directory, layer, 4096, zinfo);
    const decoded = decodeZtoc(bytes);
    t.strictSame(plainOf(decoded), plain);
    t.strictSame(readZtoc(directory, encodeZtoc(decoded)), plain, 'and it reads what we write of that');
  }
});

t.test('decodeZtoc: times in other zones, and of years that have none', async (t) => {
  const at = (mtime: number, text: string): unknown => {
    const bytes = encodeZtoc({ ...known, files: [{ ...known.files[0]!, mtime }] });
    const place = bytes.indexOf('2024-02-29T12:00:00Z');
    if (text !== '') bytes.write(text, place === -1 ? bytes.indexOf('2024') : place);
    try {
      const { mtime, mtimeNsec } = decodeZtoc(bytes).files[0]!;
      return [mtime, mtimeNsec];
    } catch (e) {
      return (e as { code: string }).code;
    }
  };
  t.strictSame(at(1709208000, ''), [1709208000, 0]);
  t.strictSame(at(253402300800, ''), [0, 0], 'the year 10000');
  t.strictSame(at(-62167219200, ''), [-62167219200, 0], 'the year 0');
  t.strictSame(at(1709208000, '2024-02-30T12:00:00Z'), 'SOCI_INVALID', 'no such day');
  t.strictSame(at(1709208000, '2024-02-29T12:00:60Z'), 'SOCI_INVALID', 'no such second');
  t.strictSame(at(1709208000, '2024-02-29 12:00:00Z'), 'SOCI_INVALID');
  const zoned = encodeZtoc({ ...known, files: [{ ...known.files[0]!, mtimeNsec: 123_450_000 }] });
  zoned.write('2024-02-29T12:00:00+01:30', zoned.indexOf('2024-02-29T12:00:00.12345Z'));
  // The text is one byte longer than its new content.
  t.equal(
    codeOf(() => decodeZtoc(zoned)),
    'SOCI_INVALID',
  );
  const whole = encodeZtoc({ ...known, files: [{ ...known.files[0]!, mtimeNsec: 123_400_000 }] });
  whole.write('2024-02-29T12:00:00+01:30', whole.indexOf('2024-02-29T12:00:00.1234Z'));
  t.equal(decodeZtoc(whole).files[0]?.mtime, 1709208000 - 5400);
});

t.test('decodeZtoc: cut at each byte, and with each byte changed', async (t) => {
  const codes = new Set<string>();
  for (let end = 0; end < golden.length; end++) {
    const code = codeOf(() => decodeZtoc(golden.subarray(0, end)));
    // The last bytes may be padding or the end of a text that nothing leads to.
    if (code === 'none') t.ok(end > golden.length - 8, `cut at ${end}`);
    codes.add(code);
  }
  for (let at = 0; at < golden.length; at++) {
    for (const value of [0, 1, 0x7f, 0x80, 0xff]) {
      const bytes = Buffer.from(golden);
      bytes[at] = value;
      codes.add(codeOf(() => decodeZtoc(bytes)));
    }
  }
  t.strictSame([...codes].sort(), ['DIGEST_INVALID', 'SOCI_INVALID', 'none']);
});

t.test('decodeZtoc refuses what contradicts itself', async (t) => {
  const refused = (change: Partial<Ztoc>): string => codeOf(() => decodeZtoc(encodeZtoc({ ...known, ...change })));
  const [first, second, ...rest] = known.files as [Ztoc['files'][0], Ztoc['files'][0], ...Ztoc['files'][]];
  t.equal(refused({ maxSpanId: 2 }), 'SOCI_INVALID');
  t.equal(refused({ maxSpanId: -1, spanDigests: [] }), 'SOCI_INVALID');
  t.equal(refused({ compressedSize: -1 }), 'SOCI_INVALID');
  t.equal(refused({ files: [{ ...first, offset: 511 }] }), 'SOCI_INVALID', 'no room for its header');
  t.equal(refused({ files: [first, { ...second, offset: 1023 }] }), 'SOCI_INVALID', 'over the one before');
  t.equal(refused({ files: [first, { ...second, offset: 1024 }] }), 'none');
  t.equal(refused({ files: [first, { ...second, size: 8192 - 2560 }] }), 'none');
  t.equal(refused({ files: [first, { ...second, size: 8193 - 2560 }] }), 'SOCI_INVALID', 'behind the end');
  t.equal(refused({ files: [{ ...first, size: -1 }] }), 'SOCI_INVALID');
  const reversed = [...rest.flat(), second, first] as Ztoc['files'];
  t.strictSame(decodeZtoc(encodeZtoc({ ...known, files: reversed })).files, known.files, 'order does not matter');
});

t.test('decodeZtoc: a small file that leads to the same bytes over and over is refused', async (t) => {
  /** Files that share one name of this length. */
  const shared = (files: number, length: number): Buffer => {
    const writer = new FlatWriter();
    const name = writer.text('x'.repeat(length));
    const type = writer.text('reg');
    const tables = Array.from({ length: files }, (_, i) =>
      writer.table(14, [
        { slot: 0, type: 'reference', value: name },
        { slot: 1, type: 'reference', value: type },
        { slot: 2, type: 'i64', value: 512 * (i + 1) },
      ]),
    );
    const toc = writer.table(1, [{ slot: 0, type: 'reference', value: writer.vector(tables) }]);
    const digests = writer.vector([writer.text(`sha256:${'0'.repeat(64)}`)]);
    const info = writer.table(4, [{ slot: 2, type: 'reference', value: digests }]);
    return writer.finish(
      writer.table(6, [
        { slot: 0, type: 'reference', value: writer.text('0.9') },
        { slot: 3, type: 'i64', value: 2 ** 40 },
        { slot: 4, type: 'reference', value: toc },
        { slot: 5, type: 'reference', value: info },
      ]),
    );
  };
  t.equal(decodeZtoc(shared(5000, 20)).files.length, 5000, 'a builder may write equal texts once');
  t.throws(() => decodeZtoc(shared(5000, 100_000)), { code: 'SOCI_INVALID', message: /over and over/ });
});
