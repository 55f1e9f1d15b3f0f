/** appc images: what is an archive, what its manifest says, and which dependencies it gets (I023, I024, I027). */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Image } from '../../src/source/image.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import { file, makeAci, type AciSpec } from '../support/aci.js';
import { digest } from '../support/images.js';
import { tempDir } from '../support/tmp.js';

interface Expected {
  readonly code: string;
  readonly message?: RegExp;
}

const resolve = (path: string, ...aciPath: string[]): Promise<Image> =>
  resolveImage(parseReference(`aci:${path}`, '/'), { aciPath, platform: { os: 'linux', architecture: 'amd64' } });
const asDigest = (id: string): string => id.replace('-', ':');

t.test('an ACI is one layer, whose digest is the image ID', async (t) => {
  const dir = tempDir(t);
  for (const compression of ['none', 'gzip'] as const) {
    for (const manifestFirst of [true, false]) {
      const spec: AciSpec = { compression, manifestFirst, entries: [file('a', 'x'.repeat(3_000_000))] };
      const made = await makeAci(join(dir, 'x.aci'), spec);
      const image = await resolve(made.path);
      const id = asDigest(made.id);
      t.match(
        image,
        {
          reference: `aci:${made.path}`,
          configDigest: id,
          manifestDigest: undefined,
          compat: 'overlay',
          layers: [
            {
              diffId: id,
              digest: digest(readFileSync(made.path), compression === 'none' ? 'sha512' : 'sha256'),
              view: 'aci',
              whitelists: [],
            },
          ],
        },
        `${compression}, manifest ${manifestFirst ? 'first' : 'last'}`,
      );
      t.equal(image.layers.length, 1);
      t.strictSame(image.warnings, []);
    }
  }
});

t.test('what the manifest says becomes the config', async (t) => {
  const manifest = {
    name: 'example.com/reduce-worker',
    labels: [
      { name: 'version', value: '1.0.0' },
      { name: 'arch', value: 'aarch64' },
      { name: 'os', value: 'linux' },
    ],
    app: {
      exec: ['/usr/bin/reduce-worker', '--quiet'],
      user: '100',
      group: '/bin/ping',
      supplementaryGIDs: [400, 500],
      eventHandlers: [{ exec: ['/usr/bin/data-downloader'], name: 'pre-start' }],
      workingDirectory: '/opt/work',
      environment: [{ name: 'REDUCE_WORKER_DEBUG', value: 'a=b' }],
      isolators: [{ name: 'resource/cpu', value: { request: '250', limit: '500' } }],
      mountPoints: [{ name: 'work', path: '/var/lib/work', readOnly: true }],
      ports: [
        { name: 'health', port: 4000, protocol: 'tcp', socketActivated: true },
        { name: 'ftp-data', port: 20000, count: 1000, protocol: 'tcp' },
      ],
    },
    annotations: [
      { name: 'authors', value: 'Carly Container' },
      { name: 'created', value: '2014-10-27T19:32:27.67021798Z' },
      { name: 'homepage', value: 'https://example.com' },
    ],
    unknown: {},
  };
  const { config, platform, warnings } = await resolve((await makeAci(join(tempDir(t), 'x.aci'), { manifest })).path);
  t.match(config, {
    os: 'linux',
    architecture: 'arm64',
    user: '100:/bin/ping',
    entrypoint: [],
    cmd: ['/usr/bin/reduce-worker', '--quiet'],
    env: ['REDUCE_WORKER_DEBUG=a=b'],
    workingDir: '/opt/work',
    volumes: ['/var/lib/work'],
    exposedPorts: ['4000/tcp', '20000-20999/tcp'],
    author: 'Carly Container',
    created: '2014-10-27T19:32:27.67021798Z',
    labels: {
      'org.opencontainers.image.title': 'example.com/reduce-worker',
      'org.opencontainers.image.version': '1.0.0',
      'org.opencontainers.image.url': 'https://example.com',
    },
    appc: {
      supplementaryGids: [400, 500],
      mountPoints: [{ name: 'work', path: '/var/lib/work', readOnly: true }],
      ignored: ['isolator resource/cpu', 'event handler pre-start'],
    },
  });
  t.strictSame(platform, { os: 'linux', architecture: 'arm64' });
  t.match(warnings, [/for linux\/arm64; wanted is linux\/amd64/]);
});

t.test('what is no ACI is refused', async (t) => {
  const dir = tempDir(t);
  const rootfs = { name: 'rootfs/', type: 'directory' as const };
  const valid = '{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a"}';
  const manifest = (fields: Record<string, unknown>): AciSpec => ({ manifest: fields });
  const app = (fields: Record<string, unknown>): AciSpec => manifest({ app: { user: '0', group: '0', ...fields } });
  const invalid = (message: RegExp): Expected => ({ code: 'MANIFEST_INVALID', message });
  const table: [string, AciSpec, Expected][] = [
    ['no manifest', { manifestBytes: null }, { code: 'ARCHIVE_INVALID', message: /no manifest/ }],
    [
      'no rootfs',
      { only: [{ name: 'manifest', content: valid }] },
      { code: 'ARCHIVE_INVALID', message: /no rootfs directory/ },
    ],
    [
      'a rootfs that is a file',
      { only: [{ name: 'rootfs' }, { name: 'manifest', content: valid }] },
      { code: 'ARCHIVE_INVALID', message: /not a directory/ },
    ],
    [
      'another name at the top',
      { entries: [{ name: 'rootfs2/x' }] },
      { code: 'ARCHIVE_INVALID', message: /"rootfs2\/x" beside manifest and rootfs/ },
    ],
    ['a name above the top', { entries: [{ name: '../rootfs/x' }] }, { code: 'ARCHIVE_INVALID', message: /beside/ }],
    [
      'a manifest in a directory',
      { only: [rootfs, { name: 'manifest/x', content: valid }] },
      { code: 'ARCHIVE_INVALID' },
    ],
    ['two manifests', { entries: [{ name: 'manifest', content: valid }] }, { code: 'ARCHIVE_INVALID', message: /two/ }],
    [
      'a manifest that is a link',
      { only: [rootfs, { name: 'manifest', type: 'symlink', linkname: 'rootfs/m' }] },
      { code: 'ARCHIVE_INVALID', message: /ordinary file/ },
    ],
    [
      'a large manifest',
      { manifestBytes: ' '.repeat(4 * 1024 * 1024 + 1) },
      { code: 'LIMIT_EXCEEDED', message: /the manifest has/ },
    ],
    ['an empty manifest', { manifestBytes: '' }, invalid(/not JSON/)],
    ['a pod manifest', manifest({ acKind: 'PodManifest' }), invalid(/acKind/)],
    ['version 1', manifest({ acVersion: '1.0.0' }), invalid(/1\.0\.0; 0\.x/)],
    ['no version', manifest({ acVersion: 'x' }), invalid(/acVersion/)],
    ['a name with capitals', manifest({ name: 'Example' }), invalid(/at name/)],
    ['a label twice', manifest({ labels: ['a', 'a'].map((name) => ({ name, value: '' })) }), invalid(/twice/)],
    ['a label "name"', manifest({ labels: [{ name: 'name', value: '' }] }), invalid(/labels/)],
    ['an app without user', app({ user: '' }), invalid(/app\.user/)],
    ['a relative directory', app({ workingDirectory: 'x' }), invalid(/workingDirectory/)],
    ['a variable with =', app({ environment: [{ name: 'A=B', value: '' }] }), invalid(/environment/)],
    ['a port 0', app({ ports: [{ name: 'a', protocol: 'tcp', port: 0 }] }), invalid(/port/)],
    ['a mount point without path', app({ mountPoints: [{ name: 'a' }] }), invalid(/mountPoints/)],
    [
      'an image ID of another kind',
      manifest({ dependencies: [{ imageName: 'a', imageID: 'sha256-00' }] }),
      invalid(/image ID/),
    ],
  ];
  for (const [name, spec, expected] of table) {
    const { path } = await makeAci(join(dir, 'x.aci'), spec);
    await t.rejects(resolve(path), expected, name);
    await t.rejects(resolve(path), { message: new RegExp(`^Cannot open aci:${path}: `) }, name);
  }
  await t.rejects(resolve(join(dir, 'none.aci')), { code: 'IMAGE_NOT_FOUND', exitCode: 4 });
  await t.rejects(resolve(dir), { code: 'ARCHIVE_INVALID', message: /directory/ });
});

t.test('compressions: gzip is read, of the others it is said how to get there', async (t) => {
  const dir = tempDir(t);
  const { path, tar } = await makeAci(join(dir, 'x.aci'));
  for (const tool of ['bzip2', 'xz']) {
    writeFileSync(path, execFileSync(tool, ['-c'], { input: tar }));
    await t.rejects(resolve(path), {
      code: 'COMPRESSION_UNKNOWN',
      message: tool,
      hint: new RegExp(`${tool} -dc .*gzip`),
    });
  }
  const { path: gzip } = await makeAci(join(dir, 'y.aci'), { entries: [file('a', 'x'.repeat(100_000))] });
  execFileSync('truncate', ['-s', '-9', gzip]);
  await t.rejects(resolve(gzip), { code: 'COMPRESSION_TRUNCATED' });
  writeFileSync(path, 'not a tar'.padEnd(1024, '.'));
  await t.rejects(resolve(path), { code: 'ARCHIVE_INVALID', message: /not a tar archive/ });
  writeFileSync(path, '');
  await t.rejects(resolve(path), { code: 'ARCHIVE_INVALID', message: /no manifest/ });
});

t.test('dependencies come first, in order, depth first, as often as they are reached', async (t) => {
  const dir = tempDir(t);
  const deps = join(dir, 'deps');
  const d = await makeAci(join(deps, '1.aci'), { manifest: { name: 'd' } });
  const needs = (name: string, list: unknown[], more = {}): AciSpec => ({
    manifest: { name, dependencies: list, ...more },
  });
  const onD = { imageName: 'd', imageID: d.id };
  const b = await makeAci(join(deps, '2.aci'), needs('b', [], { pathWhitelist: ['/b'] }));
  const c = await makeAci(join(deps, '3.aci'), needs('c', [onD], { pathWhitelist: ['/c', '/ü'] }));
  const top = await makeAci(
    join(dir, 'a.aci'),
    needs('a', [{ imageName: 'b' }, { imageName: 'c' }, onD], { pathWhitelist: ['/a'] }),
  );
  const { layers, configDigest } = await resolve(top.path, deps);
  t.strictSame(
    layers.map(({ diffId, whitelists }) => [diffId, whitelists]),
    [
      [asDigest(b.id), [['/a'], ['/b']]],
      [asDigest(d.id), [['/a'], ['/c', '/\xc3\xbc']]],
      [asDigest(c.id), [['/a'], ['/c', '/\xc3\xbc']]],
      [asDigest(d.id), [['/a']]],
      [asDigest(top.id), [['/a']]],
    ],
  );
  t.equal(configDigest, asDigest(top.id));
});

t.test('a dependency is found by name, labels and image ID', async (t) => {
  const dir = tempDir(t);
  const deps = join(dir, 'deps');
  const labels = (...pairs: [string, string][]) => pairs.map(([name, value]) => ({ name, value }));
  const base = async (name: string, ...pairs: [string, string][]) =>
    makeAci(join(deps, name), { manifest: { name: 'base', labels: labels(...pairs) }, entries: [file(name)] });
  const amd = await base('amd.aci', ['version', '1'], ['os', 'linux'], ['arch', 'amd64']);
  const arm = await base('arm.aci', ['version', '1'], ['os', 'linux'], ['arch', 'aarch64']);
  const two = await base('two.aci', ['version', '2'], ['os', 'linux'], ['arch', 'amd64']);
  writeFileSync(join(deps, 'broken.aci'), 'broken');
  writeFileSync(join(deps, 'other.txt'), 'not looked at');
  const found = async (dependency: Record<string, unknown>, own: { name: string; value: string }[] = []) => {
    const manifest = { name: 'top', labels: own, dependencies: [{ imageName: 'base', ...dependency }] };
    const image = await resolve((await makeAci(join(dir, 'top.aci'), { manifest })).path, join(dir, 'empty'), deps);
    t.match(image.warnings, [/broken\.aci is passed over/]);
    return image.layers[0]?.diffId;
  };
  mkdirSync(join(dir, 'empty'));
  t.equal(await found({ labels: labels(['version', '2']) }), asDigest(two.id));
  t.equal(await found({ labels: labels(['arch', 'aarch64']) }), asDigest(arm.id));
  t.equal(await found({ imageID: amd.id }), asDigest(amd.id));
  const ours = labels(['os', 'linux'], ['arch', 'aarch64']);
  t.equal(await found({ labels: labels(['version', '1']) }, ours), asDigest(arm.id), "the image's own architecture");
  await t.rejects(found({ labels: labels(['version', '1']) }), {
    code: 'IMAGE_AMBIGUOUS',
    message: /amd\.aci {2}version=1,os=linux,arch=amd64\n.*arm\.aci/,
  });
  await t.rejects(found({ labels: labels(['version', '3']) }), {
    code: 'IMAGE_NOT_FOUND',
    message: /top depends on base \(version=3\), which is not there: .*two\.aci/s,
    hint: /--aci-path/,
  });
  await t.rejects(found({ imageID: `sha512-${'0'.repeat(128)}` }), {
    code: 'BLOB_DIGEST_MISMATCH',
    exitCode: 3,
    message: /has to be sha512-0{128}; there is .*amd\.aci: sha512-/,
  });
  await t.rejects(resolve(join(dir, 'top.aci')), { code: 'IMAGE_NOT_FOUND', message: /no directory was named/ });
  await t.rejects(resolve(join(dir, 'top.aci'), join(dir, 'nowhere')), { code: 'IO', message: /nowhere/ });
});

t.test('circles and towers of dependencies end', async (t) => {
  const dir = tempDir(t);
  const on = (name: string, ...names: string[]) =>
    makeAci(join(dir, `${name}.aci`), {
      manifest: { name, dependencies: names.map((imageName) => ({ imageName })) },
    });
  const a = await on('a', 'b');
  await on('b', 'a');
  await t.rejects(resolve(a.path, dir), { code: 'ARCHIVE_INVALID', message: /a depends on itself/ });

  const tower = await on('t0');
  for (let i = 1; i <= 40; i++) await on(`t${i}`, `t${i - 1}`);
  t.equal((await resolve(join(dir, 't20.aci'), dir)).layers.length, 21);
  await t.rejects(resolve(join(dir, 't40.aci'), dir), { code: 'LIMIT_EXCEEDED', message: /deeper/ });
  t.equal((await resolve(tower.path, dir)).layers.length, 1);

  await on('w0');
  for (let i = 1; i <= 12; i++) await on(`w${i}`, `w${i - 1}`, `w${i - 1}`);
  await t.rejects(resolve(join(dir, 'w12.aci'), dir), { code: 'LIMIT_EXCEEDED', message: /512 layers/ });
});
