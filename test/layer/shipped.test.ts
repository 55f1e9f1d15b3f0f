/** Parts of a Lamina index: right ones give the same tree as the layer itself, wrong ones are refused. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { digestOf, sha256 } from '../../src/digest/index.js';
import { prepareImage } from '../../src/image/prepare.js';
import { indexShipped, type ShippedJob } from '../../src/layer/shipped-pass.js';
import { openBlob } from '../../src/source/blob.js';
import { embeddedLocation } from '../../src/source/documents.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import { writeFileList } from '../../src/source/soci/write-ztoc.js';
import { decodeZtoc, encodeZtoc } from '../../src/source/soci/ztoc.js';
import { Store } from '../../src/store/store.js';
import { codeOf } from '../compress/support.js';
import { makeLayout, type LayerCompression } from '../support/images.js';
import { tempDir } from '../support/tmp.js';

type Bytes = Record<'files' | 'chunks' | 'map', Buffer>;

interface Indexed {
  readonly bytes: Bytes;
  readonly tree: Buffer;
  readonly job: Omit<ShippedJob, 'parts' | 'temporary' | 'layerDirectory'>;
}

const random = Buffer.concat(Array.from({ length: 100_000 }, (_, i) => sha256(Buffer.from(String(i)))));

async function indexed(t: Test, compression: LayerCompression): Promise<Indexed> {
  const directory = tempDir(t);
  const entries = [
    { name: 'd/', type: 'directory', mode: 0o700, uid: 5 },
    { name: 'd/f', content: random, xattrs: { 'user.a': 'b' } },
    { name: 'd/g', type: 'link', linkname: 'd/f' },
    { name: 'l', type: 'symlink', linkname: 'd' },
  ] as const;
  const { reference } = await makeLayout(join(directory, 'image'), { layers: [{ entries, compression }] });
  const image = await resolveImage(parseReference(reference, '/'), {});
  const { layers } = await prepareImage(image, { store: Store.open(join(directory, 'store')), compat: 'spec' });
  const { directory: known, mapPath, blob: location } = layers[0]!;
  const { digest, size, diffId } = image.layers[0]!;
  const blob = openBlob(location);
  const files = gzipSync(writeFileList({ blob, digest: digest!, compression, tool: 'test' }));
  blob.close();
  return {
    bytes: { files, chunks: readFileSync(join(known, 'chunks')), map: readFileSync(mapPath) },
    tree: readFileSync(join(known, 'tree.erofs')),
    job: { diffId, digest: digest!, size },
  };
}

function run(t: Test, { bytes, job }: Indexed, changed: Partial<Bytes> = {}, of: Partial<ShippedJob> = {}): string {
  const directory = tempDir(t);
  const part = (content: Buffer): ShippedJob['parts']['map'] => {
    const digest = digestOf(content);
    return { blob: embeddedLocation(content, digest), digest };
  };
  const { files, chunks, map } = { ...bytes, ...changed };
  const parts = { files: part(files), chunks: part(chunks), map: part(map) };
  const temporary = join(directory, 'tmp');
  const layerDirectory = join(directory, 'layer');
  try {
    indexShipped({ ...job, parts, temporary, layerDirectory, ...of });
    return layerDirectory;
  } finally {
    t.notOk(existsSync(temporary), 'nothing half done is left');
  }
}

/** A file whose last 32 bytes are the SHA-256 of the others, with a change. */
function resealed(bytes: Buffer, change: (body: Buffer) => void): Buffer {
  const body = Buffer.from(bytes.subarray(0, -32));
  change(body);
  return Buffer.concat([body, sha256(body)]);
}

/** Byte of a map where its restart points begin. */
function pointsOf(map: Buffer): number {
  return Math.ceil((48 + map.readUInt8(9) + map.readUInt8(10) + map.readUInt32LE(36)) / 8) * 8;
}

for (const compression of ['gzip', 'none'] as const) {
  t.test(`${compression}: the tree is that of the layer`, async (t) => {
    const made = await indexed(t, compression);
    const directory = run(t, made);
    t.ok(readFileSync(join(directory, 'tree.erofs')).equals(made.tree));
    t.ok(readFileSync(join(directory, 'map')).equals(made.bytes.map));
  });
}

t.test('parts that a reader could not rely on are refused', async (t) => {
  const made = await indexed(t, 'gzip');
  const { files, chunks, map } = made.bytes;
  const ztoc = decodeZtoc(gunzipSync(files));
  const filesWith = (change: Partial<(typeof ztoc.files)[number]>): Buffer =>
    gzipSync(encodeZtoc({ ...ztoc, files: ztoc.files.map((file) => (file.size > 0 ? { ...file, ...change } : file)) }));
  const at = pointsOf(map);
  const point = (i: number, field: number, value: bigint): Buffer =>
    resealed(map, (body) => body.writeBigUInt64LE(value, at + 40 * i + field));
  const cases: [string, Partial<Bytes>, Partial<ShippedJob>?][] = [
    ['no gzip', { files: Buffer.from('x') }],
    ['no list', { files: gzipSync(Buffer.from('x')) }],
    ['a file outside', { files: filesWith({ size: 1e9 }) }],
    ['a file off the blocks', { files: filesWith({ offset: 1537 }) }],
    ['no chunks', { chunks: Buffer.alloc(100) }],
    ['chunks with a copy', { chunks: resealed(chunks, (body) => body.writeUInt32LE(1, 28)) }],
    ['no map', { map: Buffer.alloc(200) }],
    ['a map with a wrong checksum', { map: Buffer.concat([map.subarray(0, -1), Buffer.from([map.at(-1)! ^ 1])]) }],
    ['a map of another size', { map: resealed(map, (body) => body.writeBigUInt64LE(9n, 16)) }],
    ['a map of another stream', { map: resealed(map, (body) => body.writeBigUInt64LE(9n, 24)) }],
    ['a map with kept bytes', { map: resealed(map, (body) => body.writeBigUInt64LE(1n, 40)) }],
    ['a plain map of a gzip layer', { map: resealed(map, (body) => body.writeUInt8(0, 8)) }],
    ['a first point that is not first', { map: point(0, 8, 512n) }],
    ['points backwards', { map: point(1, 8, 0n) }],
    ['points backwards in the blob', { map: point(1, 0, 0n) }],
    ['a point behind the blob', { map: point(2, 0, 1n << 40n) }],
    ['bits of no byte', { map: resealed(map, (body) => body.writeUInt8(9, at + 40 + 32)) }],
    [
      'bits before the blob',
      { map: resealed(map, (body) => body.writeBigUInt64LE(0n, at) && body.writeUInt8(1, at + 32)) },
    ],
    ['no points', { map: resealed(map, (body) => body.writeUInt32LE(0, 32)) }],
    ['another layer', {}, { digest: digestOf(Buffer.from('other')) }],
    ['another diffID', {}, { diffId: digestOf(Buffer.from('other')) }],
  ];
  for (const [name, changed, of] of cases) {
    const code = codeOf(() => run(t, made, changed, of));
    t.match(code, /^(?:MANIFEST|SOCI)_INVALID$/, name);
  }
});
