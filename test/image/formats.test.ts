/** Digests, descriptors and layers that are rare, end to end: resolved, indexed, read. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { prepareImage } from '../../src/image/prepare.js';
import { ImageTree } from '../../src/image/tree.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import { Store } from '../../src/store/store.js';
import { lamina } from '../support/cli.js';
import { addToIndex, blobPath, digest, makeLayout, writeBlob, writeJson, type Descriptor } from '../support/images.js';
import { makeTar, type TarPart } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const FOREIGN = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
const EMPTY = 'application/vnd.oci.empty.v1+json';

async function open(t: Test, reference: string, store: string): Promise<ImageTree> {
  const image = await resolveImage(parseReference(reference, '/'));
  const tree = ImageTree.open(await prepareImage(image, { store: Store.open(store), compat: 'spec' }));
  t.teardown(() => tree.close());
  return tree;
}

const read = (tree: ImageTree, path: string): string => tree.readFile(tree.resolve(path), 1 << 20).toString();
const names = (tree: ImageTree, path = '/'): string[] => tree.entries(tree.resolve(path)).map(({ name }) => name);

for (const name of ['sha512', 'blake3'] as const) {
  const hash = (bytes: Uint8Array): string => digest(bytes, name);
  t.test(`${name} names manifest, config, layer and diffID`, async (t) => {
    const dir = tempDir(t);
    const layout = join(dir, 'layout');
    const put = (mediaType: string, bytes: Uint8Array): Descriptor => writeBlob(layout, mediaType, bytes, name);
    const tar = await makeTar([{ name: 'a', content: 'x'.repeat(200_000) }]);
    const blob = gzipSync(tar);
    const layer = put(LAYER, blob);
    const rootfs = { type: 'layers', diff_ids: [hash(tar)] };
    const config = put(CONFIG, Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs })));
    const manifest = { schemaVersion: 2, mediaType: MANIFEST, config, layers: [layer] };
    addToIndex(layout, put(MANIFEST, Buffer.from(JSON.stringify(manifest))));

    const store = join(dir, 'store');
    t.equal(read(await open(t, `oci:${layout}`, store), '/a'), 'x'.repeat(200_000));
    const env = { LAMINA_STORE: store, LAMINA_RUN: join(dir, 'run') };
    t.equal((await lamina(['verify', `oci:${layout}`], { env })).code, 0);

    const changed = Buffer.from(blob);
    changed.writeUInt8(changed.readUInt8(4) ^ 1, 4);
    writeFileSync(blobPath(layout, layer.digest), changed);
    const verified = await lamina(['verify', `oci:${layout}`], { env });
    t.equal(verified.code, 3);
    t.match(verified.stdout, `the blob is ${hash(changed)}, wanted ${layer.digest}`);
    await t.rejects(open(t, `oci:${layout}`, join(dir, 'other')), {
      code: 'BLOB_DIGEST_MISMATCH',
      details: { wanted: layer.digest, got: hash(changed) },
    });
  });
}

interface OneLayer {
  readonly tar: Buffer;
  /** Put over the layer's descriptor. */
  readonly layer: (blob: Buffer) => Record<string, unknown>;
  readonly blobPresent?: boolean;
}

function oneLayer(directory: string, { tar, layer, blobPresent = false }: OneLayer): string {
  const blob = gzipSync(tar);
  const written = { ...writeBlob(directory, LAYER, blob), ...layer(blob) };
  if (!blobPresent) rmSync(blobPath(directory, written.digest));
  const config = writeJson(directory, CONFIG, {
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [digest(tar)] },
  });
  addToIndex(directory, writeJson(directory, MANIFEST, { schemaVersion: 2, config, layers: [written] }));
  return `oci:${directory}`;
}

t.test('a layer inside its descriptor needs no blob', async (t) => {
  const dir = tempDir(t);
  const tar = await makeTar([{ name: 'a', content: 'embedded' }]);
  const reference = oneLayer(join(dir, 'layout'), { tar, layer: (blob) => ({ data: blob.toString('base64') }) });
  t.equal(read(await open(t, reference, join(dir, 'store')), '/a'), 'embedded');
  const env = { LAMINA_STORE: join(dir, 'store'), LAMINA_RUN: join(dir, 'run') };
  t.equal((await lamina(['verify', reference], { env })).code, 0);
});

t.test('foreign layers: used where they are, and their places named where they are not', async (t) => {
  const dir = tempDir(t);
  const tar = await makeTar([{ name: 'a', content: 'foreign' }]);
  const urls = ['https://user:secret@example.com/layers/1?token=secret#x', 'nonsense'];
  const layer = (): Record<string, unknown> => ({ mediaType: FOREIGN, urls });
  const there = oneLayer(join(dir, 'there'), { tar, layer, blobPresent: true });
  t.equal(read(await open(t, there, join(dir, 'store')), '/a'), 'foreign');
  const missing = oneLayer(join(dir, 'missing'), { tar, layer });
  const error = await open(t, missing, join(dir, 'store')).catch((e: unknown) => e);
  t.match(error, {
    code: 'BLOB_MISSING',
    exitCode: 4,
    message: /layer 1 of 1/,
    hint: /not distributed with the image.* from: https:\/\/example\.com\/layers\/1 \(no URL\)$/,
  });
  t.notMatch(JSON.stringify(error), /secret/);
});

t.test('artifacts and Docker schema 1 say what they are', async (t) => {
  const dir = tempDir(t);
  const empty = { ...writeJson(dir, EMPTY, {}), data: 'e30=' };
  const layer = writeBlob(dir, 'application/x-chart', Buffer.from('x'));
  const tarLayer = writeBlob(dir, LAYER, gzipSync(await makeTar([])));
  const add = (tag: string, document: Record<string, unknown>, mediaType = MANIFEST): void =>
    addToIndex(dir, {
      ...writeJson(dir, mediaType, { schemaVersion: 2, ...document }),
      annotations: { 'org.opencontainers.image.ref.name': tag },
    });
  add('artifact', { artifactType: 'application/x-sbom', config: empty, layers: [layer] });
  add('untyped', { config: empty, layers: [layer] });
  add('helm', { config: writeJson(dir, 'application/vnd.cncf.helm.config.v1+json', {}), layers: [layer] });
  add('empty-config', { config: writeJson(dir, CONFIG, {}), layers: [tarLayer] });
  add('chart', { config: writeJson(dir, CONFIG, {}), layers: [layer] });
  const schema1 = { schemaVersion: 1, name: 'x', tag: 'y', fsLayers: [{ blobSum: tarLayer.digest }], history: [{}] };
  add('schema1', schema1, 'application/vnd.docker.distribution.manifest.v1+prettyjws');
  add('disguised', schema1);
  const table: [string, Record<string, unknown>][] = [
    ['artifact', { code: 'NOT_AN_IMAGE', message: /artifact of type application\/x-sbom/ }],
    ['untyped', { code: 'NOT_AN_IMAGE', message: /artifact of type application\/vnd\.oci\.empty/ }],
    ['helm', { code: 'NOT_AN_IMAGE', message: /artifact of type application\/vnd\.cncf\.helm/ }],
    ['empty-config', { code: 'CONFIG_INVALID', message: /has no rootfs/, hint: /Artifacts/ }],
    ['chart', { code: 'NOT_AN_IMAGE', message: /layer 1 of 1 is no file system layer \(application\/x-chart\)/ }],
    ['schema1', { code: 'NOT_AN_IMAGE', message: /Docker schema 1/, hint: /skopeo copy --format v2s2/ }],
    ['disguised', { code: 'NOT_AN_IMAGE', message: /Docker schema 1/ }],
  ];
  for (const [tag, expected] of table) {
    const error = await resolveImage(parseReference(`oci:${dir}:${tag}`, '/')).catch((e: unknown) => e);
    t.match(error, expected, tag);
  }
});

t.test('docker-archive: layers that are links to others are shared', async (t) => {
  const dir = tempDir(t);
  const one = await makeTar([{ name: 'a', content: '1' }]);
  const two = await makeTar([{ name: '.wh.a' }, { name: 'b', content: '2' }]);
  const config = {
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [one, two, one].map((tar) => digest(tar)) },
  };
  const layers = ['1/layer.tar', '2/layer.tar', '3/layer.tar'];
  const archive = join(dir, 'saved.tar');
  writeFileSync(
    archive,
    await makeTar([
      { name: 'c.json', content: JSON.stringify(config) },
      { name: '1/layer.tar', content: one },
      { name: '2/layer.tar', content: two },
      { name: '3/layer.tar', type: 'symlink', linkname: '../1/layer.tar' },
      { name: 'manifest.json', content: JSON.stringify([{ Config: 'c.json', Layers: layers }]) },
    ]),
  );
  const tree = await open(t, `docker-archive:${archive}`, join(dir, 'store'));
  t.strictSame(names(tree), ['a', 'b']);
  t.equal(tree.prepared.layers[0]?.mapPath, tree.prepared.layers[2]?.mapPath);
});

/** The last gzip member of an eStargz: an empty stream whose extra field says where the index is. */
function footer(legacy: boolean): Buffer {
  const mark = Buffer.from('0000000000000010STARGZ');
  const field = legacy ? mark : Buffer.concat([Buffer.from('SG'), Buffer.from([mark.length, 0]), mark]);
  const header = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, field.length, 0]);
  return Buffer.concat([header, field, Buffer.from('010000ffff0000000000000000', 'hex')]);
}

t.test('eStargz: what is for loaders is not in the tree, in no other layer', async (t) => {
  const dir = tempDir(t);
  const entries: TarPart[] = [
    { name: './.prefetch.landmark', content: '\x0f' },
    { name: '.no.prefetch.landmark', content: '\x0f' },
    { name: 'etc/', type: 'directory' },
    { name: 'etc/.prefetch.landmark', content: 'ordinary' },
    { name: 'file', content: 'file' },
    { name: 'stargz.index.json', content: '{"version":1}' },
  ];
  const tar = await makeTar(entries);
  const store = join(dir, 'store');
  const annotations = { 'containerd.io/snapshot/stargz/toc.digest': `sha256:${'0'.repeat(64)}` };
  const forms: Record<string, Parameters<typeof makeLayout>[1]['layers'][number]> = {
    ordinary: { tar },
    annotated: { tar, annotations },
    footer: { tar, blob: Buffer.concat([gzipSync(tar), footer(false)]) },
    legacy: { tar, blob: Buffer.concat([gzipSync(tar), footer(true)]) },
  };
  for (const [name, layer] of Object.entries(forms)) {
    const { reference } = await makeLayout(join(dir, name), { layers: [layer] });
    const tree = await open(t, reference, store);
    const all = ['.no.prefetch.landmark', '.prefetch.landmark', 'etc', 'file', 'stargz.index.json'];
    t.strictSame(names(tree), name === 'ordinary' ? all : ['etc', 'file'], name);
    t.equal(read(tree, '/etc/.prefetch.landmark'), 'ordinary');
    t.equal(read(tree, '/file'), 'file');
  }
});
