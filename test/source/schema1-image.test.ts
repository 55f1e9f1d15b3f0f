/** Images of Docker schema 1 from registries: the same tree as in schema 2; without the registry; damaged; lying. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { compareTrees } from '../../scripts/compare-trees.js';
import { lamina, type CliResult } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import { startDaemon } from '../support/daemon.js';
import { isBlob, startFaultProxy } from '../support/fault-proxy.js';
import { compress, digest, makeLayout, type LayerCompression } from '../support/images.js';
import { push, serve, startRegistry } from '../support/registry.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { makeTar } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';

const created = '2020-01-02T03:04:05Z';
const hasRegistry = commandExists('docker-registry') && commandExists('skopeo');

t.test('an image of schema 1 is what it is in schema 2, mounted, and without the registry', async (t) => {
  if (skipUnless(t, hasRegistry, 'needs docker-registry and skopeo')) return;
  if (skipUnless(t, isRoot && existsSync('/dev/fuse'), 'mounting needs root and /dev/fuse')) return;
  const registry = await startRegistry(t, { schema1: true });
  const image = await makeLayout(tempDir(t), {
    layers: [
      {
        entries: [
          { name: 'etc/', type: 'directory', mode: 0o750 },
          { name: 'etc/gone', content: 'x' },
          { name: 'etc/motd', content: 'hello\n', uid: 7, mode: 0o640 },
        ],
      },
      {
        entries: [
          { name: 'etc/.wh.gone', content: '' },
          { name: 'big', content: Buffer.alloc(3_000_000, 'abcdefgh\n') },
        ],
      },
    ],
    config: { Cmd: ['/bin/sh'], Env: ['A=b'] },
    document: { history: [{ created }, { created }] },
  });
  push(image.reference, registry.host, 'old:one', ['--format', 'v2s1']);
  push(image.reference, registry.host, 'new:one', ['--format', 'v2s2']);
  const [old, current] = [`docker://${registry.host}/old:one`, `docker://${registry.host}/new:one`];
  const daemon = await startDaemon(t);
  const env = { LAMINA_STORE: join(daemon.directory, 'store-of-ls') };
  t.equal((await lamina(['cat', old, '/etc/motd'], { env })).stdout, 'hello\n');
  t.equal((await lamina(['ls', old, '/etc'], { env })).stdout, 'motd\n');
  const facts = JSON.parse((await lamina(['inspect', '--json', old], { env })).stdout) as {
    manifestDigest: string;
    layers: { diffId: string; digest: string }[];
  };
  t.strictSame(
    facts.layers.map(({ diffId }) => diffId),
    image.layers.map(({ diffId }) => diffId),
  );
  t.match(facts, { config: { cmd: ['/bin/sh'], env: ['A=b'] } });
  t.equal((await lamina(['verify', old], { env })).code, 0);

  const mounted = async (reference: string, name: string, ...flags: string[]): Promise<string> => {
    const mountpoint = join(daemon.directory, name);
    mkdirSync(mountpoint);
    const { code, stderr } = await daemon.lamina(['mount', ...flags, reference, mountpoint]);
    t.equal(code, 0, stderr);
    return mountpoint;
  };
  const [a, b] = [await mounted(old, 'old'), await mounted(current, 'new')];
  const same = await compareTrees(a, b, {});
  t.same(same.differences, []);
  t.ok(same.entries >= 4);
  t.equal((await daemon.lamina(['umount', '--all'])).code, 0);

  await registry.stop();
  const again = await mounted(old, 'again', '--offline');
  t.equal(readFileSync(join(again, 'etc/motd'), 'utf8'), 'hello\n');
  t.equal((await daemon.lamina(['umount', '--all'])).code, 0);
  const byDigest = `docker://${registry.host}/old@${facts.manifestDigest}`;
  t.equal((await lamina(['ls', byDigest, '--offline'], { env })).code, 4, 'this name was not used before');
  // What is kept of it is gone, and the registry too.
  rmSync(join(daemon.store, 'derived'), { recursive: true });
  const lost = await daemon.lamina(['mount', '--offline', old]);
  t.equal(lost.code, 4);
  t.match(lost.stderr, /layers have not been read here, and the registry must not be asked/);
});

t.test('what is kept of an image of schema 1 is not believed when it is damaged', async (t) => {
  const fake = await fakeRegistry(t, await imageOf('gzip'));
  t.equal((await fake.lamina(['ls'])).code, 0);
  const derived = join(fake.store, 'derived');
  const [name = ''] = readdirSync(derived);
  const bytes = readFileSync(join(derived, name));
  const at = bytes.indexOf('"diffId":"sha256:') + 20;
  bytes[at] = bytes[at] === 0x61 ? 0x62 : 0x61;
  writeFileSync(join(derived, name), bytes);
  const before = fake.asked.length;
  t.equal((await fake.lamina(['cat', '/a'])).stdout, 'content of a');
  t.strictSame(
    fake.asked.slice(before).filter((line) => /^GET.*blobs/.test(line)),
    [],
    'the layers are there: they are only read again',
  );
});

t.test('layers may be plain, or of zstd, and a registry need not say sizes by HEAD', async (t) => {
  for (const compression of ['none', 'gzip', 'zstd'] as const) {
    const fake = await fakeRegistry(t, { ...(await imageOf(compression)), headLength: null });
    t.equal((await fake.lamina(['cat', '/a'])).stdout, 'content of a', compression);
    await fake.close();
    t.equal((await fake.lamina(['cat', '/a', '--offline'])).stdout, 'content of a', `${compression}, offline`);
  }
});

t.test('a damaged blob is refused, and what was wrong is not kept', async (t) => {
  if (skipUnless(t, hasRegistry, 'needs docker-registry and skopeo')) return;
  const registry = await startRegistry(t, { schema1: true });
  const image = await makeLayout(tempDir(t), {
    layers: [{ entries: [{ name: 'a', content: 'content of a' }] }],
    document: { history: [{ created }] },
  });
  push(image.reference, registry.host, 'old:one', ['--format', 'v2s1']);
  const proxy = await startFaultProxy(t, registry.host);
  const env = { LAMINA_STORE: join(tempDir(t), 'store') };
  const cat = (): Promise<CliResult> => lamina(['cat', `docker://${proxy.host}/old:one`, '/a'], { env });
  // In the deflate data, and in the header: what cannot be decoded is not what the digest says in the first place.
  for (const flipAt of [40, 1]) {
    proxy.fault = (passing) => (isBlob(passing) ? { flipAt } : undefined);
    const refused = await cat();
    t.equal(refused.code, 3, refused.stderr);
    t.match(refused.stderr, /The layer from 127\.0\.0\.1:\d+ does not match its digest/);
    t.strictSame(readdirSync(join(env.LAMINA_STORE, 'derived')), []);
  }
  proxy.fault = undefined;
  t.equal((await cat()).stdout, 'content of a');
});

t.test('a registry or a manifest that lies is refused', async (t) => {
  const good = await imageOf('gzip');
  const tar = await makeTar([{ name: 'a', content: 'content of a' }]);
  const cut = gzipSync(tar).subarray(0, -20);
  const bomb = gzipSync(Buffer.alloc(2_000_000));
  const table: [string, FakeImage, number, RegExp][] = [
    ['other bytes than the digest', { ...good, said: digest(Buffer.from('x')) }, 3, /manifest .*does not match/],
    ['a size that is too small', { ...good, headLength: 50 }, 3, /has \d+ bytes of sha256:\w+, not 50/],
    ['a size that is too large', { ...good, headLength: 5_000 }, 3, /has \d+ bytes of sha256:\w+, not 5000/],
    ['no such blob', { ...good, blobs: [] }, 4, /answers 404/],
    ['no chain', { ...good, manifest: manifestOf([digest(good.blobs[0]!)], { parent: 'a'.repeat(64) }) }, 1, /chain/],
    ['a digest that is none', { ...good, manifest: manifestOf(['sha256:../../x']) }, 1, /Not a digest/],
    ['a layer that is cut off', { manifest: manifestOf([digest(cut)]), blobs: [cut] }, 1, /ends|truncated|end/],
    [
      'a layer that is too large',
      { manifest: manifestOf([digest(bomb)]), blobs: [bomb] },
      1,
      /more than 1000000 bytes/,
    ],
    [
      'a layer that is no tar',
      { manifest: manifestOf([digest(Buffer.from('x'))]), blobs: [Buffer.from('x')] },
      1,
      /tar/,
    ],
  ];
  for (const [what, image, code, message] of table) {
    const fake = await fakeRegistry(t, image);
    const refused = await fake.lamina(['ls'], { LAMINA_LAYER_LIMIT: '1000000', LAMINA_FETCH_TIMEOUT: '3' });
    t.equal(refused.code, code, `${what}: ${refused.stderr}`);
    t.match(refused.stderr, message, what);
  }
});

interface FakeImage {
  readonly manifest: string;
  readonly blobs: readonly Uint8Array[];
  /** Docker-Content-Digest, where it is another than the manifest's. */
  readonly said?: string;
  /** Content-Length of a blob's HEAD, where it is another; null: none. */
  readonly headLength?: number | null;
}

/** Not signed. The base first. */
function manifestOf(layers: readonly string[], base: object = {}): string {
  const id = (i: number): string => createHash('sha256').update(String(i)).digest('hex');
  const history = layers.map((_, i) => ({ id: id(i), ...(i === 0 ? base : { parent: id(i - 1) }), os: 'linux' }));
  return JSON.stringify({
    schemaVersion: 1,
    name: 'old',
    tag: 'one',
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    fsLayers: layers.map((blobSum) => ({ blobSum })).reverse(),
    history: history.map((v1) => ({ v1Compatibility: JSON.stringify(v1) })).reverse(),
  });
}

/** Two layers, of which one comes twice. */
async function imageOf(compression: LayerCompression): Promise<FakeImage> {
  const tars = [
    await makeTar([{ name: 'a', content: 'content of a' }]),
    await makeTar([{ name: 'b', content: 'content of b' }]),
  ];
  const blobs = tars.map((tar) => Buffer.from(compress(tar, compression)));
  const digests = blobs.map((blob) => digest(blob));
  return { manifest: manifestOf([...digests, digests[0] ?? '']), blobs };
}

interface FakeRegistry {
  readonly store: string;
  /** "GET /v2/.." */
  readonly asked: readonly string[];
  /** A command, the image, and what follows. */
  lamina(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<CliResult>;
  close(): Promise<void>;
}

async function fakeRegistry(t: Test, { manifest, blobs, said, headLength }: FakeImage): Promise<FakeRegistry> {
  const asked: string[] = [];
  const server = await serve(t, ({ method, url, headers }, response) => {
    asked.push(`${method} ${url}`);
    const blob = blobs.find((bytes) => url.endsWith(`/blobs/${digest(bytes)}`));
    if (url === '/v2/') response.end('{}');
    else if (url.includes('/manifests/')) {
      response.setHeader('content-type', 'application/vnd.docker.distribution.manifest.v1+json');
      if (said !== undefined) response.setHeader('docker-content-digest', said);
      response.end(manifest);
    } else if (blob === undefined) response.writeHead(404).end();
    else if (method === 'HEAD') {
      if (headLength === null) response.setHeader('transfer-encoding', 'chunked');
      else response.setHeader('content-length', headLength ?? blob.length);
      response.end();
    } else {
      const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
      if (first === undefined) {
        response.end(blob);
        return;
      }
      const end = last === '' ? blob.length : Math.min(Number(last) + 1, blob.length);
      response.writeHead(206, { 'content-range': `bytes ${first}-${end - 1}/${blob.length}` });
      response.end(blob.subarray(Number(first), end));
    }
  });
  const store = join(tempDir(t), 'store');
  return {
    store,
    asked,
    lamina: ([command = '', ...rest], env = {}) =>
      lamina([command, `docker://${server.host}/old:one`, ...rest], { env: { LAMINA_STORE: store, ...env } }),
    close: () => server.close(),
  };
}
