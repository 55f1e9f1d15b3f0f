import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import t from 'tap';
import { decodeFrom } from '../../../src/compress/index.js';
import { tarEntryOf } from '../../../src/source/soci/entries.js';
import { LAYER_MIN, SPAN_SIZE, writeZtoc, type ZtocJob } from '../../../src/source/soci/write-ztoc.js';
import { decodeSpans } from '../../../src/source/soci/zinfo.js';
import { decodeZtoc, type Ztoc } from '../../../src/source/soci/ztoc.js';
import type { TarEntry } from '../../../src/tar/entry.js';
import { TarReader } from '../../../src/tar/reader.js';
import { codeOf, sourceOf } from '../../compress/support.js';
import { makeTar, paxEntry, rawEntry } from '../../support/tar.js';
import { tempDir } from '../../support/tmp.js';
import { buildZtoc, digestOf, makeLayerTar, only, plainOf, readZtoc, skipWithoutOracle } from './support.js';

const tar = await makeLayerTar();

function job(layer: Uint8Array, more: Partial<ZtocJob> = {}): ZtocJob {
  return { blob: sourceOf(layer), digest: digestOf(layer), compression: 'gzip', tool: 'oracle', ...more };
}

/** gzip(1), which writes the file's name into the header. */
function gzipWithName(bytes: Uint8Array, directory: string): Buffer {
  const path = join(directory, 'a-name-of-some-length.tar');
  writeFileSync(path, bytes);
  return execFileSync('gzip', ['-6', '-N', '-c', path], { maxBuffer: 2 ** 28 });
}

/** Each span from its checkpoint and its own bytes of the blob alone. */
function spansAreRight(ztoc: Ztoc, layer: Buffer, stream: Buffer): { wrong: number[]; lengths: number[] } {
  const wrong: number[] = [];
  const lengths: number[] = [];
  decodeSpans(ztoc).forEach(({ start, end, outputEnd, point }, i) => {
    const wanted = stream.subarray(point.output, outputEnd);
    const got: Buffer[] = [];
    const source = only(layer, Math.min(start, point.input), end);
    decodeFrom(ztoc.algorithm === 'gzip' ? 'gzip' : 'none', point, source, wanted.length, (o) =>
      got.push(Buffer.from(o)),
    );
    const right = Buffer.concat(got).equals(wanted) && ztoc.spanDigests[i] === digestOf(layer.subarray(start, end));
    if (!right) wrong.push(i);
    lengths.push(wanted.length);
  });
  return { wrong, lengths };
}

const members = Buffer.concat(
  Array.from({ length: Math.ceil(tar.length / 700_001) }, (_, i) =>
    gzipSync(tar.subarray(i * 700_001, (i + 1) * 700_001), { level: 1 + (i % 9) }),
  ),
);

t.test('writeZtoc: what another builder makes of the same layer, byte for byte of each field', async (t) => {
  if (skipWithoutOracle(t)) return;
  const directory = tempDir(t);
  const layers = {
    'gzip -1': gzipSync(tar, { level: 1 }),
    'gzip -9': gzipSync(tar, { level: 9 }),
    'with a name': gzipWithName(tar, directory),
    'many members': members,
    stored: gzipSync(tar, { level: 0 }),
  };
  for (const [name, layer] of Object.entries(layers)) {
    for (const spanSize of [SPAN_SIZE, 1_000_000, 100_000]) {
      const ztoc = decodeZtoc(writeZtoc(job(layer, { spanSize })));
      const { plain } = buildZtoc(directory, layer, spanSize, 2);
      t.strictSame(plainOf(ztoc), plain, `${name}, spans of ${spanSize}`);
      t.ok(plain.maxSpanId >= Math.floor(tar.length / spanSize / 2), `${plain.maxSpanId}`);
    }
  }
  const plain = writeZtoc(job(tar, { compression: 'none' }));
  // Of the flatbuffer within, layouts differ.
  const ours = { ...readZtoc(directory, plain), checkpoints: '' };
  const theirs = { ...buildZtoc(directory, tar, SPAN_SIZE, 'tar').plain, checkpoints: '' };
  t.strictSame(ours, theirs, 'not compressed');
});

t.test("each span inflates from its checkpoint alone, ours and another builder's, of both versions", async (t) => {
  if (skipWithoutOracle(t)) return;
  const directory = tempDir(t);
  const layers = { gzip: gzipSync(tar), members, name: gzipWithName(tar, directory) };
  for (const [name, layer] of Object.entries(layers)) {
    const ours = writeZtoc(job(layer));
    const all = {
      ours,
      v1: buildZtoc(directory, layer, 300_000, 1).bytes,
      v2: buildZtoc(directory, layer, SPAN_SIZE, 2).bytes,
    };
    for (const [by, bytes] of Object.entries(all)) {
      const ztoc = decodeZtoc(bytes);
      const { wrong, lengths } = spansAreRight(ztoc, layer, gunzipSync(layer));
      t.strictSame(wrong, [], `${name}, ${by}`);
      t.equal(
        lengths.reduce((a, b) => a + b),
        tar.length,
      );
      t.ok(lengths.slice(0, -1).every((length) => length > (by === 'v1' ? 300_000 : SPAN_SIZE)));
    }
  }
  const bytes = {
    ours: writeZtoc(job(tar, { compression: 'none' })),
    theirs: buildZtoc(directory, tar, 1_000_000, 'tar').bytes,
  };
  for (const [by, ztoc] of Object.entries(bytes)) t.strictSame(spansAreRight(decodeZtoc(ztoc), tar, tar).wrong, [], by);
});

t.test("SPAN_SIZE and LAYER_MIN are those of SOCI's builder", async (t) => {
  t.strictSame([SPAN_SIZE, LAYER_MIN], [4_194_304, 10_485_760]);
});

t.test('tarEntryOf: a ztoc has the entries that the tar reader finds', async (t) => {
  const wanted: TarEntry[] = [];
  const reader = new TarReader((entry) => wanted.push(entry));
  reader.push(tar);
  reader.end();
  const { files } = decodeZtoc(writeZtoc(job(gzipSync(tar))));
  t.strictSame(
    files.map((file, i) => tarEntryOf(file, i + 1)),
    wanted,
  );
});

t.test('writeZtoc: zeros behind the archive are no spans, an archive without its end is one', async (t) => {
  const small = await makeTar([{ name: 'f', content: 'content' }]);
  const long = Buffer.concat([small, Buffer.alloc(2_000_000)]);
  const ztoc = decodeZtoc(writeZtoc(job(gzipSync(long, { level: 1 }), { spanSize: 65_536 })));
  t.match(ztoc, { uncompressedSize: small.length, maxSpanId: 0 });
  const plain = decodeZtoc(writeZtoc(job(long, { spanSize: 65_536, compression: 'none' })));
  t.match(plain, { uncompressedSize: small.length, maxSpanId: 30 });
  t.strictSame(spansAreRight(plain, long, long).wrong, []);
  const cut = small.subarray(0, 1024);
  t.equal(decodeZtoc(writeZtoc(job(gzipSync(cut)))).uncompressedSize, 1024);
});

t.test('writeZtoc: a gzip header with everything in it', async (t) => {
  const deflated = gzipSync(tar).subarray(10);
  const header = Buffer.from([0x1f, 0x8b, 8, 4 + 8 + 16 + 2, 0, 0, 0, 0, 0, 3]);
  const extra = Buffer.concat([Buffer.from([0x2c, 1]), Buffer.alloc(300, 7)]);
  const fields = Buffer.concat([header, extra, Buffer.from('name\0'), Buffer.alloc(700, 'c'), Buffer.from([0])]);
  // CRC-16 of the header: the low half of the CRC-32, which is in the trailer of a gzip of it.
  const crc = gzipSync(fields).subarray(-8, -6);
  const layer = Buffer.concat([fields, crc, deflated]);
  const ztoc = decodeZtoc(writeZtoc(job(layer)));
  t.equal(decodeSpans(ztoc)[0]?.start, fields.length + 2);
  t.strictSame(spansAreRight(ztoc, layer, tar).wrong, []);
});

t.test('writeZtoc refuses another blob, and what a ztoc has no words for', async (t) => {
  const small = gzipSync(await makeTar([{ name: 'f', content: 'content' }]));
  t.equal(
    codeOf(() => writeZtoc(job(small, { digest: digestOf(tar) }))),
    'BLOB_DIGEST_MISMATCH',
  );
  t.equal(
    codeOf(() => writeZtoc(job(small.subarray(0, -9)))),
    'COMPRESSION_TRUNCATED',
  );
  const records = { 'GNU.sparse.size': '2048', 'GNU.sparse.numblocks': '1', 'GNU.sparse.map': '1024,512' };
  const sparse = await makeTar([paxEntry(records), rawEntry({ name: 's' }, Buffer.alloc(512, 1))]);
  t.equal(
    codeOf(() => writeZtoc(job(gzipSync(sparse)))),
    'TAR_UNSUPPORTED',
  );
});
