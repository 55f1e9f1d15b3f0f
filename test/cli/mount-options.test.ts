/** -o, --subdir, and the mount helper as mount(8) calls it. */
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import type { MountStatus } from '../../src/daemon/protocol.js';
import { killDaemon } from '../../scripts/leftovers.js';
import { parseMountOptions } from '../../src/cli/mount-options.js';
import { cliPath, lamina, runCommand, type CliResult } from '../support/cli.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

interface Place {
  readonly directory: string;
  readonly image: MadeImage;
  readonly runDir: string;
  readonly env: Readonly<Record<string, string>>;
  readonly mountpoint: string;
  readonly run: (...args: string[]) => Promise<CliResult>;
}

async function place(t: Test): Promise<Place> {
  const directory = tempDir(t);
  const image = await makeLayout(join(directory, 'image'), {
    layers: [
      {
        entries: [
          { name: 'usr/share/doc/', type: 'directory', mode: 0o750 },
          { name: 'usr/share/doc/readme', content: 'read me\n' },
          { name: 'docs', type: 'symlink', linkname: '/usr/share/doc' },
          { name: 'escape', type: 'symlink', linkname: '../../../../../..' },
          { name: 'file', content: '' },
        ],
      },
    ],
  });
  const runDir = join(directory, 'run');
  const env = { LAMINA_STORE: join(directory, 'store'), LAMINA_RUN: runDir };
  t.teardown(() => killDaemon(runDir));
  const mountpoint = join(directory, 'mnt');
  mkdirSync(mountpoint);
  return { directory, image, runDir, env, mountpoint, run: (...args) => lamina(args, { env, cwd: directory }) };
}

/** The options of mountinfo's last line for a mountpoint, its root and its type. */
function mountOf(mountpoint: string): { root: string; options: string[]; type: string } | undefined {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const fields = lines.findLast((line) => line.split(' ')[4] === mountpoint)?.split(' ');
  if (fields === undefined) return undefined;
  return { root: fields[3] ?? '', options: fields[5]?.split(',') ?? [], type: fields[fields.indexOf('-') + 1] ?? '' };
}

t.test('parseMountOptions tells ours from what mount(8) keeps for itself', async (t) => {
  const ignored =
    'defaults,auto,noauto,_netdev,nofail,x-systemd.automount,x-mount.mkdir=0755,ro,rw,user,comment=x,relatime';
  t.strictSame(parseMountOptions([ignored]), { args: [], flags: [], unknown: [] });
  t.strictSame(parseMountOptions(['nosuid,nodev,noexec,exec', 'engine=fuse,upper=/u', '']), {
    args: ['--engine=fuse', '--upper=/u', '--rw'],
    flags: ['nosuid', 'nodev'],
    unknown: [],
  });
  t.strictSame(parseMountOptions(['sudir=/x,subdir=/a=b,engine']), {
    args: ['--subdir=/a=b'],
    flags: [],
    unknown: ['sudir=/x', 'engine'],
  });
  t.throws(() => parseMountOptions(['remount,ro']), { code: 'USAGE' });
});

t.test('a subdirectory, by each engine and writable', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { directory, image, runDir, run, mountpoint } = await place(t);
  const cases: [string[], string, string][] = [
    [['--engine', 'kernel', '--subdir', '/usr/share/doc', '-o', 'nosuid,nodev'], 'erofs', '/usr/share/doc'],
    [['--engine', 'fuse', '--subdir', 'docs', '-o', 'nosuid', '-o', 'nodev'], 'fuse.lamina', '/usr/share/doc'],
    [['--rw', '-o', 'subdir=/docs,nosuid,nodev'], 'overlay', '/'],
  ];
  for (const [args, type, root] of cases) {
    const mounted = await run('mount', ...args, image.reference, mountpoint);
    t.equal(mounted.code, 0, mounted.stderr);
    t.match(mounted.stderr, `Mounted /usr/share/doc of ${image.reference} on ${mountpoint}`);
    const found = mountOf(mountpoint);
    t.match(found, { type, root });
    t.ok(
      found?.options.includes('nosuid') === true && found.options.includes('nodev'),
      `${type}: ${found?.options.join()}`,
    );
    t.strictSame(readdirSync(mountpoint), ['readme']);
    t.equal(readFileSync(join(mountpoint, 'readme'), 'utf8'), 'read me\n');
    const [status] = JSON.parse((await run('mounts', '--json')).stdout) as MountStatus[];
    t.match(status, { subdir: '/usr/share/doc', flags: ['nosuid', 'nodev'], mountpoint });
    if (type === 'overlay') writeFileSync(join(mountpoint, 'new'), '');
    t.equal((await run('umount', mountpoint)).code, 0);
    t.equal(mountOf(mountpoint), undefined);
    t.strictSame(readdirSync(join(runDir, 'lower')), [], 'nothing of ours is left');
  }
  t.equal((await run('mount', '--subdir', 'escape', image.reference, mountpoint)).code, 0);
  t.match(readdirSync(mountpoint), ['docs', 'escape', 'file', 'usr'], 'out of the image there is only its root');
  t.equal((await run('umount', '--lazy', mountpoint)).code, 0);

  const errors: [string[], number, string][] = [
    [['--subdir', '/nope'], 4, 'There is no "/nope"'],
    [['--subdir', '/file'], 2, 'it is not a directory'],
    [['-o', 'sudir=/x'], 2, 'There is no mount option sudir=/x'],
    [['-o', 'engine=warp'], 2, 'Allowed choices are auto, kernel, fuse'],
  ];
  for (const [args, code, message] of errors) {
    const result = await run('mount', ...args, image.reference, mountpoint);
    t.equal(result.code, code, args.join(' '));
    t.match(result.stderr, message);
  }
  t.strictSame(readdirSync(directory).sort(), ['image', 'mnt', 'run', 'store']);
});

t.test('a subdirectory outlives the server, and goes when somebody else unmounts it', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { image, runDir, run, mountpoint } = await place(t);
  t.equal((await run('mount', '--engine', 'fuse', '--subdir', 'docs', image.reference, mountpoint)).code, 0);
  const status = async (): Promise<{ serverPid: number; restarts: number; mounts: unknown[] }> =>
    JSON.parse((await run('daemon', 'status', '--json')).stdout) as {
      serverPid: number;
      restarts: number;
      mounts: unknown[];
    };
  process.kill((await status()).serverPid, 'SIGKILL');
  t.equal((await runCommand('cat', [join(mountpoint, 'readme')])).stdout, 'read me\n');
  t.match(await status(), { restarts: 1, mounts: [{ subdir: '/usr/share/doc' }] });
  t.equal((await runCommand('umount', [mountpoint])).code, 0);
  t.strictSame((await status()).mounts, []);
  t.strictSame(readdirSync(join(runDir, 'lower')), []);
});

t.test('the mount helper', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { directory, image, env, run, mountpoint } = await place(t);
  const link = join(directory, 'mount.fuse.lamina');
  symlinkSync(cliPath, link);
  const helper = (...args: string[]): Promise<CliResult> => runCommand(process.execPath, [link, ...args], { env });

  const mounted = await helper(image.reference, mountpoint, '-o', 'rw,nosuid,_netdev,nofail,engine=fuse');
  t.equal(mounted.code, 0, mounted.stderr);
  t.equal(`${mounted.stdout}${mounted.stderr}`, '', 'it says nothing');
  t.match(mountOf(mountpoint), { type: 'fuse.lamina', root: '/' });
  t.ok(mountOf(mountpoint)?.options.includes('nosuid'));
  t.equal((await helper(image.reference, mountpoint, '-o', 'ro')).code, 32, 'it is mounted already');
  t.equal((await run('umount', mountpoint)).code, 0);

  const cases: [string[], number][] = [
    [[image.reference, mountpoint, '-f', '-o', 'ro'], 0],
    [[image.reference], 1],
    [[image.reference, mountpoint, '-o', 'engine=warp'], 1],
    [[image.reference, mountpoint, '-Z'], 1],
    [['oci:/nowhere', mountpoint, '-o', 'ro'], 32],
    [[image.reference, join(directory, 'nowhere')], 32],
  ];
  for (const [args, code] of cases) t.equal((await helper(...args)).code, code, args.join(' '));
  t.equal(mountOf(mountpoint), undefined);

  const plain = await run(image.reference, mountpoint, '-o', 'ro,odd=1');
  t.equal(plain.code, 0, 'as mount.fuse(8) calls it');
  t.match(plain.stderr, 'the mount option odd=1 is not known and does nothing');
  t.equal((await run('umount', mountpoint)).code, 0);
  t.equal((await run('lss', 'image')).code, 2, 'a command that is wrong is no image');
});

t.test('mount(8) finds the helper', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { directory, image, env, mountpoint } = await place(t);
  // In a mount namespace of the test's own, /usr/sbin has the helper and /etc/fstab a line.
  const script = `
    set -e
    mkdir sbin
    mount -t tmpfs none sbin && mkdir sbin/upper sbin/work
    printf '#!/bin/sh\\nexec "%s" "%s" "$@"\\n' "$1" "$PWD/mount.fuse.lamina" > sbin/upper/mount.fuse.lamina
    chmod +x sbin/upper/mount.fuse.lamina
    mount -t overlay -o "lowerdir=/usr/sbin,upperdir=$PWD/sbin/upper,workdir=$PWD/sbin/work" none /usr/sbin
    echo "$2 $3 fuse.lamina ro,nosuid,subdir=/docs,_netdev,nofail 0 0" > fstab
    mount --fstab "$PWD/fstab" "$3"
    cat "$3/readme"
    grep " $3 " /proc/self/mountinfo
    umount "$3"
    mount -t fuse.lamina "$2" "$3"
    ls "$3"
    umount "$3"
    "$1" "$PWD/mount.fuse.lamina" "$2" "$3" -f
    "$1" "$4" daemon stop`;
  symlinkSync(cliPath, join(directory, 'mount.fuse.lamina'));
  const args = [
    '-m',
    '--propagation',
    'private',
    'sh',
    '-c',
    script,
    'sh',
    process.execPath,
    image.reference,
    mountpoint,
    cliPath,
  ];
  const result = await runCommand('unshare', args, { env, cwd: directory });
  t.equal(result.code, 0, result.stderr);
  t.match(result.stdout, /^read me\n.* \/usr\/share\/doc .* ro,nosuid,.*\ndocs\nescape\nfile\nusr\n$/);
  t.notOk(existsSync('/usr/sbin/mount.fuse.lamina'));
});
