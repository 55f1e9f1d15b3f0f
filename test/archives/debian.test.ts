/** Debian's packages as layers: archives with real owners, modes, links, capabilities' programs and long names, by dpkg-deb. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { compareTrees } from '../../scripts/compare-trees.js';
import { lamina } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import { makeLayout } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

/** Set-user-ID programs, hard links, long names, many small files, sticky directories, links into other packages. */
const packages = ['base-files', 'passwd', 'iputils-ping', 'sudo', 'tzdata', 'git-man', 'perl-base', 'mount'];
const compressions = ['none', 'gzip', 'zstd'] as const;

t.test('data.tar of packages, one over the other', async (t) => {
  const tools = ['apt-get', 'dpkg-deb', 'tar'].every(commandExists);
  if (skipUnless(t, tools && isRoot && existsSync('/dev/fuse'), 'needs apt-get, dpkg-deb, root and /dev/fuse')) return;
  const directory = tempDir(t);
  const debs = join(directory, 'debs');
  mkdirSync(debs);
  const { status, stderr } = spawnSync('apt-get', ['download', '-q', ...packages], {
    cwd: debs,
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
    timeout: 60_000,
  });
  if (skipUnless(t, status === 0, `apt-get cannot download packages: ${stderr.slice(-200)}`)) return;
  const tars = readdirSync(debs)
    .sort()
    .map((deb) => execFileSync('dpkg-deb', ['--fsys-tarfile', join(debs, deb)], { maxBuffer: 1024 ** 3 }));
  t.equal(tars.length, packages.length);
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
    const result = await compareTrees(rootfs, mountpoint);
    t.strictSame(result.differences, [], engine);
    t.ok(result.entries > 2000, `${result.entries} entries`);
    t.equal((await lamina(['umount', mountpoint], { env })).code, 0);
  }
});
