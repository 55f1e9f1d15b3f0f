/**
 * Debian's packages as layers: archives with real owners, modes, links, capabilities' programs and long names, those of
 * binary packages by dpkg-deb, those of source packages by whatever tar their authors had.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { compareTrees, type Difference } from '../../scripts/compare-trees.js';
import { lamina } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import { makeLayout } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

/** Set-user-ID programs, hard links, long names, many small files, sticky directories, links into other packages. */
const packages = ['base-files', 'passwd', 'iputils-ping', 'sudo', 'tzdata', 'git-man', 'perl-base', 'mount'];
const compressions = ['none', 'gzip', 'zstd'] as const;

/** Version 7 headers (automake's), GNU's, ustar with a PAX global header (git archive); two without any directory. */
const sources = ['attr', 'bc', 'hello', 'libarchive', 'sed', 'tar', 'tree', 'zlib'];
const DOWNLOAD_MS = 90_000;

t.test('data.tar of binary packages, one over the other', async (t) => {
  if (cannotRun(t)) return;
  const directory = tempDir(t);
  const debs = join(directory, 'debs');
  mkdirSync(debs);
  if (skipUnless(t, ...aptGet(debs, ['download', '-q', ...packages]))) return;
  const tars = readdirSync(debs)
    .sort()
    .map((deb) => execFileSync('dpkg-deb', ['--fsys-tarfile', join(debs, deb)], { maxBuffer: 1024 ** 3 }));
  t.equal(tars.length, packages.length);
  await sameAsTar(t, { directory, tars, entries: 2000 });
});

t.test('source packages, one over the other', async (t) => {
  if (cannotRun(t)) return;
  const directory = tempDir(t);
  const [apt, downloads] = ['apt', 'sources'].map((name) => join(directory, name)) as [string, string];
  for (const path of [downloads, `${apt}/lists/partial`, `${apt}/cache/archives/partial`])
    mkdirSync(path, { recursive: true });
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  writeFileSync(
    join(apt, 'sources.list'),
    `deb-src [signed-by=${keyring}] http://deb.debian.org/debian bookworm main\n`,
  );
  // Lists of its own: the machine's may have no sources, and are not ours to change.
  const own = [`Dir::Etc::sourcelist=${apt}/sources.list`, 'Dir::Etc::sourceparts=-', 'APT::Sandbox::User=root'];
  const options = [...own, `Dir::State::lists=${apt}/lists`, `Dir::Cache=${apt}/cache`].flatMap((o) => ['-o', o]);
  if (skipUnless(t, ...aptGet(downloads, [...options, '-q', 'update']))) return;
  if (skipUnless(t, ...aptGet(downloads, [...options, '-q', '--download-only', 'source', ...sources]))) return;
  const archives = readdirSync(downloads)
    .sort()
    .filter((name) => /\.tar\.(gz|xz|bz2)$/.test(name));
  t.ok(archives.length >= 2 * sources.length, `${archives.length} archives`);
  const tars = archives.map((name) => {
    const program = name.endsWith('.gz') ? 'gzip' : name.endsWith('.xz') ? 'xz' : 'bzip2';
    return execFileSync(program, ['-dc', join(downloads, name)], { maxBuffer: 1024 ** 3 });
  });
  await sameAsTar(t, { directory, tars, entries: 3000 });
});

function cannotRun(t: Test): boolean {
  const tools = ['apt-get', 'dpkg-deb', 'tar', 'gzip', 'xz', 'bzip2'].every(commandExists);
  return skipUnless(t, tools && isRoot && existsSync('/dev/fuse'), 'needs apt-get, dpkg-deb, xz, root and /dev/fuse');
}

/** Whether it worked, and if not why. */
function aptGet(cwd: string, args: readonly string[]): [boolean, string] {
  const env = { ...process.env, LC_ALL: 'C' };
  const { status, stderr } = spawnSync('apt-get', args, { cwd, encoding: 'utf8', env, timeout: DOWNLOAD_MS });
  return [status === 0, `apt-get ${args.at(-1) ?? ''}: ${(stderr ?? '').slice(-200)}`];
}

interface Stack {
  readonly directory: string;
  readonly tars: readonly Buffer[];
  /** That there are at least so many in the tree. */
  readonly entries: number;
}

/** Mounts the archives as an image's layers, in both engines, and compares with GNU tar unpacking one after the other. */
async function sameAsTar(t: Test, { directory, tars, entries }: Stack): Promise<void> {
  const began = Date.now() - 1000;
  const rootfs = join(directory, 'rootfs');
  mkdirSync(rootfs, { mode: 0o755 });
  for (const input of tars) {
    // dpkg packs symlinks last, when tar would have given their directories their times.
    const how = [
      '-P',
      '--delay-directory-restore',
      '--numeric-owner',
      '--same-owner',
      '-p',
      '--xattrs',
      '--xattrs-include=*',
      '--keep-directory-symlink',
    ];
    execFileSync('tar', ['-C', rootfs, ...how, '-xf', '-'], { input, stdio: ['pipe', 'ignore', 'inherit'] });
  }
  const { reference } = await makeLayout(join(directory, 'image'), {
    layers: tars.map((tar, i) => ({ tar, compression: compressions[i % compressions.length] ?? 'none' })),
  });
  const env = { LAMINA_RUN: join(directory, 'run'), LAMINA_STORE: join(directory, 'store') };
  t.teardown(() => lamina(['daemon', 'stop', '--force'], { env }));
  for (const engine of ['auto', 'fuse']) {
    const mountpoint = join(directory, engine);
    mkdirSync(mountpoint);
    const { code, stderr: said } = await lamina(['mount', '--engine', engine, reference, mountpoint], { env });
    t.equal(code, 0, said);
    const result = await compareTrees(rootfs, mountpoint, { limit: Infinity });
    // What no archive names: tar gives it the time of unpacking.
    const implied = ({ field, a, b }: Difference): boolean => field === 'mtime' && b === '0' && Number(a) / 1e6 > began;
    t.strictSame(
      result.differences.filter((difference) => !implied(difference)),
      [],
      engine,
    );
    t.ok(result.entries > entries, `${result.entries} entries`);
    t.equal((await lamina(['umount', mountpoint], { env })).code, 0);
  }
}
