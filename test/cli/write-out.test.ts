/** export and extract: the tree of an image as a tar and as files, judged by GNU tar, bsdtar, umoci and our own mounts. */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { compareTrees, type Ignore } from '../../scripts/compare-trees.js';
import { getXattr } from '../../src/native/xattr.js';
import { lamina, runCommand, type CliResult } from '../support/cli.js';
import { startDaemon } from '../support/daemon.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { projectRoot } from '../support/project.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { paxEntry, rawEntry } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';
import { makeVariedImage, sparseSize } from '../support/varied-image.js';

interface Place {
  readonly directory: string;
  readonly image: MadeImage;
  readonly run: (...args: string[]) => Promise<CliResult>;
}

async function place(t: Test): Promise<Place> {
  const directory = tempDir(t);
  const image = await makeVariedImage(join(directory, 'image'));
  const env = { LAMINA_STORE: join(directory, 'store'), LAMINA_RUN: join(directory, 'run') };
  return { directory, image, run: (...args) => lamina(args, { env, cwd: directory }) };
}

/** Every entry with all that a listing and stat say of it, but for what depends on where its bytes lie. */
async function dump(run: Place['run'], reference: string): Promise<unknown[]> {
  const { stdout } = await run('find', '--json', reference);
  const entries = JSON.parse(stdout) as Record<string, unknown>[];
  return entries.map(({ layer: _, size, type, ...entry }) => ({
    ...entry,
    type,
    size: type === 'directory' ? 0 : size,
  }));
}

async function sameTrees(
  t: Test,
  a: string,
  b: string,
  message: string,
  ignore: readonly Ignore[] = [],
): Promise<void> {
  const { differences, entries } = await compareTrees(a, b, { ignore });
  t.strictSame(differences, [], `${message}, ${entries} entries`);
}

/** umoci 0.4 drops empty attributes, as Go's archive/tar does, and the times of directories in which it implies others. */
const umociDiffers: readonly Ignore[] = [
  ...['/another', '/dir/old', '/dir/a-link'].map((glob) => ({ field: 'xattr' as const, glob })),
  { field: 'mtime', glob: '/dir' },
  { field: 'mtime', glob: '/dir/l*' },
];

t.test('export gives an archive that is the same tree again', async (t) => {
  const { directory, image, run } = await place(t);
  for (const sparse of [true, false]) {
    const file = join(directory, `flat-${sparse}.tar`);
    const made = await run('export', image.reference, '-o', file, ...(sparse ? [] : ['--no-sparse']));
    t.equal(made.code, 0, made.stderr);
    t.equal(statSync(file).size % 512, 0);
    t.equal(statSync(file).size > sparseSize, !sparse, 'holes are written only when asked for');
    const again = await makeLayout(join(directory, `again-${sparse}`), { layers: [{ tar: readFileSync(file) }] });
    t.strictSame(await dump(run, again.reference), await dump(run, image.reference), 'the same listing');
    const compared = await run('diff', image.reference, again.reference);
    t.equal(compared.stdout, '', 'the same attributes and contents');
    t.equal(compared.code, 0);
    const piped = await run('export', image.reference, ...(sparse ? [] : ['--no-sparse']));
    t.ok(piped.stdoutBytes.equals(readFileSync(file)), 'stdout gets the same');
  }
  t.notOk(readdirSync(directory).some((name) => name.endsWith('.part')));
});

t.test('GNU tar and bsdtar read what export writes', async (t) => {
  if (skipUnless(t, isRoot, 'owners and devices need root')) return;
  const { directory, image, run } = await place(t);
  const file = join(directory, 'flat.tar');
  t.equal((await run('export', image.reference, '-o', file)).code, 0);
  const extracted = await run('extract', image.reference, 'extracted');
  t.equal(extracted.code, 0, extracted.stderr);

  mkdirSync(join(directory, 'gnu'));
  execFileSync(
    'tar',
    ['--xattrs', '--xattrs-include=*', '--numeric-owner', '-xpf', file, '-C', join(directory, 'gnu')],
    { stdio: 'pipe' },
  );
  await sameTrees(t, join(directory, 'extracted'), join(directory, 'gnu'), 'extract against export and GNU tar');

  const listed = await runCommand('bsdtar', ['-tvf', file], { env: { LC_ALL: 'C' } });
  t.equal(listed.code, 0, listed.stderr);
  const names = (JSON.parse((await run('find', '--json', image.reference)).stdout) as unknown[]).length;
  const newlineInNames = 2;
  t.equal(listed.stdout.trimEnd().split('\n').length - (listed.stdout.includes('\\n') ? 0 : newlineInNames), names);
});

t.test('extract is what umoci extracts, and what the mount shows', async (t) => {
  if (skipUnless(t, isRoot, 'owners and devices need root')) return;
  const { directory, image, run } = await place(t);
  const made = await run('extract', image.reference, 'extracted', '--json');
  t.equal(made.code, 0, made.stderr);
  t.match(JSON.parse(made.stdout), { path: join(directory, 'extracted'), rootless: false, notes: [] });
  const ours = join(directory, 'extracted');
  execFileSync('umoci', ['unpack', '--image', `${image.directory}:latest`, join(directory, 'umoci')], {
    stdio: 'pipe',
  });
  await sameTrees(t, ours, join(directory, 'umoci', 'rootfs'), 'against umoci', umociDiffers);

  const daemon = await startDaemon(t, join(directory, 'daemon'));
  for (const engine of ['kernel', 'fuse']) {
    const mountpoint = join(directory, engine);
    mkdirSync(mountpoint);
    const mounted = await daemon.lamina(['mount', '--engine', engine, image.reference, mountpoint]);
    t.equal(mounted.code, 0, mounted.stderr);
    await sameTrees(t, ours, mountpoint, `against the ${engine} engine`);
  }
  t.ok(statSync(join(ours, 'sparse')).blocks * 512 < sparseSize / 10, 'holes stay holes');
});

t.test('extract and export take a part', async (t) => {
  const { directory, image, run } = await place(t);
  t.equal((await run('extract', '--rootless', image.reference, 'part', '/dir')).code, 0);
  t.ok(existsSync(join(directory, 'part/new')));
  t.equal((await run('extract', '--rootless', image.reference, 'one', '/dir/new')).code, 0);
  t.equal(readFileSync(join(directory, 'one/new'), 'utf8'), 'upper');
  const tar = await run('export', image.reference, '/dir/new');
  t.equal(execFileSync('tar', ['-xO'], { input: tar.stdoutBytes }).toString(), 'upper');
});

t.test('as an ordinary user without owners, devices and privileged attributes', async (t) => {
  if (skipUnless(t, isRoot, 'it takes root to become another user')) return;
  const { directory, image, run } = await place(t);
  t.equal((await run('index', '-q', image.reference)).code, 0);
  execFileSync('chmod', ['-R', 'a+rwX', directory]);
  // The checkout may lie where only root may look: the user finds it elsewhere, in a mount namespace of the test's own.
  const checkout = join(directory, 'checkout');
  for (const each of ['dist', 'node_modules', 'work']) mkdirSync(join(checkout, each), { recursive: true });
  copyFileSync(join(projectRoot, 'package.json'), join(checkout, 'package.json'));
  const work = join(checkout, 'work');
  chmodSync(work, 0o777);
  // The test runner gives every process options that name files of the checkout.
  const script = `
    unset NODE_OPTIONS
    mount --bind "$1" "$3/dist" && mount --bind "$2" "$3/node_modules" && shift 2 && here=$1 && shift &&
    exec setpriv --reuid=65534 --regid=65534 --clear-groups "$1" "$here/dist/src/cli/main.js" "\${@:2}"`;
  const built = join(import.meta.dirname, '../..');
  const modules = realpathSync(join(projectRoot, 'node_modules'));
  const command = ['--store', join(directory, 'store'), 'extract', image.reference, join(work, 'out')];
  const args = ['-m', 'bash', '-c', script, 'bash', built, modules, checkout, process.execPath, ...command];
  const result = await runCommand('unshare', args);
  t.equal(result.code, 0, result.stderr);
  t.match(result.stderr, 'a device is left out: "/blk" (2 times)');
  t.match(result.stderr, 'Not root: files belong to you');
  t.match(result.stderr, 'a hard link becomes a copy: "/dir/outside"');
  const out = join(work, 'out');
  t.equal(lstatSync(join(out, 'ping')).uid, 65534);
  t.equal(statSync(join(out, 'suid')).mode & 0o7777, 0o711);
  t.notOk(existsSync(join(out, 'chr')));
  t.equal(statSync(join(out, 'dir/locked')).mode & 0o777, 0);
  for (const name of ['readonly', 'readonly/file']) {
    t.equal(statSync(join(out, name)).mode & 0o222, 0);
    t.equal(
      getXattr(Buffer.from(join(out, name)), 'user.a')?.toString(),
      'v',
      'an attribute of what its owner may not write',
    );
  }
});

t.test('extract makes nothing outside its directory and over nothing that is there', async (t) => {
  const { directory, image, run } = await place(t);
  mkdirSync(join(directory, 'full'));
  writeFileSync(join(directory, 'full/file'), '');
  const full = await run('extract', image.reference, 'full');
  t.equal(full.code, 1);
  t.match(full.stderr, /full: the directory is not empty/);
  writeFileSync(join(directory, 'file'), '');
  t.equal((await run('extract', image.reference, 'file')).code, 1);
  mkdirSync(join(directory, 'empty'));
  if (isRoot) chownSync(join(directory, 'empty'), 65534, 65534);
  t.equal((await run('extract', '--rootless', image.reference, 'empty')).code, 0);
  t.equal(statSync(join(directory, 'empty')).uid, process.geteuid?.(), 'an empty directory is taken over');

  const hostile = await makeLayout(join(directory, 'hostile'), {
    layers: [
      {
        entries: [
          { name: 'out', type: 'symlink', linkname: directory },
          { name: '../../../../up', content: 'x' },
          { name: 'deep/', type: 'directory' },
          { name: 'deep/abs', type: 'symlink', linkname: join(directory, 'target') },
          { name: 'deep/hard', type: 'link', linkname: 'deep/abs' },
        ],
      },
      {
        entries: [
          { name: 'out/evil', content: 'x' },
          { name: 'deep/abs/evil', content: 'x' },
        ],
      },
    ],
  });
  mkdirSync(join(directory, 'target'));
  const before = readdirSync(directory);
  symlinkSync(join(directory, 'target'), join(directory, 'linked'));
  const made = await run('extract', '--rootless', hostile.reference, 'safe');
  t.equal(made.code, 0, made.stderr);
  t.strictSame(
    readdirSync(directory)
      .filter((name) => !before.includes(name))
      .sort(),
    ['linked', 'safe'],
  );
  t.strictSame(readdirSync(join(directory, 'target')), []);
  t.ok(lstatSync(join(directory, 'safe/out')).isSymbolicLink(), 'a link is made as a link, and not gone through');
});

t.test('extract goes on where a file takes no such attribute', async (t) => {
  if (skipUnless(t, isRoot, 'file capabilities need root')) return;
  const directory = tempDir(t);
  const capability = paxEntry({ 'SCHILY.xattr.security.capability': 'none' });
  const image = await makeLayout(join(directory, 'image'), {
    layers: [{ entries: [capability, rawEntry({ name: 'f' }, 'x')] }],
  });
  const env = { LAMINA_STORE: join(directory, 'store') };
  const made = await lamina(['extract', image.reference, join(directory, 'out')], { env });
  t.equal(made.code, 0, made.stderr);
  t.match(made.stderr, 'does not take an attribute: "/f"');
  t.equal(readFileSync(join(directory, 'out/f'), 'utf8'), 'x');
});

t.test('paths deeper than a path may be long', async (t) => {
  const directory = tempDir(t);
  const deep = Array.from({ length: 3000 }, () => 'dd').join('/');
  const links = ['y', 'z/z'].map((name) =>
    Buffer.concat([paxEntry({ linkpath: `${deep}/leaf` }), rawEntry({ name, type: '1' })]),
  );
  const image = await makeLayout(join(directory, 'image'), {
    layers: [{ entries: [paxEntry({ path: `${deep}/leaf` }), rawEntry({ name: 'x' }, 'deep'), ...links] }],
  });
  const env = { LAMINA_STORE: join(directory, 'store') };
  const made = await lamina(['extract', '--rootless', image.reference, join(directory, 'out')], { env });
  t.equal(made.code, 0, made.stderr);
  const found = execFileSync('find', ['.', '-name', 'leaf', '-printf', '%d %s\n'], {
    cwd: join(directory, 'out'),
    encoding: 'utf8',
  });
  t.equal(found, '3001 4\n');
  for (const name of ['y', 'z/z'])
    t.equal(statSync(join(directory, 'out', name)).nlink, 3, 'further names, far from the first');
  const tar = await lamina(['export', image.reference, '-o', join(directory, 'flat.tar')], { env });
  t.equal(tar.code, 0, tar.stderr);
  const again = await makeLayout(join(directory, 'again'), {
    layers: [{ tar: readFileSync(join(directory, 'flat.tar')) }],
  });
  t.equal((await lamina(['diff', image.reference, again.reference], { env })).stdout, '');
  execFileSync('rm', ['-rf', join(directory, 'out')]);
});

t.test('what cannot be written out', async (t) => {
  const { directory, run, image } = await place(t);
  const cases: [string[], number, string][] = [
    [['export', image.reference, '/nope'], 4, 'There is no "/nope"'],
    [['export', image.reference, '--json'], 2, 'needs another place than stdout'],
    [['export', image.reference, '-o', '/nowhere/x.tar'], 1, 'Cannot write /nowhere/x.tar'],
    [['extract', image.reference, 'new', '/nope'], 4, 'There is no "/nope"'],
  ];
  for (const [args, code, message] of cases) {
    const result = await run(...args);
    t.equal(result.code, code, args.join(' '));
    t.match(result.stderr, message);
  }
  t.notOk(existsSync(join(directory, 'new')));
  const full = await run('export', image.reference, '-o', '/dev/full');
  t.equal(full.code, 1, 'a device is written to');
});
