import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import type { ErrorCode } from '../../src/errors.js';
import { parsePlatform } from '../../src/oci/platform.js';
import { Archive } from '../../src/source/archive.js';
import { openBlob, type BlobLocation } from '../../src/source/blob.js';
import type { Image } from '../../src/source/image.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import {
  CONTAINERD_NAME,
  LayoutBuilder,
  REF_NAME,
  members,
  newDirectory,
  sha256,
  tarOf,
  type Member,
} from './builders.js';

interface Expected extends Record<string, unknown> {
  code: ErrorCode;
  message?: RegExp;
  hint?: RegExp;
}

function resolve(kind: string, file: string, suffix = ''): Promise<Image> {
  return resolveImage(parseReference(`${kind}:${file}${suffix}`, '/'), { platform: parsePlatform('linux/amd64') });
}

async function archive(t: Test, list: Iterable<Member>): Promise<string> {
  const file = join(newDirectory(t), 'image.tar');
  writeFileSync(file, await tarOf(list));
  return file;
}

function bytesAt(location: BlobLocation | undefined): Buffer {
  if (location === undefined) throw new Error('there is no such member');
  const blob = openBlob(location);
  const bytes = Buffer.alloc(location.size);
  blob.read(0, bytes);
  blob.close();
  return bytes;
}

function oneImage(): LayoutBuilder {
  const b = new LayoutBuilder();
  b.add(b.image({ layers: 2 }), 'latest');
  return b;
}

t.test('Archive finds the members of what GNU tar writes', async (t) => {
  const dir = t.testdir({
    'short.txt': 'short',
    deep: { ['n'.repeat(120)]: { ['m'.repeat(120)]: 'long name' } },
    empty: '',
    big: 'b'.repeat(200_000),
    last: 'end',
  });
  execFileSync('ln', ['-s', '../short.txt', join(dir, 'deep/link')]);
  execFileSync('ln', [join(dir, 'short.txt'), join(dir, 'zz-hard')]);
  for (const format of ['gnu', 'posix', 'ustar', 'v7', 'oldgnu']) {
    const file = join(newDirectory(t), 'x.tar');
    const long = !['ustar', 'v7'].includes(format);
    const exclude = long ? [] : ['--exclude=n*'];
    execFileSync('tar', [
      '-C',
      dir,
      `--format=${format}`,
      ...exclude,
      '--sort=name',
      '--owner=0',
      '--group=0',
      '-cf',
      file,
      '.',
    ]);
    const a = Archive.open(file);
    t.equal(bytesAt(a.find('short.txt')).toString(), 'short', format);
    t.equal(bytesAt(a.find('deep/link')).toString(), 'short', `${format}: a symbolic link`);
    t.equal(bytesAt(a.find('zz-hard')).toString(), 'short', `${format}: a hard link`);
    t.equal(bytesAt(a.find('empty')).length, 0);
    t.equal(bytesAt(a.find('big')).toString(), 'b'.repeat(200_000));
    t.equal(bytesAt(a.find('last')).toString(), 'end');
    if (long) t.equal(bytesAt(a.find(`deep/${'n'.repeat(120)}/${'m'.repeat(120)}`)).toString(), 'long name');
    t.equal(a.find('deep'), undefined, 'a directory is no file');
    t.equal(a.find('nothing'), undefined);
  }
});

t.test('Archive: sparse members are passed over right, and refused', async (t) => {
  const dir = t.testdir({ 'z.txt': 'after' });
  const holes = join(dir, 'holes');
  execFileSync('truncate', ['-s', '1M', holes]);
  for (let i = 0; i < 30; i++) {
    execFileSync('dd', [
      'if=/dev/urandom',
      `of=${holes}`,
      'bs=4096',
      'count=1',
      `seek=${i * 8}`,
      'conv=notrunc',
      'status=none',
    ]);
  }
  for (const [format, version] of [
    ['gnu', '1.0'],
    ['posix', '0.0'],
    ['posix', '0.1'],
    ['posix', '1.0'],
  ] as const) {
    const file = join(newDirectory(t), 'x.tar');
    execFileSync('tar', [
      '-C',
      dir,
      '-S',
      `--sparse-version=${version}`,
      `--format=${format}`,
      '-cf',
      file,
      'holes',
      'z.txt',
    ]);
    const a = Archive.open(file);
    t.equal(bytesAt(a.find('z.txt')).toString(), 'after', `${format} ${version}`);
    t.throws(() => a.find('holes'), { code: 'ARCHIVE_INVALID', message: /sparse/ });
  }
});

t.test('Archive: names are clean and stay inside; links are followed once', async (t) => {
  const a = Archive.open(
    await archive(t, [
      { name: './/a/./b', body: 'ab' },
      { name: '/rooted', body: 'r' },
      { name: '../../up', body: 'u' },
      { name: 'd/e/up-link', type: 'symlink', linkname: '../../../../../../a/b' },
      { name: 'd/absolute', type: 'symlink', linkname: '/rooted' },
      { name: 'hard', type: 'link', linkname: './rooted' },
      { name: 'second', type: 'symlink', linkname: 'hard' },
      { name: 'self', type: 'symlink', linkname: 'self' },
      { name: 'dangling', type: 'symlink', linkname: '/etc/passwd' },
      { name: 'na\u00efve', body: 'utf-8' },
    ]),
  );
  const table: [string, string][] = [
    ['a/b', 'ab'],
    ['rooted', 'r'],
    ['up', 'u'],
    ['d/e/up-link', 'ab'],
    ['d/absolute', 'r'],
    ['hard', 'r'],
    [Buffer.from('na\u00efve').toString('latin1'), 'utf-8'],
  ];
  for (const [name, content] of table) t.equal(bytesAt(a.find(name)).toString(), content, name);
  for (const name of ['second', 'self'])
    t.throws(() => a.find(name), { code: 'ARCHIVE_INVALID', message: /link too/ }, name);
  t.throws(() => a.find('dangling'), { code: 'ARCHIVE_INVALID', message: /not there/ });
});

t.test('Archive: of two members with one name an option chooses', async (t) => {
  const a = Archive.open(
    await archive(t, [
      { name: 'x', body: 'first' },
      { name: 'y', body: 'y' },
      { name: './x', body: 'middle' },
      { name: 'x', body: 'last' },
    ]),
  );
  t.equal(bytesAt(a.find('x')).toString(), 'last');
  t.equal(bytesAt(a.find('x', 'first')).toString(), 'first');
  t.equal(bytesAt(a.find('y')).toString(), 'y');
  t.match(a.warnings, [/1 names more than once, such as "x"/]);
});

t.test('Archive: a PAX size counts, for the next member only', async (t) => {
  const tar = await tarOf([
    { name: 'a', body: 'x'.repeat(600), pax: { size: '600' } },
    { name: 'b', body: 'y' },
  ]);
  // the header's own size of "a" becomes wrong: the record must win
  const header = 1024;
  tar.write('00000000001\0', header + 124, 'latin1');
  tar.write('        ', header + 148, 'latin1');
  let sum = 0;
  for (let i = header; i < header + 512; i++) sum += tar[i]!;
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, header + 148, 'latin1');
  const file = join(newDirectory(t), 'x.tar');
  writeFileSync(file, tar);
  const a = Archive.open(file);
  t.equal(bytesAt(a.find('a')).toString(), 'x'.repeat(600));
  t.equal(bytesAt(a.find('b')).toString(), 'y');
});

t.test('Archive: what is no uncompressed tar', async (t) => {
  const dir = newDirectory(t);
  const tar = await tarOf(members(oneImage().finish()));
  const file = (name: string, bytes: Buffer | string): string => {
    writeFileSync(join(dir, name), bytes);
    return join(dir, name);
  };
  const huge = Buffer.from(tar);
  huge.fill(0xff, 124, 136);
  const table: [string, string, Expected][] = [
    ['gzip', file('a.gz', gzipSync(tar)), { code: 'ARCHIVE_INVALID', message: /compressed with gzip/, hint: /gunzip/ }],
    [
      'zstd',
      file('a.zst', Buffer.from('28b52ffd00000000', 'hex')),
      { code: 'ARCHIVE_INVALID', message: /zstd/, hint: /zstd -d/ },
    ],
    ['bzip2', file('a.bz2', 'BZh91AY'), { code: 'ARCHIVE_INVALID', message: /bzip2/ }],
    ['xz', file('a.xz', Buffer.from('fd377a585a000004', 'hex')), { code: 'ARCHIVE_INVALID', message: /xz/ }],
    ['empty', file('empty', ''), { code: 'ARCHIVE_INVALID', message: /empty/ }],
    ['text', file('text', 'hello '.repeat(200)), { code: 'ARCHIVE_INVALID', message: /not a tar/ }],
    ['less than a block', file('short', 'hello'), { code: 'ARCHIVE_INVALID' }],
    ['a bad size', file('huge', huge), { code: 'ARCHIVE_INVALID' }],
    ['a directory', dir, { code: 'ARCHIVE_INVALID', hint: /oci:DIR/ }],
    ['nothing', join(dir, 'nothing'), { code: 'IMAGE_NOT_FOUND', exitCode: 4 }],
  ];
  for (const [name, path, expected] of table) t.throws(() => Archive.open(path), expected, name);
  execFileSync('mkfifo', [join(dir, 'fifo')]);
  t.throws(() => Archive.open(join(dir, 'fifo')), { code: 'ARCHIVE_INVALID', message: /regular/ });
});

t.test('Archive: every cut either is an error or leaves whole members', async (t) => {
  const whole = await tarOf([
    { name: 'a', body: 'x'.repeat(700) },
    { name: 'n'.repeat(150), body: 'y'.repeat(10), pax: { comment: 'c' } },
  ]);
  const file = join(newDirectory(t), 'x.tar');
  let errors = 0;
  for (let length = 1; length < whole.length; length += 7) {
    writeFileSync(file, whole.subarray(0, length));
    try {
      const a = Archive.open(file);
      if (a.has('a')) t.equal(bytesAt(a.find('a')).toString(), 'x'.repeat(700));
      const long = a.find('n'.repeat(150));
      if (long !== undefined) t.equal(bytesAt(long).toString(), 'y'.repeat(10));
    } catch (e) {
      errors++;
      t.match(e, { code: 'ARCHIVE_INVALID' });
    }
  }
  t.ok(errors > 100);
});

t.test('oci-archive: any order, with or without ./, directories or not', async (t) => {
  const b = oneImage();
  const files = [...b.finish()];
  const plain = await resolve('oci-archive', await archive(t, members(files)));
  const dotted = await resolve(
    'oci-archive',
    await archive(t, [{ name: './', type: 'directory' }, ...members(files, './').reverse()]),
  );
  for (const image of [plain, dotted]) {
    t.equal(image.layers.length, 2);
    t.strictSame(image.warnings, []);
    for (const layer of image.layers) {
      t.equal(layer.blob.size, layer.size);
      t.equal(sha256(bytesAt(layer.blob)), layer.digest);
    }
  }
  t.equal(plain.manifestDigest, dotted.manifestDigest);
  const file = await archive(t, members(files));
  t.equal((await resolve('oci-archive', file, ':latest')).reference, `oci-archive:${file}:latest`);
  await t.rejects(resolve('oci-archive', file, ':x'), { code: 'TAG_NOT_FOUND' });
});

t.test('oci-archive: the last index.json counts, and blobs must be what they say', async (t) => {
  const b = oneImage();
  const files = b.finish();
  const stale = Buffer.from('{"schemaVersion":2,"manifests":[]}');
  const image = await resolve(
    'oci-archive',
    await archive(t, [{ name: 'index.json', body: stale }, ...members(files)]),
  );
  t.equal(image.layers.length, 2);
  t.match(image.warnings, [/more than once, such as "index\.json"/]);
  const other = [...files].map(([name, bytes]): [string, Buffer] => [
    name,
    name.startsWith('blobs/') ? Buffer.alloc(bytes.length) : bytes,
  ]);
  await t.rejects(resolve('oci-archive', await archive(t, members(other))), { code: 'BLOB_DIGEST_MISMATCH' });
  files.delete('oci-layout');
  await t.rejects(resolve('oci-archive', await archive(t, members(files))), { code: 'LAYOUT_INVALID' });
});

/** The members that `docker save` wrote before version 25. */
function saved(images: { seed: string; tags: string[] | null; layers?: number; config?: object }[]): Member[] {
  const list: Member[] = [];
  const manifest = images.map(({ seed, tags, layers = 2, config = {} }) => {
    const tars = Array.from({ length: layers }, (_, i) => tarLike(`${seed}${i}`));
    const document = JSON.stringify({
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: tars.map(sha256) },
      ...config,
    });
    const Config = `${sha256(document).slice(7)}.json`;
    list.push({ name: Config, body: document });
    const Layers = tars.map((body, i) => {
      list.push({ name: `${seed}${i}/VERSION`, body: '1.0' }, { name: `${seed}${i}/layer.tar`, body });
      return `${seed}${i}/layer.tar`;
    });
    return { Config, RepoTags: tags, Layers };
  });
  list.push({ name: 'manifest.json', body: JSON.stringify(manifest) });
  return list;
}

/** Looks like the start of a tar, and is told apart by `seed`. */
function tarLike(seed: string): Buffer {
  const bytes = Buffer.alloc(2048);
  bytes.write(seed);
  bytes.write('ustar\0', 257, 'latin1');
  return bytes;
}

t.test('docker-archive as Docker before 25 writes it', async (t) => {
  const file = await archive(t, saved([{ seed: 'a', tags: ['app:1'] }]));
  const image = await resolve('docker-archive', file);
  t.equal(image.manifestDigest, undefined);
  t.equal(image.configDigest, sha256(Buffer.from(image.configBytes)));
  t.strictSame(image.warnings, []);
  t.equal(image.layers.length, 2);
  for (const [i, layer] of image.layers.entries()) {
    t.equal(layer.diffId, sha256(tarLike(`a${i}`)));
    t.equal(layer.digest, layer.diffId, 'an uncompressed layer is its own diffID');
    t.equal(sha256(bytesAt(layer.blob)), layer.diffId);
  }
});

t.test('docker-archive: compressed layers, links to layers, shared layers', async (t) => {
  const tar = tarLike('x');
  const id = sha256(tar);
  const config = JSON.stringify({
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [id, id, id] },
  });
  const manifest = [
    { Config: './config.json', RepoTags: null, Layers: ['one/layer.tar', 'two/layer.tar', 'z.tar.gz'] },
  ];
  const image = await resolve(
    'docker-archive',
    await archive(t, [
      { name: './manifest.json', body: JSON.stringify(manifest) },
      { name: 'two/layer.tar', type: 'symlink', linkname: '../one/layer.tar' },
      { name: 'config.json', body: config },
      { name: 'one/layer.tar', body: tar },
      { name: 'z.tar.gz', body: gzipSync(tar) },
    ]),
  );
  t.strictSame(
    image.layers.map(({ diffId, digest }) => [diffId, digest]),
    [
      [id, id],
      [id, id],
      [id, undefined],
    ],
  );
  t.strictSame(image.layers[0]?.blob, image.layers[1]?.blob);
});

t.test('docker-archive: which image', async (t) => {
  const images = [
    { seed: 'a', tags: ['docker.io/library/app:1', 'localhost:5000/x:y'] },
    { seed: 'b', tags: ['app:2'] },
    { seed: 'c', tags: null },
    { seed: 'd', tags: ['app:1'] },
  ];
  const file = await archive(t, saved(images));
  const first = async (suffix: string) => (await resolve('docker-archive', file, suffix)).layers[0]?.diffId;
  const table: [string, string][] = [
    [':app:2', 'b'],
    [':docker.io/library/app:2', 'b'],
    [':localhost:5000/x:y', 'a'],
    [':app:1', 'd'],
    [':docker.io/library/app:1', 'a'],
    [':docker.io/app:1', 'a'],
    [':@0', 'a'],
    [':@2', 'c'],
  ];
  for (const [suffix, seed] of table) t.equal(await first(suffix), sha256(tarLike(`${seed}0`)), suffix);
  t.match((await resolve('docker-archive', file, ':docker.io/app:1')).warnings, [/2 images are called/]);
  await t.rejects(first(''), {
    code: 'IMAGE_AMBIGUOUS',
    exitCode: 2,
    message: /\n {2}@1 {2}app:2 {2}\w{64}\.json\n/,
    hint: /:@N/,
  });
  await t.rejects(first(':app:3'), { code: 'TAG_NOT_FOUND', message: /@2/ });
  await t.rejects(first(':@4'), { code: 'IMAGE_NOT_FOUND' });
});

t.test('docker-archive: what is wrong', async (t) => {
  const edit = (
    name: string,
    body: string | Buffer | undefined,
    from = saved([{ seed: 'a', tags: null }]),
  ): Member[] => [...from.filter((m) => m.name !== name), ...(body === undefined ? [] : [{ name, body }])];
  const config = (members: Member[]): string => members.find((m) => m.name.endsWith('.json'))!.name;
  const whole = saved([{ seed: 'a', tags: null }]);
  const table: [string, Member[], Expected][] = [
    ['manifest.json is null', edit('manifest.json', 'null'), { code: 'ARCHIVE_INVALID', message: /manifest\.json/ }],
    ['manifest.json is missing', edit('manifest.json', undefined), { code: 'ARCHIVE_INVALID', hint: /1\.10/ }],
    ['manifest.json is empty', edit('manifest.json', '[]'), { code: 'IMAGE_NOT_FOUND' }],
    ['manifest.json names no config', edit('manifest.json', '[{}]'), { code: 'ARCHIVE_INVALID', message: /0\.Config/ }],
    ['the config is missing', edit(config(whole), undefined, whole), { code: 'BLOB_MISSING', message: /config/ }],
    ['the config is another', edit(config(whole), '{}', whole), { code: 'BLOB_DIGEST_MISMATCH', exitCode: 3 }],
    [
      'a layer is missing',
      edit('a1/layer.tar', undefined),
      { code: 'BLOB_MISSING', message: /layer 2 of 2, "a1\/layer\.tar"/ },
    ],
    [
      'the numbers of layers differ',
      saved([{ seed: 'a', tags: null, config: { rootfs: { type: 'layers', diff_ids: [] } } }]),
      { code: 'CONFIG_INVALID', message: /0 diffIDs.* 2 layers/ },
    ],
    [
      'one file is to be two layers',
      saved([{ seed: 'a', tags: null }]).map((m) =>
        m.name === 'a1/layer.tar' ? { name: m.name, type: 'symlink', linkname: '../a0/layer.tar' } : m,
      ),
      { code: 'ARCHIVE_INVALID', message: /same file/ },
    ],
  ];
  for (const [name, list, expected] of table) {
    await t.test(name, async (t) => {
      const file = await archive(t, list);
      await t.rejects(resolve('docker-archive', file), expected);
      await t.rejects(resolve('docker-archive', file), {
        message: new RegExp(`^Cannot open docker-archive:${file}: `),
      });
    });
  }
  const layout = await archive(t, members(oneImage().finish()));
  await t.rejects(resolve('docker-archive', layout), { code: 'ARCHIVE_INVALID', hint: /oci-archive/ });
});

/** What `docker save` writes since version 25: a layout, and a manifest.json over the same blobs. */
function saved25(): LayoutBuilder {
  const b = new LayoutBuilder();
  const tar = tarLike('v25');
  const layer = b.blob('application/vnd.oci.image.layer.v1.tar', tar);
  const image = b.image({
    layers: 0,
    config: { rootfs: { type: 'layers', diff_ids: [sha256(tar)] } },
    manifest: { layers: [layer] },
  });
  const document = JSON.parse(b.files.get(`blobs/${image.digest.replace(':', '/')}`)!.toString()) as {
    config: { digest: string };
  };
  const blob = (digest: string) => `blobs/${digest.replace(':', '/')}`;
  b.add({ ...image, annotations: { [CONTAINERD_NAME]: 'docker.io/library/app:1', [REF_NAME]: '1' } });
  const manifest = [{ Config: blob(document.config.digest), RepoTags: ['app:1'], Layers: [blob(layer.digest)] }];
  b.files.set('manifest.json', Buffer.from(JSON.stringify(manifest)));
  return b;
}

t.test(
  'docker-archive as Docker 25 and later write it: the layout is preferred, manifest.json is the fallback',
  async (t) => {
    const good = await archive(t, members(saved25().finish()));
    for (const [kind, suffix] of [
      ['docker-archive', ''],
      ['docker-archive', ':app:1'],
      ['docker-archive', ':@0'],
      ['oci-archive', ''],
      ['oci-archive', ':1'],
      ['oci-archive', ':app:1'],
    ] as const) {
      const image = await resolve(kind, good, suffix);
      t.match(image.manifestDigest, /^sha256:/, `${kind} ${suffix}`);
      t.strictSame(image.warnings, []);
      t.equal(image.layers[0]?.digest, sha256(tarLike('v25')));
    }
    t.equal(parseReference(good, '/').kind, 'oci-archive');

    const other = saved25();
    other.entries.length = 0;
    other.add(other.image({ seed: 'other' }));
    const disagreeing = await resolve('docker-archive', await archive(t, members(other.finish())));
    t.equal(disagreeing.manifestDigest, undefined);
    t.equal(disagreeing.layers[0]?.digest, sha256(tarLike('v25')), "the digest is the blob's name");
    t.match(disagreeing.warnings, [/does not have the image/]);

    // A manifest of 1 MiB, 5,000 times: read each time, that is half a minute.
    const repeated = saved25();
    repeated.entries.length = 0;
    const large = repeated.image({ seed: 'large', manifest: { annotations: { padding: 'x'.repeat(1 << 20) } } });
    for (let i = 0; i < 5000; i++) repeated.add(large);
    const file = await archive(t, members(repeated.finish()));
    const started = process.cpuUsage();
    t.match((await resolve('docker-archive', file)).warnings, [/does not have the image/]);
    t.ok(process.cpuUsage(started).user < 5_000_000, 'is read once');

    const broken = saved25().finish().set('index.json', Buffer.from('{'));
    const fallen = await resolve('docker-archive', await archive(t, members(broken)));
    t.equal(fallen.layers.length, 1);
    t.match(fallen.warnings, [/index\.json cannot be used.*not JSON/]);
  },
);

t.test('what skopeo writes', { skip: has('skopeo') ? false : 'skopeo is not installed' }, async (t) => {
  const dir = newDirectory(t);
  const b = new LayoutBuilder();
  const root = t.testdir({ etc: { 'os-release': 'ID=test\n' } });
  const tar = join(dir, 'layer.tar');
  execFileSync('tar', ['-C', root, '-cf', tar, '.']);
  const bytes = readFileSync(tar);
  const config = { rootfs: { type: 'layers', diff_ids: [sha256(bytes)] }, config: { Cmd: ['/x'] } };
  b.add(
    b.image({
      layers: 0,
      config,
      manifest: { layers: [b.blob('application/vnd.oci.image.layer.v1.tar+gzip', gzipSync(bytes))] },
    }),
    'v1',
  );
  const source = b.write(join(dir, 'layout'));
  for (const [kind, target, suffix] of [
    ['oci', 'copy', ':v1'],
    ['oci-archive', 'copy.oci.tar', ':v1'],
    ['docker-archive', 'copy.docker.tar', ':app:v1'],
  ] as const) {
    execFileSync('skopeo', [
      '--insecure-policy',
      'copy',
      '-q',
      `oci:${source}:v1`,
      `${kind}:${join(dir, target)}${suffix}`,
    ]);
    for (const tag of ['', suffix]) {
      const image = await resolve(kind, join(dir, target), tag);
      t.equal(image.layers[0]?.diffId, sha256(bytes), `${kind}${tag}`);
      t.strictSame(image.config.cmd, ['/x']);
      t.strictSame(image.warnings, []);
      if (kind === 'docker-archive') t.equal(sha256(bytesAt(image.layers[0]!.blob)), sha256(bytes));
    }
    t.equal(parseReference(join(dir, target), '/').kind, kind);
  }
});

function has(command: string): boolean {
  try {
    execFileSync(command, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
