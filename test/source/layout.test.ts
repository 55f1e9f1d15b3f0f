import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { blake3 } from '@noble/hashes/blake3.js';
import t, { type Test } from 'tap';
import { openBlob } from '../../src/source/blob.js';
import type { ErrorCode } from '../../src/errors.js';
import { parsePlatform } from '../../src/oci/platform.js';
import type { Image } from '../../src/source/image.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import {
  CONFIG,
  CONTAINERD_NAME,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  INDEX,
  LAYER_GZIP,
  LayoutBuilder,
  MANIFEST,
  newDirectory,
  sha256,
  type Desc,
} from './builders.js';

interface Expected extends Record<string, unknown> {
  code: ErrorCode;
  message?: RegExp;
  hint?: RegExp;
}

const amd64 = { platform: parsePlatform('linux/amd64') };

function resolve(
  dir: string,
  suffix = '',
  options: { platform: ReturnType<typeof parsePlatform> } = amd64,
): Promise<Image> {
  return resolveImage(parseReference(`oci:${dir}${suffix}`, '/'), options);
}

/** A layout in a directory of its own. */
function layout(t: Test, build: (b: LayoutBuilder) => void): string {
  const b = new LayoutBuilder();
  build(b);
  return b.write(newDirectory(t));
}

t.test('resolveImage gives manifest, config and the place of every layer', async (t) => {
  let manifest: Desc | undefined;
  const dir = layout(t, (b) => {
    manifest = b.add(b.image({ layers: 3, manifest: { annotations: { k: 'v' } } }), 'latest');
    b.files.set('manifest.json', Buffer.from('{'));
    b.files.set('blobs/sha256/unreferenced', Buffer.from('x'));
  });
  const image = await resolve(dir, ':latest');
  t.equal(image.reference, `oci:${dir}:latest`);
  t.equal(image.manifestDigest, manifest?.digest);
  t.equal(image.configDigest, sha256(Buffer.from(image.configBytes)), 'the image ID');
  t.strictSame(image.platform, { os: 'linux', architecture: 'amd64' });
  t.strictSame(image.annotations, { k: 'v' });
  t.strictSame(image.warnings, []);
  t.equal(image.layers.length, 3);
  for (const [i, layer] of image.layers.entries()) {
    t.equal(layer.diffId, sha256(Buffer.from(`x-${i}`.padEnd(1024, '\0'))), 'in order, base first');
    const blob = openBlob(layer.blob);
    const bytes = Buffer.alloc(layer.size);
    t.equal(blob.read(0, bytes), layer.size);
    blob.close();
    t.equal(sha256(bytes), layer.digest);
    t.equal(layer.mediaType, LAYER_GZIP);
  }
});

t.test('images without layers, and Docker documents in a layout', async (t) => {
  const empty = await resolve(layout(t, (b) => b.add(b.image({ layers: 0 }))));
  t.strictSame(empty.layers, []);
  const docker = await resolve(
    layout(t, (b) => {
      const image = b.image({
        mediaType: DOCKER_MANIFEST,
        configType: 'application/vnd.docker.container.image.v1+json',
      });
      const manifests = [{ ...image, platform: { os: 'linux', architecture: 'amd64' } }];
      b.add(b.json(DOCKER_LIST, { schemaVersion: 2, mediaType: DOCKER_LIST, manifests }));
    }),
  );
  t.equal(docker.layers.length, 1);
});

t.test('a tag is looked for as ref.name, then as containerd name, then as full name', async (t) => {
  const ids: Record<string, string> = {};
  const dir = layout(t, (b) => {
    const add = (seed: string, annotations: Record<string, string>) => {
      ids[seed] = b.add(b.image({ seed, more: { annotations } })).digest;
    };
    const ref = 'org.opencontainers.image.ref.name';
    add('a', { [ref]: '3', [CONTAINERD_NAME]: 'docker.io/library/alpine:3' });
    add('b', { [ref]: 'latest', [CONTAINERD_NAME]: 'docker.io/library/busybox:latest' });
    add('c', { [ref]: 'docker.io/library/full:1' });
    add('d', { [ref]: 'docker.io/library/busybox:latest' });
    add('e', { [ref]: 'a.b/c:d@e' });
  });
  const table: [string, string][] = [
    ['3', 'a'],
    ['latest', 'b'],
    ['docker.io/library/alpine:3', 'a'],
    ['alpine:3', 'a'],
    ['docker.io/library/busybox:latest', 'd'],
    ['busybox', 'b'],
    ['full:1', 'c'],
    ['a.b/c:d@e', 'e'],
  ];
  for (const [tag, seed] of table) t.equal((await resolve(dir, `:${tag}`)).manifestDigest, ids[seed], tag);
  for (const tag of ['alpine', '4', 'latest:latest', 'full', '__proto__']) {
    await t.rejects(resolve(dir, `:${tag}`), { code: 'TAG_NOT_FOUND', message: /alpine:3 {2}sha256:/ }, tag);
  }
});

t.test('without a tag there must be one image', async (t) => {
  await t.rejects(resolve(layout(t, () => undefined)), { code: 'IMAGE_NOT_FOUND' });
  const several = layout(t, (b) => {
    b.add(b.image({ seed: 'a' }), 'one');
    b.add(b.image({ seed: 'b', more: { platform: { os: 'linux', architecture: 's390x' } } }));
  });
  await t.rejects(resolve(several), {
    code: 'IMAGE_AMBIGUOUS',
    exitCode: 2,
    message: /2 images in it:\n {2}one {2}sha256:\w{64}\n {2}\(no name\) {2}sha256:\w{64} {2}linux\/s390x$/,
    hint: /TAG/,
  });
  const twice = layout(t, (b) => {
    const image = b.image();
    b.add(image, 'one');
    b.add(image, 'two');
    b.add(b.json('application/unknown', {}));
    b.add(b.image({ seed: 'sig', more: { artifactType: 'application/signature' } }));
    b.add(b.image({ seed: 'att', more: { platform: { os: 'unknown', architecture: 'unknown' } } }));
  });
  t.equal((await resolve(twice)).layers.length, 1, 'one image under two names, beside artifacts');
});

t.test('of several images with one name the first wins, with a warning', async (t) => {
  let first = '';
  const dir = layout(t, (b) => {
    first = b.add(b.image({ seed: 'a' }), 'x').digest;
    b.add(b.image({ seed: 'b' }), 'x');
  });
  const image = await resolve(dir, ':x');
  t.equal(image.manifestDigest, first);
  t.match(image.warnings, [/2 images are called "x"/]);
});

t.test('a digest chooses among all entries, and must agree with a tag', async (t) => {
  let a = '';
  let inner = '';
  let index = '';
  const dir = layout(t, (b) => {
    a = b.add(b.image({ seed: 'a' }), 'a').digest;
    const nested = b.image({ seed: 'b', more: { platform: { os: 'linux', architecture: 's390x' } } });
    inner = nested.digest;
    index = b.add(b.index([b.index([nested])]), 'multi').digest;
  });
  t.equal((await resolve(dir, `@${a}`)).manifestDigest, a);
  t.equal((await resolve(dir, `@${inner}`)).manifestDigest, inner, 'in a nested index, whatever its platform');
  t.equal((await resolve(dir, `@${index}`, { platform: parsePlatform('linux/s390x') })).manifestDigest, inner);
  t.equal((await resolve(dir, `:a@${a}`)).manifestDigest, a);
  t.equal((await resolve(dir, `:multi@${inner}`)).manifestDigest, inner);
  await t.rejects(resolve(dir, `:multi@${a}`), { code: 'TAG_NOT_FOUND', message: /not sha256/ });
  await t.rejects(resolve(dir, `@${sha256('?')}`), { code: 'IMAGE_NOT_FOUND' });
});

t.test('the platform chooses in an index', async (t) => {
  const platform = (text: string) => {
    const [os, architecture, variant] = text.split('/');
    return { os, architecture, ...(variant === undefined ? {} : { variant }) };
  };
  /** For each want, which of `there` is taken; -1 for none. */
  const table: [string, string[], string, number][] = [
    ['exact', ['linux/arm64', 'linux/amd64'], 'linux/amd64', 1],
    ['the first of equal ones', ['linux/amd64', 'linux/x86_64/v1', 'linux/amd64'], 'linux/amd64', 0],
    ['amd64/v3 falls to the base', ['linux/386', 'linux/amd64'], 'linux/amd64/v3', 1],
    ['amd64/v3 prefers v2', ['linux/amd64', 'linux/amd64/v2'], 'linux/amd64/v3', 1],
    ['amd64 does not take v2', ['linux/amd64/v2'], 'linux/amd64', -1],
    ['amd64 does not fall to 386', ['linux/386'], 'linux/amd64', -1],
    ['arm64 is arm64/v8', ['linux/arm/v7', 'linux/arm64/v8'], 'linux/arm64', 1],
    ['arm64/v8 is arm64', ['linux/arm64'], 'linux/arm64/v8', 0],
    ['arm64 does not take v9', ['linux/arm64/v9'], 'linux/arm64', -1],
    ['arm64 does not fall to arm', ['linux/arm/v8', 'linux/arm/v7'], 'linux/arm64', -1],
    ['arm64/v9 falls to v8', ['linux/arm64'], 'linux/arm64/v9', 0],
    ['arm/v7 takes the best below', ['linux/arm/v5', 'linux/arm/v6', 'linux/arm/v8'], 'linux/arm/v7', 1],
    ['arm without a variant is v7', ['linux/arm/v6', 'linux/arm'], 'linux/arm', 1],
    ['another OS', ['windows/amd64', 'linux/amd64'], 'linux/amd64', 1],
    ['one entry of another platform', ['linux/arm64'], 'linux/amd64', -1],
  ];
  for (const [name, there, want, taken] of table) {
    const digests: string[] = [];
    const dir = layout(t, (b) => {
      const images = there.map((text, i) =>
        b.image({ seed: `s${i}`, config: platform(text), more: { platform: platform(text) } }),
      );
      digests.push(...images.map(({ digest }) => digest));
      b.add(b.index(images));
    });
    const found = resolve(dir, '', { platform: parsePlatform(want) });
    if (taken >= 0) t.equal((await found).manifestDigest, digests[taken], name);
    else
      await t.rejects(
        found,
        { code: 'PLATFORM_NOT_FOUND', exitCode: 4, message: /only for (linux|windows)\//, hint: /--platform/ },
        name,
      );
  }
});

t.test('in an index: nested indexes, attestations, artifacts, strange entries', async (t) => {
  let wanted = '';
  const attestation = { 'vnd.docker.reference.type': 'attestation-manifest' };
  const linux = { os: 'linux', architecture: 'amd64' };
  const dir = layout(t, (b) => {
    const image = b.image({ more: { platform: linux } });
    wanted = image.digest;
    b.add(
      b.index([
        { mediaType: 'application/unknown', digest: 'md5:x', size: 1 },
        b.image({ seed: 'at', more: { platform: { os: 'unknown', architecture: 'unknown' } } }),
        b.image({ seed: 'at2', more: { platform: linux, annotations: attestation } }),
        b.image({ seed: 'art', more: { platform: linux, artifactType: 'application/x' } }),
        b.index([], { platform: linux }),
        b.index([b.image({ seed: 'arm' })], { platform: { os: 'linux', architecture: 'arm64' } }),
        b.index([image]),
      ]),
      'x',
    );
  });
  t.equal((await resolve(dir, ':x')).manifestDigest, wanted);

  const single = layout(t, (b) => {
    const image = b.image();
    wanted = image.digest;
    b.add(b.index([image, b.image({ seed: 'at', more: { annotations: attestation } })]));
  });
  t.equal((await resolve(single)).manifestDigest, wanted, 'a single image need not say its platform');
  const two = layout(t, (b) => void b.add(b.index([b.image(), b.image({ seed: 'y' })])));
  await t.rejects(resolve(two), { code: 'PLATFORM_NOT_FOUND', message: /only for unknown/ });
  const none = layout(t, (b) => void b.add(b.index([]), 'x'));
  await t.rejects(resolve(none, ':x'), { code: 'IMAGE_NOT_FOUND' });
});

t.test('an index that is not there hides nothing but what is in it', async (t) => {
  const gone: Desc = { mediaType: INDEX, digest: sha256('gone'), size: 4 };
  let wanted = '';
  const partial = layout(t, (b) => {
    const image = b.image({ more: { platform: { os: 'linux', architecture: 'amd64' } } });
    wanted = image.digest;
    b.add(b.index([gone, image]), 'x');
  });
  t.equal((await resolve(partial, ':x')).manifestDigest, wanted);
  t.equal((await resolve(partial, `@${wanted}`)).manifestDigest, wanted);
  await t.rejects(resolve(partial, ':x', { platform: parsePlatform('linux/arm64') }), { code: 'BLOB_MISSING' });
  await t.rejects(resolve(partial, `@${sha256('?')}`), { code: 'BLOB_MISSING' });
});

t.test('indexes are capped in depth and number', async (t) => {
  const nested = (levels: number) =>
    layout(t, (b) => {
      let entry = b.image();
      for (let i = 0; i < levels; i++) entry = b.index([entry]);
      b.add(entry);
    });
  t.equal((await resolve(nested(4))).layers.length, 1, 'five, with that of the layout');
  await t.rejects(resolve(nested(5)), { code: 'LIMIT_EXCEEDED', message: /nested deeper/ });
  const wide = layout(t, (b) => {
    const entry = { mediaType: MANIFEST, digest: sha256('x'), size: 1 };
    const inner = (i: number) => b.index(new Array<Desc>(4000).fill(entry), { annotations: { i: `${i}` } });
    b.add(
      b.index([
        inner(0),
        b.index([...new Array<Desc>(4001).fill(entry)]),
        b.index([...new Array<Desc>(4002).fill(entry)]),
      ]),
    );
  });
  await t.rejects(resolve(wide), { code: 'LIMIT_EXCEEDED', message: /10000 entries/ });
  const again = layout(t, (b) => {
    const inner = b.index(
      new Array<Desc>(900).fill(b.image({ more: { platform: { os: 'linux', architecture: 'amd64' } } })),
    );
    b.add(b.index(new Array<Desc>(900).fill(inner)));
  });
  t.equal((await resolve(again)).layers.length, 1, 'an index that comes again is not walked again');
});

t.test('a config of another platform is a warning', async (t) => {
  const arm = { os: 'linux', architecture: 'arm64' };
  const plain = await resolve(layout(t, (b) => void b.add(b.image({ config: arm }))));
  t.match(plain.warnings, [/for linux\/arm64; wanted is linux\/amd64/]);
  t.strictSame(plain.platform, arm);
  const lying = layout(t, (b) => {
    b.add(b.index([b.image({ config: arm, more: { platform: { os: 'linux', architecture: 'amd64' } } })]));
  });
  t.match((await resolve(lying)).warnings, [/for linux\/arm64, its index linux\/amd64/]);
  const silent = await resolve(layout(t, (b) => void b.add(b.image({ config: { os: null, architecture: '' } }))));
  t.match(silent.warnings, [/for unknown\/unknown/]);
});

t.test('digests of every algorithm that we can compute', async (t) => {
  const sha512 = (b: Buffer) => `sha512:${createHash('sha512').update(b).digest('hex')}`;
  const b3 = (b: Buffer) => `blake3:${Buffer.from(blake3(b)).toString('hex')}`;
  const tar = Buffer.alloc(1024);
  const dir = layout(t, (b) => {
    const config = Buffer.from(
      JSON.stringify({
        os: 'linux',
        architecture: 'amd64',
        rootfs: { type: 'layers', diff_ids: [sha512(tar), b3(tar)] },
      }),
    );
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        config: b.blob(CONFIG, config, { digest: b3(config) }),
        layers: [sha512(tar), b3(tar)].map((digest) =>
          b.blob('application/vnd.oci.image.layer.v1.tar', tar, { digest }),
        ),
      }),
    );
    b.add(b.blob(MANIFEST, manifest, { digest: sha512(manifest) }), 'x');
    b.add({ mediaType: MANIFEST, digest: 'sha384:abc', size: 1 }, 'unknown');
    b.add({ mediaType: MANIFEST, digest: `sha256:${'A'.repeat(64)}`, size: 1 }, 'upper');
    b.add({ mediaType: MANIFEST, digest: '../../etc/passwd', size: 1 }, 'path');
  });
  const image = await resolve(dir, ':x');
  t.strictSame(
    image.layers.map((layer) => layer.digest?.split(':')[0]),
    ['sha512', 'blake3'],
  );
  await t.rejects(resolve(dir, ':unknown'), { code: 'DIGEST_UNSUPPORTED' });
  await t.rejects(resolve(dir, ':upper'), { code: 'DIGEST_INVALID' });
  await t.rejects(resolve(dir, ':path'), { code: 'DIGEST_INVALID' });
});

t.test('content inside a descriptor is verified, and used', async (t) => {
  const embed = (change: (data: Buffer) => Buffer) =>
    layout(t, (b) => {
      const image = b.image();
      const name = `blobs/${image.digest.replace(':', '/')}`;
      const bytes = b.files.get(name)!;
      b.files.delete(name);
      b.add({ ...image, data: change(bytes).toString('base64') });
    });
  t.equal((await resolve(embed((b) => b))).layers.length, 1, 'the blob itself is not needed');
  await t.rejects(resolve(embed((b) => b.subarray(1))), { code: 'BLOB_SIZE_MISMATCH' });
  await t.rejects(resolve(embed((b) => Buffer.from(b.toString().replace('2', '3')))), { code: 'BLOB_DIGEST_MISMATCH' });
  const layer = (data: string) =>
    layout(t, (b) => {
      const tar = Buffer.alloc(1024);
      const config = { rootfs: { type: 'layers', diff_ids: [sha256(tar)] } };
      const layers = [{ ...b.blob('application/vnd.oci.image.layer.v1.tar', tar), data }];
      b.add(b.image({ layers: 0, config, manifest: { layers } }));
    });
  t.equal((await resolve(layer(Buffer.alloc(1024).toString('base64')))).layers.length, 1);
  await t.rejects(resolve(layer(Buffer.alloc(1024, 1).toString('base64'))), { code: 'BLOB_DIGEST_MISMATCH' });
});

t.test('what is wrong with a layout', async (t) => {
  const change = (edit: (files: Map<string, Buffer>, manifest: Desc) => void) => (t: Test) =>
    layout(t, (b) => {
      const manifest = b.add(b.image({ layers: 2 }), 'x');
      b.finish();
      edit(b.files, manifest);
    });
  const path = (digest: string) => `blobs/${digest.replace(':', '/')}`;
  const edit = (name: string, text: string) => change((files) => files.set(name, Buffer.from(text)));
  const image = (options: Parameters<LayoutBuilder['image']>[0]) => (t: Test) =>
    layout(t, (b) => void b.add(b.image(options), 'x'));
  const layerOf = (files: Map<string, Buffer>, manifest: Desc): string => {
    const document = JSON.parse(files.get(path(manifest.digest))!.toString()) as { layers: Desc[] };
    return path(document.layers[1]!.digest);
  };
  const table: [string, (t: Test) => string, Expected][] = [
    ['no oci-layout', change((f) => f.delete('oci-layout')), { code: 'LAYOUT_INVALID', message: /oci-layout/ }],
    ['no index.json', change((f) => f.delete('index.json')), { code: 'LAYOUT_INVALID', message: /index\.json/ }],
    [
      'another version',
      edit('oci-layout', '{"imageLayoutVersion":"2.0.0"}'),
      { code: 'LAYOUT_INVALID', message: /"2\.0\.0"/ },
    ],
    ['no version', edit('oci-layout', '{}'), { code: 'LAYOUT_INVALID' }],
    [
      'an oci-layout that is no JSON',
      edit('oci-layout', 'root:x:0:0'),
      { code: 'LAYOUT_INVALID', message: /not JSON$/ },
    ],
    ['a huge oci-layout', edit('oci-layout', ' '.repeat(5000)), { code: 'LIMIT_EXCEEDED' }],
    ['an index.json that is no index', edit('index.json', '[]'), { code: 'MANIFEST_INVALID', message: /index\.json/ }],
    [
      'a missing manifest',
      change((f, m) => f.delete(path(m.digest))),
      { code: 'BLOB_MISSING', message: /the manifest sha256/ },
    ],
    [
      'a missing layer',
      change((f, m) => f.delete(layerOf(f, m))),
      {
        code: 'BLOB_MISSING',
        message: /layer 2 of 2, sha256:\w{64}, is missing: .* has no blobs\/sha256\/\w{64}/,
        hint: /incomplete/,
      },
    ],
    [
      'a layer that is too short',
      change((f, m) => f.set(layerOf(f, m), Buffer.from('x'))),
      { code: 'BLOB_SIZE_MISMATCH', exitCode: 3, message: /layer 2 of 2.* has 1 bytes/ },
    ],
    [
      'a longer manifest',
      change((f, m) => f.set(path(m.digest), Buffer.alloc(m.size + 1))),
      { code: 'BLOB_SIZE_MISMATCH' },
    ],
    [
      'another manifest',
      change((f, m) => f.set(path(m.digest), Buffer.alloc(m.size))),
      { code: 'BLOB_DIGEST_MISMATCH', exitCode: 3 },
    ],
    ['another rootfs.type', image({ config: { rootfs: { type: 'x' } } }), { code: 'CONFIG_INVALID' }],
    [
      'too few diffIDs',
      image({ config: { rootfs: { type: 'layers', diff_ids: [] } } }),
      { code: 'CONFIG_INVALID', message: /0 diffIDs.* 1 layers/ },
    ],
    ['an artifact', image({ configType: 'application/x' }), { code: 'NOT_AN_IMAGE', message: /application\/x/ }],
    [
      'schema 1',
      (t) =>
        layout(
          t,
          (b) =>
            void b.add(
              { mediaType: 'application/vnd.docker.distribution.manifest.v1+prettyjws', digest: sha256(''), size: 0 },
              'x',
            ),
        ),
      { code: 'NOT_AN_IMAGE', message: /schema 1/ },
    ],
    [
      'a document of another type',
      (t) => layout(t, (b) => void b.add(b.json('application/x', {}), 'x')),
      { code: 'NOT_AN_IMAGE' },
    ],
    [
      'a manifest that is too large',
      (t) => layout(t, (b) => void b.add(b.blob(MANIFEST, Buffer.alloc(4 * 1024 * 1024 + 1)), 'x')),
      { code: 'LIMIT_EXCEEDED' },
    ],
  ];
  for (const [name, make, expected] of table) {
    await t.test(name, async (t) => {
      const dir = make(t);
      await t.rejects(resolve(dir, ':x'), expected);
      await t.rejects(resolve(dir, ':x'), { message: new RegExp(`^Cannot open oci:${dir}:x: `) });
    });
  }
});

t.test('an older 1.x layout is a warning', async (t) => {
  const dir = layout(t, (b) => {
    b.files.set('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0-rc5"}'));
    b.add(b.image());
  });
  t.match((await resolve(dir)).warnings, [/1\.0\.0-rc5/]);
});

t.test('files of a layout: links are followed, what is no file is refused', async (t) => {
  const dir = layout(t, (b) => void b.add(b.image()));
  renameSync(join(dir, 'blobs'), join(dir, 'elsewhere'));
  symlinkSync('elsewhere', join(dir, 'blobs'));
  t.equal((await resolve(dir)).layers.length, 1);
  unlinkSync(join(dir, 'index.json'));
  execFileSync('mkfifo', [join(dir, 'index.json')]);
  await t.rejects(resolve(dir), { code: 'LAYOUT_INVALID', message: /not a regular file/ });
  await t.rejects(resolve(join(dir, 'nothing')), { code: 'IMAGE_NOT_FOUND', exitCode: 4 });
  await t.rejects(resolve(join(dir, 'oci-layout')), { code: 'LAYOUT_INVALID', hint: /archive/ });
});

t.test('a layout that may not be read', async (t) => {
  const dir = layout(t, (b) => void b.add(b.image()));
  chmodSync(dir, 0o755);
  const reference = parseReference(`oci:${dir}`, '/');
  chmodSync(join(dir, 'index.json'), 0);
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(65534);
  try {
    await t.rejects(resolveImage(reference), { code: 'PERMISSION_DENIED', message: /index\.json/ });
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
});

t.test('openBlob does not wait for a FIFO, and says what is gone', async (t) => {
  const dir = newDirectory(t);
  const location = (name: string, size = 1) => ({ kind: 'file' as const, path: join(dir, name), offset: 0, size });
  execFileSync('mkfifo', [join(dir, 'fifo')]);
  mkdirSync(join(dir, 'directory'));
  writeFileSync(join(dir, 'file'), 'abc');
  for (const name of ['fifo', 'directory', 'nothing'])
    t.throws(() => openBlob(location(name)), { code: 'BLOB_MISSING' }, name);
  t.throws(() => openBlob(location('file', 4)), { code: 'BLOB_MISSING' });
  const blob = openBlob({ ...location('file', 2), offset: 1 });
  rmSync(join(dir, 'file'));
  const into = Buffer.alloc(8, '.');
  t.equal(blob.read(0, into), 2);
  t.equal(into.toString(), 'bc......');
  t.equal(blob.read(1, into), 1);
  blob.close();
});
