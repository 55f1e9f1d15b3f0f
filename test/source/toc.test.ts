/** Tables of contents: what is read of them, and what is refused. */
import t from 'tap';
import { gunzipSync } from 'node:zlib';
import type { RandomAccessBlob } from '../../src/source/blob.js';
import { parseToc, type TocDocument } from '../../src/source/toc/document.js';
import { tocPlaceOf } from '../../src/source/toc/place.js';
import { readToc } from '../../src/source/toc/read.js';
import { makeEstargz } from '../support/estargz.js';

const gzip = 'application/vnd.oci.image.layer.v1.tar+gzip';
const zstd = 'application/vnd.oci.image.layer.v1.tar+zstd';
const sha = (c: string): string => `sha256:${c.repeat(64)}`;

function blobOf(bytes: Buffer): RandomAccessBlob {
  return {
    size: bytes.length,
    has: () => true,
    need: () => undefined,
    discard: () => false,
    read: (offset, into) => bytes.copy(into, 0, offset),
    close: () => undefined,
  };
}

const json = (entries: unknown, version: unknown = 1): Buffer => Buffer.from(JSON.stringify({ version, entries }));
const parse = (...entries: unknown[]): TocDocument => parseToc(json(entries), 1000);

t.test('tocPlaceOf takes what a descriptor binds by a digest', async (t) => {
  const estargz = 'containerd.io/snapshot/stargz/toc.digest';
  t.strictSame(tocPlaceOf(gzip, { [estargz]: sha('a') }), { format: 'estargz', digest: sha('a') });
  for (const prefix of ['io.github.containers.zstd-chunked.', 'io.containers.zstd-chunked.']) {
    const annotations = { [`${prefix}manifest-checksum`]: sha('b'), [`${prefix}manifest-position`]: '100:20:300:1' };
    const place = { format: 'zstd-chunked', digest: sha('b'), offset: 100, length: 20, rawLength: 300 };
    t.strictSame(tocPlaceOf(zstd, annotations), place);
    t.equal(tocPlaceOf(gzip, annotations), undefined, 'not of another compression');
    t.equal(tocPlaceOf(zstd, { ...annotations, [`${prefix}manifest-position`]: '1:2:3:2' }), undefined);
  }
  t.equal(tocPlaceOf(gzip, {}), undefined);
  t.equal(tocPlaceOf(gzip, { [estargz]: 'sha256:short' }), undefined);
  t.equal(tocPlaceOf(gzip, { [estargz]: `sha512:${'a'.repeat(128)}` }), undefined, 'the format knows SHA-256 only');
});

t.test('readToc takes the table of an eStargz from another blob', async (t) => {
  const { blob, table, annotations } = await makeEstargz([{ name: 'f', content: 'hello' }], { external: true });
  const digest = annotations['containerd.io/snapshot/stargz/toc.digest'] ?? '';
  const place = { format: 'estargz', digest } as const;
  const { json, dataEnd } = readToc(blobOf(blob), place, blobOf(table.blob));
  t.equal(dataEnd, blob.length - 46);
  t.equal(parseToc(json, dataEnd).entries[0]?.name, 'f');
  t.throws(() => readToc(blobOf(blob), place), { code: 'MANIFEST_INVALID' }, 'its own blob has none');
  t.throws(() => readToc(blobOf(blob), { format: 'estargz', digest: sha('0') }, blobOf(table.blob)), {
    code: 'BLOB_DIGEST_MISMATCH',
  });
  const own = await makeEstargz([{ name: 'f', content: 'hello' }]);
  t.throws(() => readToc(blobOf(own.blob), place, blobOf(table.blob)), { code: 'MANIFEST_INVALID' });
});

t.test('readToc finds and verifies the table of an eStargz', async (t) => {
  const layer = await makeEstargz([{ name: 'a', content: 'hello' }]);
  const [digest = ''] = Object.values(layer.annotations);
  const { json: found, dataEnd, compression } = readToc(blobOf(layer.blob), { format: 'estargz', digest });
  t.strictSame(JSON.parse(found.toString()), layer.toc);
  t.equal(compression, 'gzip');
  t.equal(gunzipSync(layer.blob.subarray(0, -51)).length, layer.tar.length, 'the fixture is a gzip of its tar');
  t.ok(dataEnd > 0 && dataEnd < layer.blob.length);
  t.throws(() => readToc(blobOf(layer.blob), { format: 'estargz', digest: sha('0') }), {
    code: 'BLOB_DIGEST_MISMATCH',
  });
  for (let cut = 0; cut < layer.blob.length; cut += 7) {
    const refused = (): unknown => readToc(blobOf(layer.blob.subarray(0, cut)), { format: 'estargz', digest });
    t.throws(refused, { name: 'LaminaError' }, `cut at ${cut}`);
  }
});

t.test('parseToc gives every file a place of its own in the order of the table', async (t) => {
  const { entries, chunks, addressSpace, content } = parse(
    { name: 'd', type: 'dir', mode: 0o755, uid: 1, gid: 2, modtime: '2020-01-02T03:04:05.000000006Z' },
    { name: 'd/small', type: 'reg', size: 5, offset: 10, digest: sha('a'), xattrs: { 'user.ü': 'AAE=' } },
    { name: 'd/large', type: 'reg', size: 70_000, offset: 100, chunkSize: 65_536, chunkDigest: sha('b') },
    { name: 'd/large', type: 'chunk', offset: 300, chunkOffset: 65_536, chunkSize: 4464, chunkDigest: sha('c') },
    { name: 'empty', type: 'reg' },
    { name: 'inner', type: 'reg', size: 3, offset: 300, innerOffset: 4464, digest: sha('d') },
    { name: 'link', type: 'symlink', linkName: 'd/ü', mode: 0o777 },
    { name: 'dev', type: 'char', devMajor: 4, devMinor: 5 },
  );
  t.match(entries[0], { type: 'directory', uid: 1, gid: 2, mtime: 1577934245, mtimeNsec: 6, order: 1 });
  t.strictSame([...entries[1]!.xattrs], [[Buffer.from('user.ü').toString('latin1'), Buffer.from([0, 1])]]);
  t.equal(entries[5]!.linkName, Buffer.from('d/ü').toString('latin1'), 'names are bytes');
  t.strictSame(
    chunks.map(({ address, size, offset, end, inner }) => [address, size, offset, end, inner]),
    [
      [0, 5, 10, 100, 0],
      [65_536, 65_536, 100, 300, 0],
      [131_072, 4464, 300, 1000, 0],
      [458_752, 3, 300, 1000, 4464],
    ],
    'large files lie between borders of 64 KiB, with room behind them for what the kernel reads ahead',
  );
  t.strictSame({ addressSpace, content }, { addressSpace: 458_752 + 512, content: 5 + 70_000 + 3 });
});

t.test('parseToc refuses what it cannot verify or place', async (t) => {
  const file = { name: 'f', type: 'reg', size: 10, offset: 1, digest: sha('a') };
  const chunk = { name: 'f', type: 'chunk', offset: 5, chunkOffset: 4, chunkDigest: sha('b') };
  const first = { ...file, chunkSize: 4, chunkDigest: sha('c') };
  const table: readonly [string, Buffer][] = [
    ['no JSON', Buffer.from('{')],
    ['another version', json([file], 2)],
    ['no list', json({})],
    ['an entry that is no object', json([1])],
    ['an unknown type', json([{ ...file, type: 'socket' }])],
    ['a type that every object has', json([{ ...file, type: 'constructor' }])],
    ['content without a digest', json([{ ...file, digest: '' }])],
    ['a digest of another algorithm', json([{ ...file, digest: 'md5:abc' }])],
    ['several chunks with the digest of all only', json([{ ...file, chunkSize: 4 }, chunk])],
    ['a chunk that does not follow', json([first, { ...chunk, chunkOffset: 5 }])],
    ['chunks that overlap', json([first, { ...chunk, chunkOffset: 3 }])],
    ['a chunk of a wrong size', json([first, { ...chunk, chunkSize: 7 }])],
    ['a chunk behind the end', json([first, { ...chunk, chunkOffset: 11 }])],
    ['a chunk of a directory', json([{ name: 'd', type: 'dir' }, chunk])],
    ['a chunk of nothing', json([chunk])],
    ['an offset behind the content', json([{ ...file, offset: 1001 }])],
    ['a negative offset', json([{ ...file, offset: -1 }])],
    ['a size that is no number', json([{ ...file, size: '10' }])],
    ['sizes beyond 2^53', json([{ ...file, size: 2 ** 53 }])],
    ['a sum beyond 2^53', json([1, 2, 3].map(() => ({ ...file, size: 2 ** 52 })))],
    ['a time of another form', json([{ ...file, modtime: 'yesterday' }])],
    ['a name that has lost bytes', json([{ ...file, name: 'caf\ufffd' }])],
    ['attributes of another form', json([{ ...file, xattrs: { a: 1 } }])],
    ['an unknown kind of chunk', json([{ ...file, chunkType: 'ones' }])],
  ];
  for (const [what, bytes] of table) t.throws(() => parseToc(bytes, 1000), { code: 'MANIFEST_INVALID' }, what);
});

t.test('parseToc leaves out zeros, which are nowhere in the blob', async (t) => {
  const { chunks } = parse(
    { name: 'f', type: 'reg', size: 3000, offset: 1, chunkSize: 1000, chunkDigest: sha('a') },
    { name: 'f', type: 'chunk', chunkOffset: 1000, chunkSize: 1000, chunkType: 'zeros' },
    { name: 'f', type: 'chunk', chunkOffset: 2000, offset: 50, chunkDigest: sha('b') },
  );
  t.match(chunks[1], { address: 1000, size: 1000, digest: undefined });
  t.match(chunks[2], { address: 2000, size: 1000, offset: 50, end: 1000 });
});
