/** Commands that look into images without mounting: ls, cat, stat, tree. No daemon runs. */
import { randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { lamina, runCommand, cliPath, type CliResult } from '../support/cli.js';
import { blobPath, makeLayout, type MadeImage } from '../support/images.js';
import { paxEntry, rawEntry } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';

const mtime = new Date('2024-02-29T12:34:56Z');
const big = randomBytes(3_000_000);

const base = [
  { name: 'bin', type: 'symlink' as const, linkname: 'usr/bin' },
  { name: 'usr/', type: 'directory' as const, mtime },
  { name: 'usr/bin/', type: 'directory' as const },
  { name: 'usr/bin/tool', mode: 0o4755, uid: 3, gid: 200_000, mtime, content: '#!/bin/sh\n' },
  { name: 'usr/bin/twin', type: 'link' as const, linkname: 'usr/bin/tool' },
  { name: 'etc/', type: 'directory' as const },
  { name: 'etc/motd', content: 'old\n' },
  { name: 'etc/removed', content: 'gone\n' },
  { name: 'dev/', type: 'directory' as const },
  { name: 'dev/null', type: 'character-device' as const, devmajor: 1, devminor: 3, mode: 0o666 },
  { name: 'loop', type: 'symlink' as const, linkname: 'loop' },
  { name: 'out', type: 'symlink' as const, linkname: '../../../../etc/motd' },
];
const upper = [
  { name: 'etc/.wh.removed' },
  { name: 'etc/motd', content: 'new\n', mtime },
  { name: '.hidden', content: '' },
  { name: 'big', content: big },
  rawEntry({ name: Buffer.from([0x62, 0xff, 0x1b, 0x5b, 0x41]) }, 'bytes\n'),
  rawEntry({ name: 'two\nlines' }, ''),
  paxEntry({ 'SCHILY.xattr.user.note': 'hello', mtime: '1700000000.123456789' }),
  rawEntry({ name: 'noted' }, 'x'),
];

interface Browser {
  readonly image: MadeImage;
  readonly store: string;
  readonly run: (...args: string[]) => Promise<CliResult>;
  readonly json: (...args: string[]) => Promise<Record<string, unknown>[]>;
}

async function browser(t: Test): Promise<Browser> {
  const directory = tempDir(t);
  const image = await makeLayout(join(directory, 'image'), { layers: [{ entries: base }, { entries: upper }] });
  const store = join(directory, 'store');
  const env = { LAMINA_STORE: store, LAMINA_RUN: join(directory, 'run') };
  const run = (...args: string[]): Promise<CliResult> => lamina(args, { env, cwd: directory });
  return {
    image,
    store,
    run,
    async json(...args) {
      const { code, stdout, stderr } = await run(...args, '--json');
      if (code !== 0) throw new Error(stderr);
      return JSON.parse(stdout) as Record<string, unknown>[];
    },
  };
}

t.test('ls', async (t) => {
  const { image, run, json, store } = await browser(t);
  const { reference } = image;

  const plain = await run('ls', reference);
  t.equal(plain.code, 0, plain.stderr);
  t.strictSame(
    plain.stdoutBytes.toString('latin1'),
    ['big', 'bin', 'b\xff\x1b[A', 'dev', 'etc', 'loop', 'noted', 'out', 'two\nlines', 'usr', ''].join('\n'),
    'names as they are, in the order of their bytes, hidden ones left out',
  );
  t.match(plain.stderr, /layer 1\/2 sha256:[0-9a-f]{12}: indexing/, 'progress goes to stderr');

  const again = await run('ls', reference);
  t.equal(again.stderr, '', 'nothing to say when everything is known');
  t.equal((await run('ls', '-a', reference)).stdoutBytes.toString('latin1').split('\n')[0], '.hidden');

  const long = await run('ls', '-l', reference, 'usr/bin/');
  t.strictSame(long.stdout.split('\n'), [
    '-rwsr-xr-x  2  3:200000  10  2024-02-29 12:34  1  tool',
    '-rwsr-xr-x  2  3:200000  10  2024-02-29 12:34  1  twin',
    '',
  ]);
  t.equal(
    (await run('ls', '-l', reference, '/bin')).stdout,
    'lrwxrwxrwx  1  0:0  7  1970-01-01 00:00  -  /bin -> usr/bin\n',
  );
  t.equal((await run('ls', '-l', reference, '/bin/')).stdout, long.stdout, 'a slash follows the link');
  t.equal((await run('ls', reference, '/bin')).stdout, 'tool\ntwin\n', 'without -l the link is followed');
  t.match((await run('ls', '-l', reference, '/dev')).stdout, /^crw-rw-rw- {2}1 {2}0:0 {2}1,3 .* - {2}null\n$/);

  const recursive = await run('ls', '-R', reference, '/usr');
  t.equal(recursive.stdout, '/usr:\nbin\n\n/usr/bin:\ntool\ntwin\n');

  const entries = await json('ls', '-aR', reference);
  const paths = entries.map(({ path }) => path);
  t.ok(paths.includes('/etc/motd') && !paths.includes('/etc/removed'), 'whiteouts are applied');
  t.match(
    entries.find(({ path }) => path === '/usr/bin/tool'),
    {
      name: 'tool',
      type: 'file',
      mode: '4755',
      nlink: 2,
      uid: 3,
      gid: 200_000,
      size: 10,
      device: null,
      mtime: '2024-02-29T12:34:56.000000000Z',
      mtimeSeconds: 1709210096,
      mtimeNanoseconds: 0,
      target: null,
      layer: 1,
    },
  );
  t.match(
    entries.find(({ nameBytes }) => nameBytes !== undefined),
    { name: 'b\ufffd\u001b[A', nameBytes: '62ff1b5b41', pathBytes: '2f62ff1b5b41', layer: 2 },
    'bytes that are not UTF-8 come in hex too',
  );
  t.match(
    entries.find(({ path }) => path === '/dev/null'),
    { type: 'character-device', device: { major: 1, minor: 3 }, layer: null },
  );
  t.strictSame(readdirSync(join(store, 'tmp')), [], 'nothing temporary is left');
});

t.test('cat', async (t) => {
  const { image, run } = await browser(t);
  const { reference } = image;
  const file = await run('cat', reference, '/etc/motd', 'out', '/bin/../../etc//motd');
  t.equal(file.stdout, 'new\nnew\nnew\n', 'the upper layer, by links that stay inside the image');
  t.ok((await run('cat', reference, '/big')).stdoutBytes.equals(big));

  const name = Buffer.concat([Buffer.from('/b'), Buffer.from([0xff]), Buffer.from('\u001b[A')]);
  const script = `exec "$1" "$2" cat "$3" "$(printf '${[...name].map((b) => `\\${b.toString(8).padStart(3, '0')}`).join('')}')"`;
  const byName = await runCommand('sh', ['-c', script, 'sh', process.execPath, cliPath, reference], {
    env: { LAMINA_STORE: join(tempDir(t), 'store') },
  });
  t.equal(byName.stdout, 'bytes\n', 'a name that is not UTF-8');

  const errors: [string[], number, RegExp][] = [
    [['/etc/motd', '/nope'], 4, /There is no "\/nope"/],
    [['/etc'], 2, /is a directory/],
    [['/dev/null'], 2, /not a regular file/],
    [['/loop'], 1, /Too many symlinks/],
    [['/etc/motd/x'], 4, /There is no/],
  ];
  for (const [paths, code, message] of errors) {
    const result = await run('cat', reference, ...paths);
    t.equal(result.code, code, paths.join(' '));
    t.equal(result.stdout, '', 'nothing is written before all paths are found');
    t.match(result.stderr, message);
  }
});

t.test('cat refuses bytes that have changed since the layer was indexed', async (t) => {
  const { image, run } = await browser(t);
  const { reference, layers, directory } = image;
  t.equal((await run('index', '-q', reference)).code, 0);
  const path = blobPath(directory, layers[1]?.descriptor.digest ?? '');
  const damaged = readFileSync(path);
  damaged.fill(0x55, damaged.length >> 1, (damaged.length >> 1) + 100);
  writeFileSync(path, damaged);
  const result = await run('cat', reference, '/big');
  t.not(result.code, 0);
  t.ok(result.stdoutBytes.equals(big.subarray(0, result.stdoutBytes.length)), 'what is written is right');
  t.ok(result.stdoutBytes.length < big.length);
});

t.test('stat', async (t) => {
  const { image, run, json } = await browser(t);
  const { reference } = image;
  const noted = (await json('stat', reference, 'noted')) as unknown as Record<string, unknown>;
  t.match(noted, {
    path: '/noted',
    type: 'file',
    mtime: '2023-11-14T22:13:20.123456789Z',
    xattrs: [{ name: 'user.note', value: Buffer.from('hello').toString('base64') }],
  });
  const tar = image.layers[1]?.tar ?? Buffer.alloc(0);
  const file = (await json('stat', reference, '/big')) as unknown as { extents: { position: number; layer: number }[] };
  t.strictSame(file.extents, [
    { offset: 0, length: big.length, layer: 2, position: tar.indexOf(big.subarray(0, 4096)) },
  ]);

  const text = await run('stat', reference, '/bin');
  t.match(text.stdout, /^path: +\/bin\ntype: +symlink\ntarget: +usr\/bin\n/);
  t.match((await run('stat', '-L', reference, '/bin')).stdout, /type: +directory/);
  t.match(
    (await run('stat', reference, 'noted')).stdout,
    /^xattr user\.note = "hello"\nbytes 0-0: layer 2, tar offset \d+$/m,
  );
});

t.test('tree', async (t) => {
  const { image, run, json } = await browser(t);
  const { reference } = image;
  const shown = await run('tree', reference, '/usr');
  t.equal(shown.stdout, '/usr\n└── bin\n    ├── tool\n    └── twin\n\n1 directory, 2 files\n');
  t.equal((await run('tree', '--depth', '1', reference, '/usr')).stdout, '/usr\n└── bin\n\n1 directory, 0 files\n');
  t.match(await json('tree', reference, '/usr'), [
    { depth: 0, path: '/usr' },
    { depth: 1 },
    { depth: 2 },
    { depth: 2 },
  ]);
  t.equal((await run('tree', '--depth', '0', reference)).code, 2);
});

t.test('a terminal gets no control characters', async (t) => {
  const { image, store } = await browser(t);
  const command = [process.execPath, cliPath, 'ls', '-l', '--progress', 'none', image.reference].join(' ');
  const result = await runCommand('script', ['-qec', command, '/dev/null'], {
    env: { LAMINA_STORE: store, TERM: 'xterm' },
  });
  t.equal(result.code, 0, result.stdout);
  t.match(result.stdout, 'b\\xff\\x1b[A');
  t.match(result.stdout, 'two\\nlines');
  t.notMatch(result.stdout, '\u001b', 'no escape sequence, with NO_COLOR not ours either');
});

t.test('a reader that goes away ends the command quietly', async (t) => {
  const { image, store } = await browser(t);
  const script = '"$1" "$2" cat "$3" /big | head -c 5; exit ${PIPESTATUS[0]}';
  const env = { LAMINA_STORE: store };
  const result = await runCommand('bash', ['-c', script, 'bash', process.execPath, cliPath, image.reference], { env });
  t.equal(result.code, 0);
  t.ok(result.stdoutBytes.equals(big.subarray(0, 5)));
  t.notMatch(result.stderr, /EPIPE|rror/);
});

t.test('output that cannot be written is a failure', async (t) => {
  const { image, store } = await browser(t);
  const args = ['-c', '"$1" "$2" ls "$3" > /dev/full', 'sh', process.execPath, cliPath, image.reference];
  const result = await runCommand('sh', args, { env: { LAMINA_STORE: store } });
  t.equal(result.code, 1);
  t.match(result.stderr, /Cannot write the output: ENOSPC/);
});

t.test('an image named by its path is found out, and said', async (t) => {
  const { run } = await browser(t);
  const result = await run('ls', '-q', './image', '/usr');
  t.equal(result.stdout, 'bin\n');
  t.equal(result.stderr, '', 'not with -q');
  t.match((await run('ls', './image', '/usr')).stderr, /^\.\/image is oci:\//);
});
