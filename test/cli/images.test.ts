/** index, inspect, verify, doctor, version, help: nothing is mounted. Exit codes and forms of errors. */
import { readFileSync, readdirSync, truncateSync, writeFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import t from 'tap';
import type { Test } from 'tap';
import { lamina, type CliResult } from '../support/cli.js';
import { blobPath, makeLayout, type ImageSpec, type MadeImage } from '../support/images.js';
import { projectRoot } from '../support/project.js';
import { tempDir } from '../support/tmp.js';
import { startIndexing } from './indexing.js';

const content = randomBytes(300_000).toString('hex');
const spec: ImageSpec = {
  config: {
    User: 'app',
    Env: ['A=1', 'B=two words'],
    Entrypoint: ['/bin/app'],
    Cmd: ['-v'],
    WorkingDir: '/srv',
    Labels: { maintainer: 'me', trick: 'x\u001b[31m' },
    Volumes: { '/data': {} },
    ExposedPorts: { '80/tcp': {} },
    StopSignal: 'SIGINT',
  },
  layers: [
    { entries: [{ name: 'a', content }], compression: 'gzip' },
    { entries: [{ name: 'b', content: 'b' }], compression: 'none' },
    { entries: [{ name: 'c', content: randomBytes(8_000_000) }], compression: 'zstd' },
  ],
};

interface Place {
  readonly image: MadeImage;
  readonly store: string;
  readonly run: (...args: string[]) => Promise<CliResult>;
}

async function place(t: Test, imageSpec = spec): Promise<Place> {
  const directory = tempDir(t);
  const image = await makeLayout(join(directory, 'image'), imageSpec);
  const store = join(directory, 'store');
  const env = { LAMINA_STORE: store, LAMINA_RUN: join(directory, 'run') };
  return { image, store, run: (...args) => lamina(args, { env, cwd: directory }) };
}

t.test('index', async (t) => {
  const { image, run } = await place(t);
  const { reference, config, manifest, layers } = image;
  const first = await run('index', '--json', '--progress', 'json', reference);
  t.equal(first.code, 0, first.stderr);
  const [report] = JSON.parse(first.stdout) as [Record<string, unknown>];
  t.match(report, {
    reference,
    configDigest: config.digest,
    manifestDigest: manifest.digest,
    bytesIndexed: layers.reduce((sum, { blob }) => sum + blob.length, 0),
    layers: [
      { compression: 'gzip', cached: false, digest: layers[0]?.descriptor.digest, diffId: layers[0]?.diffId },
      { compression: 'none', cached: false, size: layers[1]?.tar.length },
      { compression: 'zstd', cached: false, uncompressed: layers[2]?.tar.length },
    ],
  });
  const events = first.stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: string; state?: string; layer?: number });
  t.match(events[0], { type: 'resolved', reference, layers: 3 });
  t.strictSame(
    events
      .filter(({ state }) => state === 'indexed')
      .map(({ layer }) => layer)
      .sort(),
    [0, 1, 2],
  );
  t.match(events.at(-1), { type: 'tree', state: 'merged' });

  const again = await run('index', reference);
  t.equal(again.stderr, '');
  t.match(again.stdout, /everything was known; indexes .*, merged tree /);
  t.equal((await run('index', '-q', reference, image.directory)).stdout, `${config.digest}\n${config.digest}\n`);
});

t.test('inspect', async (t) => {
  const { image, run } = await place(t);
  const { reference, config, manifest } = image;
  const before = JSON.parse((await run('inspect', '--json', reference)).stdout) as Record<string, unknown>;
  t.match(before, {
    reference,
    manifestDigest: manifest.digest,
    configDigest: config.digest,
    compatDiffers: null,
    config: {
      user: 'app',
      env: ['A=1', 'B=two words'],
      entrypoint: ['/bin/app'],
      cmd: ['-v'],
      workingDir: '/srv',
      labels: { maintainer: 'me' },
      volumes: ['/data'],
      exposedPorts: ['80/tcp'],
      stopSignal: 'SIGINT',
    },
    layers: image.layers.map(({ descriptor, diffId }) => ({
      digest: descriptor.digest,
      diffId,
      size: descriptor.size,
      mediaType: descriptor.mediaType,
      index: { indexed: false },
    })),
  });
  t.equal((await run('inspect', '-q', reference)).stdout, `${config.digest}\n`);
  t.match((await run('inspect', reference)).stdout, /not indexed/);

  await run('index', reference);
  const text = (await run('inspect', reference)).stdout;
  t.notMatch(text, /not indexed/);
  t.match(text, /^entrypoint: +"\/bin\/app"$/m);
  t.match(text, /^env B=two words$/m);
  t.match(text, /^layer 3: it is one zstd frame, which can only be read from its start/m);
  t.match(text, /^compat: +the same tree/m);
});

t.test('inspect says when the two compat modes give different trees', async (t) => {
  const { image, run } = await place(t, {
    layers: [
      {
        entries: [
          { name: 'usr/lib/', type: 'directory' },
          { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
        ],
      },
      { entries: [{ name: 'lib/x', content: 'x' }] },
    ],
  });
  const { reference } = image;
  await run('index', reference);
  t.match(await run('inspect', '--json', reference).then(({ stdout }) => JSON.parse(stdout) as unknown), {
    compatDiffers: true,
  });
  t.equal((await run('ls', reference, '/usr/lib')).stdout, 'x\n');
  t.equal((await run('ls', '--compat', 'overlay', reference, '/usr/lib')).stdout, '');
});

t.test('verify', async (t) => {
  const { image, run, store } = await place(t);
  const { reference, directory, layers } = image;
  const good = await run('verify', reference);
  t.equal(good.code, 0, good.stderr);
  t.match(good.stdout, /^verified$/m);
  t.throws(() => readdirSync(store), 'it needs no store');

  const paths = layers.map(({ descriptor }) => blobPath(directory, descriptor.digest));
  const [first = '', second = '', third = ''] = paths;
  const originals = paths.map((path) => readFileSync(path));
  const flip = (path: string, at: number): void => {
    const bytes = readFileSync(path);
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    writeFileSync(path, bytes);
  };
  const verdict = async (): Promise<{ code: number; layers: Record<string, unknown>[] }> => {
    const { code, stdout } = await run('verify', '--json', '--progress', 'none', reference);
    return { code, ...(JSON.parse(stdout) as { layers: Record<string, unknown>[] }) };
  };

  flip(second, 0);
  const plain = await verdict();
  t.equal(plain.code, 3);
  t.match(plain.layers[0], { blob: 'ok', content: 'ok', gotDigest: null });
  t.match(plain.layers[1], { blob: 'mismatch', content: 'mismatch', gotDigest: /^sha256:/, gotDiffId: /^sha256:/ });

  const size = originals[0]?.length ?? 0;
  flip(first, size >> 1);
  flip(third, (originals[2]?.length ?? 0) - 2);
  const packed = await verdict();
  t.match(packed.layers[0], { blob: 'mismatch', content: 'unreadable', reason: /./ });
  t.match(packed.layers[2], { blob: 'mismatch', content: 'unreadable' }, 'the checksum of the frame');
  const text = await run('verify', reference);
  t.equal(text.code, 3);
  t.match(text.stdout, /^NOT verified$/m);

  paths.forEach((path, i) => writeFileSync(path, originals[i] ?? ''));
  t.equal((await verdict()).code, 0, 'whole again');
  truncateSync(first, size - 1);
  const short = await run('verify', reference);
  t.ok([3, 4].includes(short.code), `a blob that is too short: ${short.code}`);
  rmSync(first);
  const missing = await run('verify', reference);
  t.ok([3, 4].includes(missing.code), `a blob that is not there: ${missing.code}`);
});

t.test('a wrong diffID is found', async (t) => {
  const wrong = `sha256:${'0'.repeat(64)}`;
  const { image, run } = await place(t, { layers: [{ entries: [{ name: 'a', content: 'a' }], diffId: wrong }] });
  const result = await run('verify', image.reference);
  t.equal(result.code, 3);
  t.match(result.stdout, `the content is ${image.layers[0] === undefined ? '' : 'sha256:'}`);
  t.equal((await run('index', image.reference)).code, 3);
});

t.test('doctor', async (t) => {
  const { run, store } = await place(t);
  const text = await run('doctor');
  const json = await run('doctor', '--json');
  const checks = JSON.parse(json.stdout) as { name: string; state: string; value: string; meaning: string }[];
  const names = checks.map(({ name }) => name);
  for (const name of [
    'node',
    'root',
    'kernel',
    'fuse device',
    'kernel engine',
    'koffi',
    'zstd',
    'runtime',
    'store',
    'run',
  ]) {
    t.ok(names.includes(name), name);
  }
  t.equal(json.code, checks.some(({ state }) => state === 'fail') ? 1 : 0);
  t.equal(text.code, json.code);
  t.equal(text.stdout.trim().split('\n').length, checks.length);
  t.match(
    checks.find(({ name }) => name === 'store'),
    { state: 'ok', value: `${store} (will be made)` },
  );
  const long = await run('doctor', '--json', '--run', `/tmp/${'x'.repeat(120)}`);
  t.equal(long.code, 1);
  t.match(
    (JSON.parse(long.stdout) as typeof checks).find(({ name }) => name === 'socket path'),
    { state: 'fail' },
  );
});

t.test('usage, version and help', async (t) => {
  const { run, image } = await place(t);
  const wrong: [string[], RegExp][] = [
    [['nonesuch'], /Unknown command 'nonesuch'/],
    [['ls'], /Missing required argument 'image'/],
    [['ls', '--nonesuch', 'x'], /Unknown option '--nonesuch'/],
    [['ls', 'a', 'b', 'c'], /Too many arguments/],
    [['mount', '--engine', 'steam', 'x'], /Allowed choices are auto, kernel, fuse/],
    [['mount', '--upper', '/x', image.reference, '/mnt'], /Add --rw/],
    [['umount'], /Name what to unmount, or say --all/],
    [['umount', '--all', 'x'], /Name what to unmount, or say --all/],
    [['bundle', image.reference], /needs an image and a directory/],
    [['ls', '--platform', 'x', image.reference], /Cannot read the platform/],
    [['run', '-v', 'x', image.reference], /Cannot read the volume/],
  ];
  for (const [args, message] of wrong) {
    const { code, stdout, stderr } = await run(...args);
    t.equal(code, 2, args.join(' '));
    t.equal(stdout, '');
    t.match(stderr, message);
  }
  const bare = await run();
  t.equal(bare.code, 2);
  t.match(bare.stderr, /^Usage: lamina/);

  const json = await run('--json', 'ls', '--nonesuch', 'x');
  t.match(JSON.parse(json.stderr), { error: { code: 'USAGE', message: "Unknown option '--nonesuch'" } });
  const absent = await run('ls', '--json', './nothing-here');
  t.equal(absent.code, 4);
  t.equal(absent.stdout, '');
  t.match(JSON.parse(absent.stderr), { error: { code: 'IMAGE_NOT_FOUND' } });

  const { version } = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as { version: string };
  t.match((await run('version')).stdout, `lamina ${version} (Node v`);
  t.equal((await run('version', '-q')).stdout, `${version}\n`);
  t.match(await run('--version'), { code: 0, stdout: `lamina ${version}\n` });
  t.match(JSON.parse((await run('--json', 'version')).stdout), { version, node: process.version });

  const alone = await run('unmount', '--help');
  t.match(alone.stdout, /^Usage: lamina umount/, 'by another name, and nothing else is loaded');
  const help = await run('help');
  t.equal(help.code, 0);
  const commands = [...help.stdout.matchAll(/^ {2}([a-z]+)(?:, [a-z]+)? {2,}[A-Z]/gm)].map(([, name = '']) => name);
  t.ok(commands.length >= 15, commands.join(' '));
  for (const name of commands.filter((command) => command !== 'help')) {
    const one = await run('help', name);
    t.equal(one.code, 0);
    t.match(one.stdout, `Usage: lamina ${name}`);
    if (name !== 'version') t.match(one.stdout, /^Examples:\n {2}\S/m, name);
  }
});

t.test('an error is shown without what a terminal would obey', async (t) => {
  const { run } = await place(t);
  const { stderr } = await run('ls', './x\u001b[31m');
  t.notMatch(stderr, '\u001b');
});

t.test('SIGINT while indexing leaves nothing and ends with 130', async (t) => {
  const directory = tempDir(t);
  const store = join(directory, 'store');
  const { interrupt } = await startIndexing(directory, { LAMINA_STORE: store }, (reference) => ['index', reference]);
  t.strictSame(await interrupt(), [130, null]);
  t.strictSame(readdirSync(join(store, 'tmp')), []);
  t.strictSame(readdirSync(join(store, 'layers')), []);
});
