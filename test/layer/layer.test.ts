import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { digestOf, type Digest } from '../../src/digest/index.js';
import { LaminaError } from '../../src/errors.js';
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import { CHUNK, encodeChunks, readChunks } from '../../src/layer/chunks.js';
import { PassHasher } from '../../src/layer/hasher.js';
import type { IndexJob, IndexedLayer } from '../../src/layer/index-pass.js';
import { PrepareThreads } from '../../src/image/prepare-threads.js';
import { LayerMap, encodeMap, packPoint } from '../../src/layer/map.js';
import { ChunkMemory } from '../../src/layer/memory.js';
import { ChunkReader } from '../../src/layer/reader.js';
import { FAILED } from '../../src/source/fetch/protocol.js';
import { readSealed } from '../../src/store/sealed.js';
import { Store } from '../../src/store/store.js';
import { compress, digest } from '../support/images.js';
import { END, makeTar, paxEntry, rawEntry } from '../support/tar.js';
import { skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { commandExists } from '../support/commands.js';
import { codeOfRejection } from '../support/failure.js';

const hasZstd = commandExists('zstd');

interface Setup {
  readonly store: Store;
  readonly directory: string;
  /** Writes a blob and describes its indexing. */
  readonly job: (
    blob: Uint8Array,
    tar: Uint8Array,
    said?: { digest?: string; diffId?: string; limit?: number },
  ) => IndexJob;
  readonly index: (job: IndexJob) => Promise<IndexedLayer>;
  readonly open: (job: IndexJob, layer: IndexedLayer, onHeal?: (offset: number, got: string) => void) => ChunkReader;
}

function setup(t: Test): Setup {
  const directory = tempDir(t);
  const store = Store.open(join(directory, 'store'));
  const threads = new PrepareThreads();
  let blobs = 0;
  const job: Setup['job'] = (blob, tar, said = {}) => {
    const path = join(directory, `blob-${++blobs}`);
    writeFileSync(path, blob);
    const diffId = (said.diffId ?? digest(tar)) as Digest;
    return {
      blob: { kind: 'file', path, offset: 0, size: blob.length },
      digest: (said.digest ?? digest(blob)) as Digest,
      diffId,
      temporary: store.temporary(),
      layerDirectory: store.layerDirectory(diffId),
      mapDirectory: join(store.path, 'maps'),
      streamLimit: said.limit ?? 1 << 30,
    };
  };
  return {
    store,
    directory,
    job,
    index: (j) => threads.index(j),
    open: (j, { facts }, onHeal) =>
      ChunkReader.open({
        id: 1,
        directory: j.layerDirectory,
        mapPath: store.mapPath(facts.blob),
        blob: j.blob,
        verify: 'every-read',
        memory: new ChunkMemory(CHUNK),
        onHeal,
      }),
  };
}

/** About 6 MB, of which two thirds do not compress, so that there are several restart points. */
async function sampleTar(): Promise<Buffer> {
  return makeTar([
    { name: 'random', content: randomBytes(4_000_000) },
    { name: 'text', content: 'all work and no play '.repeat(50_000) },
    { name: 'tail', content: randomBytes(900_000) },
  ]);
}

function readWhole(reader: ChunkReader, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  reader.read(0, size, bytes, 0);
  return bytes;
}

t.test('every compression yields the same layer, and every byte of it reads back verified', async (t) => {
  const { job, index, open, store } = setup(t);
  const tar = await sampleTar();
  const half = Math.floor(tar.length / 2);
  const blobs: [string, Buffer][] = [
    ['plain', tar],
    ['gzip', gzipSync(tar)],
    [
      'two gzip members and trailing zeros',
      Buffer.concat([gzipSync(tar.subarray(0, half)), gzipSync(tar.subarray(half)), Buffer.alloc(100)]),
    ],
  ];
  if (hasZstd) {
    blobs.push(['zstd', Buffer.from(compress(tar, 'zstd'))]);
    blobs.push([
      'two zstd frames',
      Buffer.concat([compress(tar.subarray(0, half), 'zstd'), compress(tar.subarray(half), 'zstd')]),
    ]);
  }
  let tree: Buffer | undefined;
  for (const [name, blob] of blobs) {
    const j = job(blob, tar);
    const layer = await index(j);
    const written = readFileSync(join(j.layerDirectory, 'tree.erofs'));
    t.ok((tree ??= written).equals(written), `${name}: the same tree`);
    const reader = open(j, layer);
    t.ok(readWhole(reader, tar.length).equals(tar), `${name}: content`);
    for (const [at, length] of [
      [0, 1],
      [65_535, 2],
      [3_999_000, 70_000],
      [tar.length - 1, 1],
    ] as const) {
      const part = Buffer.alloc(length);
      reader.read(at, length, part, 0);
      t.ok(part.equals(tar.subarray(at, at + length)), `${name}: ${length} bytes at ${at}`);
    }
    reader.close();
  }
  t.equal(readdirSync(join(store.path, 'layers')).length, 1);
  t.equal(readdirSync(join(store.path, 'maps')).length, blobs.length);
  t.same(readdirSync(join(store.path, 'tmp')), [], 'nothing temporary is left');
});

t.test('a zstd layer of one frame keeps what is far from its start', async (t) => {
  if (skipUnless(t, hasZstd, 'the zstd command is missing (apt-get install zstd)')) return;
  const { job, index, open } = setup(t);
  const tar = await makeTar([{ name: 'f', content: randomBytes(7_000_000) }]);
  const j = job(compress(tar, 'zstd'), tar);
  const layer = await index(j);
  t.equal(layer.points, 1);
  t.ok(layer.facts.kept > 2_000_000, `${layer.facts.kept} bytes kept`);
  const healed: number[] = [];
  const reader = open(j, layer, (offset) => healed.push(offset));
  const part = Buffer.alloc(CHUNK);
  t.ok(reader.readCached(6 * 1024 * 1024, CHUNK, part, 0), 'is at hand without decoding');
  t.ok(part.equals(tar.subarray(6 * 1024 * 1024, 6 * 1024 * 1024 + CHUNK)));
  t.notOk(reader.readCached(0, CHUNK, part, 0), 'the beginning is decoded when it is wanted');
  reader.read(0, CHUNK, part, 0);
  t.ok(part.equals(tar.subarray(0, CHUNK)));
  t.equal(reader.counters.filled, 4 * 1024 * 1024, 'and no more than was not kept');
  t.ok(readWhole(reader, tar.length).equals(tar));
  t.equal(reader.counters.filled, 4 * 1024 * 1024, 'with which all is there');
  t.same(healed, [], 'kept chunks are whole: none looks damaged');
  reader.close();

  truncateSync(join(j.layerDirectory, 'data'), 0);
  const lost = open(j, layer);
  t.ok(readWhole(lost, tar.length).equals(tar), 'what was kept and is lost is decoded');
  t.ok(lost.counters.filled < 2 * tar.length, `once (${lost.counters.filled} bytes)`);
  lost.close();

  const again = job(compress(tar, 'gzip'), tar);
  const gzip = await index(again);
  t.equal(gzip.facts.kept, 0);
});

t.test('a layer that is indexed by several at once, and from several blobs, is whole', async (t) => {
  if (skipUnless(t, hasZstd, 'the zstd command is missing (apt-get install zstd)')) return;
  const { job, index, open, store } = setup(t);
  const tar = await makeTar([{ name: 'f', content: randomBytes(7_000_000) }]);
  const zstd = compress(tar, 'zstd');
  const gzip = job(gzipSync(tar, { level: 1 }), tar);
  const gzipLayer = await index(gzip);
  const reader = open(gzip, gzipLayer);
  readWhole(reader, 5_000_000);
  const data = join(gzip.layerDirectory, 'data');
  const before = readFileSync(data).subarray(0, 5_000_000);
  const second = job(zstd, tar);
  const secondLayer = await index(second);
  t.ok(secondLayer.facts.kept > 2_000_000);
  t.ok(readFileSync(data).subarray(0, 5_000_000).equals(before), 'chunks that were there stay as they were');
  reader.close();
  const other = open(second, secondLayer);
  t.ok(readWhole(other, tar.length).equals(tar));
  t.equal(other.counters.filled, 0, 'what the second blob had to keep is in the file of the first');
  other.close();

  rmSync(join(store.path, 'layers'), { recursive: true });
  mkdirSync(join(store.path, 'layers'));
  const jobs = [job(gzipSync(tar, { level: 1 }), tar), job(zstd, tar), job(zstd, tar)];
  const layers = await Promise.all(jobs.map((j) => index(j)));
  for (const [i, j] of jobs.entries()) {
    const r = open(j, layers[i]!);
    t.ok(readWhole(r, tar.length).equals(tar), `job ${i}`);
    r.close();
  }
  t.same(readdirSync(join(store.path, 'tmp')), []);
});

t.test('cached chunks are hashed: damage heals from the source, and fails when that is damaged too', async (t) => {
  const { job, index, open } = setup(t);
  const tar = await sampleTar();
  const j = job(gzipSync(tar, { level: 0 }), tar);
  const layer = await index(j);
  const healed: number[] = [];
  const reader = open(j, layer, (offset) => healed.push(offset));
  readWhole(reader, tar.length);
  const part = Buffer.alloc(100);
  t.ok(reader.readCached(CHUNK, 100, part, 0), 'filled chunks are at hand');

  const data = join(j.layerDirectory, 'data');
  flip(data, 10 * CHUNK + 77);
  t.notOk(reader.readCached(10 * CHUNK, 100, part, 0), 'a flipped bit is no hit');
  reader.read(10 * CHUNK, 100, part, 0);
  t.ok(part.equals(tar.subarray(10 * CHUNK, 10 * CHUNK + 100)), 'the right bytes come');
  t.same(healed, [10 * CHUNK]);
  t.ok(reader.readCached(10 * CHUNK + 200, 100, part, 0), 'and are cached again');

  truncateSync(data, 0);
  reader.read(20 * CHUNK, 100, part, 0);
  t.ok(part.equals(tar.subarray(20 * CHUNK, 20 * CHUNK + 100)), 'a lost data file is filled anew');

  t.ok(readWhole(reader, tar.length).equals(tar));
  // A stored deflate block: the byte of chunk 40 stands as it is in the blob.
  const marker = tar.subarray(40 * CHUNK + 5, 40 * CHUNK + 37);
  const at = readFileSync(j.blob.path).indexOf(marker);
  t.ok(at > 0);
  flip(j.blob.path, at);
  flip(data, 40 * CHUNK + 5);
  try {
    reader.read(40 * CHUNK, 100, part, 0);
    t.fail('wrong bytes were served');
  } catch (e) {
    t.match(e, {
      code: 'CHUNK_DIGEST_MISMATCH',
      details: { layer: j.diffId, offset: 40 * CHUNK, wanted: /^sha256:/, got: /^sha256:/ },
    });
  }
  reader.read(50 * CHUNK, 100, part, 0);
  t.ok(part.equals(tar.subarray(50 * CHUNK, 50 * CHUNK + 100)), 'other chunks still read');
  rmSync(j.blob.path);
  reader.close();
  flip(data, 60 * CHUNK + 1);
  const without = open(j, layer);
  without.read(50 * CHUNK, 100, part, 0);
  t.ok(part.equals(tar.subarray(50 * CHUNK, 50 * CHUNK + 100)), 'cached chunks need no blob');
  t.throws(() => without.read(60 * CHUNK, 100, part, 0), { code: 'BLOB_MISSING' });
  without.close();
});

t.test('first-read trusts the store after the first read, and a plain blob never', async (t) => {
  const { job, index, store } = setup(t);
  const tar = await sampleTar();
  for (const [name, blob, trusted] of [
    ['plain', tar, false],
    ['gzip', gzipSync(tar), true],
  ] as const) {
    const j = job(blob, tar);
    const { facts } = await index(j);
    const reader = ChunkReader.open({
      id: 1,
      directory: j.layerDirectory,
      mapPath: store.mapPath(facts.blob),
      blob: j.blob,
      verify: 'first-read',
      memory: new ChunkMemory(CHUNK),
    });
    const chunk = Buffer.alloc(CHUNK);
    reader.read(5 * CHUNK, CHUNK, chunk, 0);
    t.ok(reader.readCached(5 * CHUNK, CHUNK, chunk, 0), name);
    const { verified } = reader.counters;
    t.ok(reader.readCached(5 * CHUNK, CHUNK, chunk, 0));
    t.equal(reader.counters.verified - verified, trusted ? 0 : CHUNK, `${name}: bytes hashed again`);
    if (!trusted) {
      flip(j.blob.path, 5 * CHUNK + 9);
      t.throws(() => reader.read(5 * CHUNK, CHUNK, chunk, 0), { code: 'CHUNK_DIGEST_MISMATCH' });
    }
    reader.close();
  }
});

t.test('sparse files off block borders read back from the appendix', async (t) => {
  const { job, index, open } = setup(t);
  // Segments of odd lengths at odd places: "abc" at 10, "defgh" at 1000, 600 bytes at 1500.
  const content = Buffer.alloc(5000);
  const data = Buffer.concat([Buffer.from('abcdefgh'), Buffer.alloc(600, 'z')]);
  content.set(data.subarray(0, 3), 10);
  content.set(data.subarray(3, 8), 1000);
  content.set(data.subarray(8), 1500);
  const records = { 'GNU.sparse.map': '10,3,1000,5,1500,600', 'GNU.sparse.size': '5000', 'GNU.sparse.numblocks': '3' };
  const tar = Buffer.concat([
    paxEntry(records),
    rawEntry({ name: 'sparse' }, data),
    rawEntry({ name: 'after' }, 'plain'),
    END,
  ]);
  const j = job(gzipSync(tar), tar);
  const layer = await index(j);
  t.ok(layer.addressSpace > tar.length);
  const tree = loadTree(new ErofsReader(readSealed(join(j.layerDirectory, 'tree.erofs'))));
  const inode = tree.children?.get('sparse');
  t.equal(inode?.size, 5000);
  const reader = open(j, layer);
  const got = Buffer.alloc(5000);
  for (const { offset, length, position } of inode?.extents ?? []) reader.read(position, length, got, offset);
  t.ok(got.equals(content));
  reader.close();
  truncateSync(join(j.layerDirectory, 'data'), 0);
  const again = open(j, layer);
  got.fill(0);
  for (const { offset, length, position } of inode?.extents ?? []) again.read(position, length, got, offset);
  t.ok(got.equals(content), 'and is made again when the data file is lost');
  again.close();
  truncateSync(join(j.layerDirectory, 'data'), 0);
  const piecemeal = open(j, layer);
  for (const { offset, length, position } of inode?.extents ?? []) {
    got.fill(0);
    piecemeal.read(position + 100, Math.min(length, 512) - 100, got, 0);
    t.ok(got.subarray(0, 412).equals(content.subarray(offset + 100, offset + 512)), 'also for a part of a chunk');
  }
  piecemeal.close();
});

t.test('blobs that are not what they should be are refused and leave nothing', async (t) => {
  const { job, index, store } = setup(t);
  const tar = await sampleTar();
  const gzip = gzipSync(tar);
  const other = digest(Buffer.from('other'));
  const corrupt = Buffer.from(gzip);
  corrupt.writeUInt8(corrupt.readUInt8(1_000_000) ^ 1, 1_000_000);
  const cases: [string, IndexJob, string][] = [
    ['wrong blob digest', job(gzip, tar, { digest: other }), 'BLOB_DIGEST_MISMATCH'],
    ['wrong diffID', job(gzip, tar, { diffId: other }), 'DIFF_ID_MISMATCH'],
    ['damaged, and its digest says so', job(corrupt, tar, { digest: digest(gzip) }), 'BLOB_DIGEST_MISMATCH'],
    ['damaged before it was digested', job(corrupt, tar), 'COMPRESSION_CORRUPT'],
    ['truncated', job(gzip.subarray(0, 2_000_000), tar), 'COMPRESSION_TRUNCATED'],
    ['not a tar', job(gzipSync(Buffer.from('hello '.repeat(1000))), Buffer.from('hello '.repeat(1000))), 'TAR_INVALID'],
    ['bzip2', job(Buffer.from('BZh91AY&SY'), tar), 'COMPRESSION_UNKNOWN'],
    ['a bomb', job(gzipSync(Buffer.alloc(50_000_000)), tar, { limit: 10_000_000 }), 'LIMIT_EXCEEDED'],
    ['no blob', { ...job(gzip, tar), blob: { kind: 'file', path: '/nowhere', offset: 0, size: 5 } }, 'BLOB_MISSING'],
  ];
  for (const [name, j, code] of cases) t.equal(await codeOfRejection(index(j)), code, name);
  for (const dir of ['layers', 'maps', 'tmp']) t.same(readdirSync(join(store.path, dir)), [], dir);
  t.equal(await codeOfRejection(index(job(gzip, tar))), 'no error', 'and the good one works after all that');
});

t.test('empty layers', async (t) => {
  const { job, index } = setup(t);
  for (const [name, blob, tar] of [
    ['no bytes', Buffer.alloc(0), Buffer.alloc(0)],
    ['an empty tar', END, END],
    ['an empty gzip', gzipSync(Buffer.alloc(0)), Buffer.alloc(0)],
  ] as const) {
    const j = job(blob, tar);
    await index(j);
    const tree = loadTree(new ErofsReader(readSealed(join(j.layerDirectory, 'tree.erofs'))));
    t.equal(tree.children?.size, 0, name);
  }
});

t.test('a cancelled or killed indexing leaves nothing that is trusted later', async (t) => {
  const { job, store } = setup(t);
  const tar = await makeTar([{ name: 'big', content: randomBytes(30_000_000) }]);
  const j = job(gzipSync(tar, { level: 1 }), tar);
  const threads = new PrepareThreads();
  const abort = new AbortController();
  const running = threads.index(j, { onProgress: () => abort.abort(new Error('enough')), signal: abort.signal });
  t.match(await codeOfRejection(running), /enough/);
  for (const dir of ['layers', 'maps', 'tmp']) t.same(readdirSync(join(store.path, dir)), [], dir);
});

t.test('a merge does not wait behind layers that are indexed', async (t) => {
  const { job, store, directory } = setup(t);
  const held: (() => void)[] = [];
  const channels: MessageChannel[] = [];
  t.teardown(() => channels.forEach(({ port1 }) => port1.close()));
  /** A fetch thread that answers when it is told to. */
  const connect = (): MessagePort => {
    const channel = new MessageChannel();
    channels.push(channel);
    channel.port1.on('message', ({ id, done }: { id: number; done: Int32Array }) =>
      held.push(() => {
        channel.port1.postMessage({ id, error: new LaminaError('BLOB_MISSING', 'It is gone').toJSON() });
        Atomics.store(done, 0, FAILED);
        Atomics.notify(done, 0);
      }),
    );
    return channel.port2;
  };
  const threads = new PrepareThreads({ connect });
  const count = 2 * availableParallelism();
  const tar = await makeTar([{ name: 'f', content: 'x' }]);
  const access = { host: 'h', repository: 'r', places: { env: {}, uid: 0 } };
  const indexed = Array.from({ length: count }, (_, i) => {
    const digest = digestOf(Buffer.from(String(i)));
    const blob = { kind: 'registry', path: join(directory, `blob-${i}`), offset: 0, size: 9, digest, access } as const;
    return codeOfRejection(threads.index({ ...job(tar, tar), blob, digest }));
  });
  // Of no tree, but too large to be merged in this thread.
  const tree = join(directory, 'no-tree');
  writeFileSync(tree, Buffer.alloc(300_000));
  const layers = [{ tree, addressSpace: 512, whitelists: [] }];
  const paths = { temporary: store.temporary(), path: join(directory, 'merged') };
  t.equal(await codeOfRejection(threads.merge({ layers, compat: 'spec', ...paths })), 'STORE_CORRUPT');
  let ended = false;
  const all = Promise.all(indexed).finally(() => (ended = true));
  for (let released = 0; !ended; await sleep(10)) for (; released < held.length; released++) held[released]?.();
  t.strictSame(new Set(await all), new Set(['BLOB_MISSING']), 'which waited for their blobs all that time');
});

t.test('Store clears what dead processes left, and that alone', (t) => {
  const { store } = setup(t);
  const make = (name: string): string => {
    const path = join(store.path, 'tmp', name);
    mkdirSync(path);
    writeFileSync(join(path, 'data'), 'half');
    return path;
  };
  const own = store.temporary();
  const [namespace = '', pid = '', started = '', random = ''] = basename(own).split('-');
  t.equal(pid, String(process.pid));
  t.not(store.temporary(), own);
  mkdirSync(own);
  const map = make(`${basename(own)}.map`);
  const dead = make(`${namespace}-999999999-${started}-${random}`);
  const reused = make(`${namespace}-${pid}-${Number(started) - 1}-${random}`);
  const foreign = make(`1${namespace}-${pid}-${started}-${random}`);
  const forgotten = make(`1${namespace}-${pid}-${started}-ab`);
  const dayBefore = Date.now() / 1000 - 25 * 60 * 60;
  utimesSync(forgotten, dayBefore, dayBefore);
  const unknown = make(`${pid}-1`);
  Store.open(store.path);
  t.ok(existsSync(own) && existsSync(map), 'its own is in use');
  t.notOk(existsSync(dead), 'a process that is no more');
  t.notOk(existsSync(reused), 'one that had the PID of this before');
  t.ok(existsSync(foreign), 'what another PID namespace makes cannot be judged');
  t.notOk(existsSync(forgotten), 'but after a day');
  t.notOk(existsSync(unknown), 'names that no process gives');
  t.end();
});

t.test('chunks and map files say when they are damaged', async (t) => {
  const dir = tempDir(t);
  const path = join(dir, 'chunks');
  const digests = Buffer.concat([sha(Buffer.alloc(CHUNK)), sha(Buffer.from('x'))]);
  const copies = [{ to: 0, from: 512, length: 7 }];
  writeFileSync(path, Buffer.concat(encodeChunks({ streamSize: CHUNK + 1, addressSpace: CHUNK + 1, digests, copies })));
  t.same(readChunks(path), { streamSize: CHUNK + 1, addressSpace: CHUNK + 1, digests, copies });
  const size = statSync(path).size;
  for (let at = 0; at < size; at += 7) {
    flip(path, at);
    t.throws(() => readChunks(path), { code: 'STORE_CORRUPT' }, `a flipped bit at ${at}`);
    flip(path, at);
  }
  const window = randomBytes(32768);
  const facts = {
    compression: 'gzip',
    diffId: digest(Buffer.from('d')) as Digest,
    blob: digest(Buffer.from('b'), 'sha512') as Digest,
    blobSize: 5,
    streamSize: 3_000_000,
    kept: 0,
    notes: ['ünusual'],
  } as const;
  const points = [
    { input: 10, bits: 0, output: 0, kind: 'member', window: new Uint8Array(0) },
    { input: 500, bits: 3, output: 1_100_000, kind: 'block', window },
  ] as const;
  const bytes = Buffer.concat(encodeMap(facts, points.map(packPoint)));
  const mapPath = join(dir, 'map');
  writeFileSync(mapPath, bytes);
  const map = LayerMap.open(mapPath);
  if (map === undefined) throw new Error('no map');
  t.teardown(() => map.close());
  t.same(map.facts, facts);
  t.match(map.point(1), { input: 500, bits: 3, output: 1_100_000, kind: 'block' });
  t.ok(window.equals(map.point(1).window));
  t.same(
    [0, 1_099_999, 1_100_000, 2_999_999].map((at) => map.find(at)),
    [0, 0, 1, 1],
  );
  t.equal(map.output(2), 3_000_000);
  for (let cut = 0; cut < bytes.length; cut += 101) {
    writeFileSync(`${mapPath}.cut`, bytes.subarray(0, cut));
    t.throws(() => LayerMap.open(`${mapPath}.cut`), { code: 'STORE_CORRUPT' });
  }
  t.equal(LayerMap.open(join(dir, 'nothing')), undefined);
});

t.test('PassHasher gives the same however the stream is cut', async (t) => {
  const bytes = randomBytes(3 * CHUNK + 5);
  const want = createHash('sha256')
    .update(bytes.subarray(CHUNK, 2 * CHUNK))
    .digest();
  for (const cut of [1, 100, CHUNK, CHUNK + 1, 2 * CHUNK - 1]) {
    const hasher = new PassHasher(undefined, digest(bytes) as Digest);
    for (let at = 0; at < bytes.length; at += cut) hasher.stream(bytes.subarray(at, at + cut));
    const { diffId, chunks } = hasher.end();
    t.equal(diffId, digest(bytes));
    t.equal(chunks.length, 4 * 32);
    t.ok(chunks.subarray(32, 64).equals(want), `pieces of ${cut}`);
  }
});

function sha(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

function flip(path: string, at: number): void {
  const byte = readFileSync(path).readUInt8(at);
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.from([byte ^ 0x10]), 0, 1, at);
  closeSync(fd);
}
