/** What the tests build on, held against tools of others. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { daemonProcesses, mountsBeneath } from '../../scripts/leftovers.js';
import { lamina, runCommand } from '../support/cli.js';
import { spawnDaemon, startDaemon } from '../support/daemon.js';
import { blobPath, makeLayout } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { END, base256, gnuLong, makeTar, paxEntry, rawEntry } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';

const canMount = isRoot && existsSync('/dev/fuse');
const layers = [
  {
    entries: [
      { name: 'dir/', type: 'directory' as const },
      { name: 'dir/file', content: 'one' },
    ],
  },
  {
    compression: 'zstd' as const,
    entries: [
      { name: 'dir/file', content: 'two' },
      { name: 'link', type: 'symlink' as const, linkname: 'dir' },
    ],
  },
  { compression: 'none' as const, entries: [{ name: 'last', content: 'three' }] },
];

t.test('makeTar and the raw blocks: GNU tar reads what they write', async (t) => {
  const directory = tempDir(t);
  const long = `${'l'.repeat(120)}/${'m'.repeat(120)}`;
  const tar = await makeTar([
    { name: 'plain', content: 'plain', mode: 0o640 },
    rawEntry({ name: 'raw', mtime: 1_000_000_000 }, 'raw'),
    gnuLong('L', long),
    rawEntry({ name: 'short', magic: 'ustar  \0' }, 'long'),
    paxEntry({ path: 'from-pax', mtime: '12.5' }),
    rawEntry({ name: 'other' }, 'pax'),
    rawEntry({ name: 'big-id', uid: base256(3_000_000n, 8) }),
    { name: 'end/', type: 'directory' },
  ]);
  t.equal(tar.length % 512, 0);
  t.strictSame(tar.subarray(-1024), END);
  writeFileSync(join(directory, 'a.tar'), tar);
  const list = execFileSync('tar', ['--numeric-owner', '--full-time', '--utc', '-tvf', join(directory, 'a.tar')], {
    encoding: 'utf8',
  });
  const lines = list.trim().split('\n');
  t.equal(lines.length, 6);
  t.match(lines[0], /^-rw-r----- 0\/0 +5 1970-01-01 00:00:00 plain$/);
  t.match(lines[1], /3 2001-09-09 01:46:40 raw$/);
  t.ok(lines[2]?.endsWith(long));
  t.match(lines[3], /3 1970-01-01 00:00:12.5 from-pax$/);
  t.match(lines[4], /3000000\/0 .* big-id$/);
});

t.test('makeLayout: skopeo and umoci accept it', async (t) => {
  const directory = tempDir(t);
  const layout = join(directory, 'image');
  const image = await makeLayout(layout, {
    layers: [layers[0] ?? {}, layers[2] ?? {}],
    config: { Cmd: ['sh'] },
    tag: 'one',
  });
  await makeLayout(layout, { layers, tag: 'two' });
  const { code, stdout, stderr } = await runCommand('skopeo', ['inspect', '--raw', `oci:${layout}:two`]);
  t.equal(code, 0, stderr);
  t.match(JSON.parse(stdout), { schemaVersion: 2, layers: { length: 3 } });
  t.strictSame(readFileSync(blobPath(layout, image.manifest.digest)).length, image.manifest.size);

  const unpacked = await runCommand('umoci', [
    'unpack',
    '--rootless',
    '--image',
    `${layout}:one`,
    join(directory, 'bundle'),
  ]);
  t.equal(unpacked.code, 0, unpacked.stderr);
  t.strictSame(readdirSync(join(directory, 'bundle/rootfs')).sort(), ['dir', 'last']);
});

t.test('startDaemon: answers, mounts, and leaves nothing', async (t) => {
  if (skipUnless(t, canMount, 'mounting needs root and /dev/fuse')) return;
  let directory = '';
  await t.test('while it runs', async (t) => {
    const daemon = await startDaemon(t);
    directory = daemon.directory;
    const { reference } = await makeLayout(join(directory, 'image'), { layers });
    const mountpoint = join(directory, 'mnt');
    mkdirSync(mountpoint);
    const { code, stderr } = await daemon.lamina(['mount', reference, mountpoint]);
    t.equal(code, 0, stderr);
    t.equal((await runCommand('cat', [join(mountpoint, 'link/file')])).stdout, 'two');
    t.match(await daemon.control('GET', '/v1/mounts'), { status: 200, body: [{ mountpoint }] });
    t.equal((await lamina(['mounts', '-q'], { env: daemon.env })).code, 0);
  });
  t.notOk(existsSync(directory));
  t.strictSame(mountsBeneath(directory), []);
  t.notOk(daemonProcesses().some(({ run }) => run.startsWith(directory)));
});

t.test('clean-mounts: removes what a killed test has left, and leaves the living alone', async (t) => {
  if (skipUnless(t, canMount, 'mounting needs root and /dev/fuse')) return;
  const alive = await startDaemon(t);
  const ended = (await runCommand('bash', ['-c', 'echo $$'])).stdout.trim();
  const directory = mkdtempSync(join(realpathSync(tmpdir()), `lamina-test-${ended}-`));
  const outside = join(tempDir(t), 'mnt');
  mkdirSync(outside);
  const abandoned = spawnDaemon(directory);
  t.teardown(() => abandoned.stop());
  await abandoned.ready();
  const { reference } = await makeLayout(join(directory, 'image'), { layers });
  for (const args of [['--engine', 'fuse', reference, outside], [reference]]) {
    const { code, stderr } = await abandoned.lamina(['mount', ...args]);
    t.equal(code, 0, stderr);
  }

  const script = fileURLToPath(new URL('../../scripts/clean-mounts.js', import.meta.url));
  const { code, stdout, stderr } = await runCommand(process.execPath, [script]);
  t.equal(code, 0, stderr);
  t.match(stdout, `removed ${directory}`);
  t.match(stdout, `unmounted ${outside} (fuse.lamina)`);
  t.match(stdout, `left alone: ${alive.directory}`);
  t.notOk(existsSync(directory));
  t.strictSame([...mountsBeneath(directory), ...mountsBeneath(outside)], []);
  t.notOk(daemonProcesses().some(({ run }) => run.startsWith(directory)));
  t.equal((await alive.control('GET', '/v1/status')).status, 200);
});
