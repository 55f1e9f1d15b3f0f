/**
 * Lamina as an ordinary user: one made for the test, with subordinate ids, and one without. Root makes them, opens
 * /dev/fuse to all as udev does elsewhere, and shows them the checkout, which may lie where they cannot go.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { rootlessConfig } from '../../src/bundle/rootless.js';
import type { RuntimeSpec } from '../../src/bundle/defaults.js';
import { userAllowOther } from '../../src/mount/fusermount.js';
import { mapId } from '../../src/mount/id-map.js';
import { ownIds } from '../../src/mount/subordinate-ids.js';
import { makesNamespaces } from '../support/namespaces.js';
import { runCommand, type CliResult } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import type { MadeImage } from '../support/images.js';
import { projectRoot } from '../support/project.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { makeShellImage, programsWithLibraries } from '../cli/shell-image.js';
import { tempDir } from '../support/tmp.js';

const needed = ['useradd', 'userdel', 'fusermount3', 'newuidmap', 'unshare', 'su', 'runc'];
const missing = needed.filter((name) => !commandExists(name));

function cannotRun(t: Test): boolean {
  return (
    skipUnless(t, isRoot && existsSync('/dev/fuse'), 'making users needs root, mounting /dev/fuse') ||
    skipUnless(t, missing.length === 0, `commands are missing: ${missing.join(', ')} (scripts/install-peers)`)
  );
}

interface Person {
  readonly name: string;
  readonly uid: number;
  readonly home: string;
  /** Shell lines as this user, `$L` being the command line and `$I` the image; `$H` the place that others can enter. */
  readonly sh: (lines: string, timeout?: number) => Promise<CliResult>;
}

interface Place {
  readonly image: MadeImage;
  /** `subordinate`: has lines in /etc/subuid and /etc/subgid. */
  readonly person: (subordinate: boolean) => Person;
}

async function place(t: Test): Promise<Place> {
  const directory = tempDir(t);
  chmodSync(directory, 0o755);
  const app = join(directory, 'app');
  mkdirSync(app);
  execFileSync('mount', ['--bind', projectRoot, app]);
  const { mode } = statSync('/dev/fuse');
  mkdirSync(join(directory, 'roots'));
  chmodSync('/dev/fuse', 0o666);
  t.teardown(() => chmodSync('/dev/fuse', mode & 0o777));
  const node = join(directory, 'node');
  execFileSync('cp', [realpathSync(process.execPath), node]);
  const id = programsWithLibraries(['/usr/bin/id']).map((path) => ({
    name: path.slice(1),
    mode: 0o755,
    content: readFileSync(path),
  }));
  const owned = [
    { name: 'owned/', type: 'directory' as const, uid: 33, gid: 33 },
    { name: 'owned/by-one', content: 'x', uid: 1, gid: 2, mode: 0o4755 },
    { name: 'owned/by-nobody', content: 'x', uid: 65_534, gid: 4_000_000 },
  ];
  const image = await makeShellImage(join(directory, 'image'), {}, [{ entries: [...id, ...owned] }]);
  execFileSync('chmod', ['-R', 'a+rX', join(directory, 'image')]);
  let made = 0;
  const person = (subordinate: boolean): Person => {
    const name = `lamina-${process.pid}-${made++}`;
    const home = join(directory, name);
    execFileSync('useradd', ['--create-home', '--home-dir', home, '--shell', '/bin/sh', name], { stdio: 'ignore' });
    t.teardown(() => execFileSync('userdel', [name], { stdio: 'ignore' }));
    if (!subordinate) {
      for (const file of ['/etc/subuid', '/etc/subgid']) execFileSync('sed', ['-i', `/^${name}:/d`, file]);
    } else if (!readFileSync('/etc/subuid', 'utf8').includes(`${name}:`)) {
      execFileSync('usermod', ['--add-subuids', '700000-765535', '--add-subgids', '700000-765535', name]);
    }
    const uid = Number(execFileSync('id', ['-u', name], { encoding: 'utf8' }));
    const sh: Person['sh'] = (lines, timeout) => {
      const set = [
        // The test runner puts options into every process that name files which this user may not read.
        'unset NODE_OPTIONS XDG_RUNTIME_DIR XDG_DATA_HOME',
        `export LAMINA_RUN=${home}/run LAMINA_STORE=${home}/store`,
        `L='${node} ${app}/dist/src/cli/main.js --progress none' I='${image.reference}' H='${directory}'`,
        'cd',
      ];
      const env = { PATH: '/usr/sbin:/sbin:/usr/bin:/bin' };
      return runCommand('su', [name, '-c', [...set, lines].join('\n')], {
        env,
        ...(timeout === undefined ? {} : { timeout }),
      });
    };
    t.teardown(() => sh('$L daemon stop --force'));
    return { name, uid, home, sh };
  };
  return { image, person };
}

t.before(makesNamespaces);

t.test('subordinate ids', async (t) => {
  const user = { uid: 1000, gid: 1001, name: 'me' };
  const files = { subuid: 'you:1:5\nme:100000:10\n#me:3:3\nme:x:1\n1000:200000:5\n', subgid: 'me:300000:20\n' };
  const { map, subordinate } = ownIds(user, files);
  t.ok(subordinate);
  t.strictSame(map.uid, [
    { container: 0, host: 1000, size: 1 },
    { container: 1, host: 100_000, size: 10 },
    { container: 11, host: 200_000, size: 5 },
  ]);
  t.equal(mapId(map.gid, 0), 1001);
  t.equal(mapId(map.gid, 20), 300_019);
  t.notOk(ownIds(user, { subuid: files.subuid, subgid: '' }).subordinate);
  t.strictSame(ownIds({ ...user, name: undefined }, { subuid: 'me:1:1', subgid: 'me:1:1' }).map.uid.length, 1);
  t.ok(userAllowOther('# x\n user_allow_other \n'));
  t.notOk(userAllowOther('#user_allow_other\nmount_max = 5'));
});

t.test('the runtime config is that of runc spec --rootless', async (t) => {
  if (cannotRun(t)) return;
  const directory = tempDir(t);
  const spec = (...args: string[]): RuntimeSpec => {
    execFileSync('runc', ['spec', ...args], { cwd: directory });
    const path = join(directory, 'config.json');
    const config = JSON.parse(readFileSync(path, 'utf8')) as RuntimeSpec;
    execFileSync('rm', [path]);
    return config;
  };
  const one = [{ container: 0, host: 0, size: 1 }];
  const ours = rootlessConfig(spec(), { map: { uid: one, gid: one }, namespace: 'new' });
  const theirs = spec('--rootless');
  const sorted = (config: RuntimeSpec): unknown => ({
    ...config,
    mounts: [...config.mounts].sort((a, b) => (a.destination < b.destination ? -1 : 1)),
    linux: {
      ...config.linux,
      // The network stays the container's own.
      namespaces: config.linux.namespaces
        .map(({ type }) => type)
        .filter((type) => type !== 'network')
        .sort(),
    },
  });
  t.strictSame(sorted(ours), sorted(theirs));
});

t.test('mount', async (t) => {
  if (cannotRun(t)) return;
  const { person } = await place(t);
  const me = person(true);
  const mounted = await me.sh('mkdir mnt && $L mount "$I" mnt && $L mounts --json');
  t.equal(mounted.code, 0, mounted.stderr);
  t.match(mounted.stderr, /only you can look into the mount/);
  t.match(mounted.stderr, /engine fuse: our FUSE server: mounting EROFS needs root/);
  const { map } = ownIds(
    { uid: me.uid, gid: Number(execFileSync('id', ['-g', me.name], { encoding: 'utf8' })), name: me.name },
    { subuid: readFileSync('/etc/subuid', 'utf8'), subgid: readFileSync('/etc/subgid', 'utf8') },
  );
  // What podman shows from outside of a container: the image's root is the user, its others are subordinate ids.
  const listing = await me.sh('cd mnt && find . -printf "%p %U %G %m %s\\n" | sort');
  const extracted = join(tempDir(t), 'rootfs');
  t.equal(
    (
      await runCommand(process.execPath, [
        join(projectRoot, 'dist/src/cli/main.js'),
        'extract',
        '--store',
        join(me.home, 'roots-store'),
        (await me.sh('echo "$I"')).stdout.trim(),
        extracted,
      ])
    ).code,
    0,
  );
  const real = execFileSync('find', ['.', '-printf', '%p %U %G %m %s\n'], { cwd: extracted, encoding: 'utf8' });
  const expected = real
    .trim()
    .split('\n')
    .map((line) => {
      const [path = '', uid, gid, mode, size] = line.split(' ');
      return [path, mapId(map.uid, Number(uid)), mapId(map.gid, Number(gid)), mode, size].join(' ');
    });
  const files = (lines: string[]): string[] =>
    lines.filter((line) => !/ (?:\S+ ){2}(?:755|1777|700) /.test(line)).sort();
  t.strictSame(files(listing.stdout.trim().split('\n')), files(expected), 'ownership, modes and sizes');
  t.equal(
    (await me.sh('cd mnt && find . -type f -print0 | sort -z | xargs -0 sha256sum')).stdout,
    execFileSync('sh', ['-c', 'find . -type f -print0 | sort -z | xargs -0 sha256sum'], {
      cwd: extracted,
      encoding: 'utf8',
    }),
    'contents',
  );
  const crashed = await me.sh(`
    before=$($L daemon status --json | grep -o '"serverPid": *[0-9]*' | grep -o '[0-9]*$')
    kill -9 $before && cat mnt/etc/passwd >/dev/null && echo read on`);
  t.equal(crashed.stdout, 'read on\n', 'a crash of the server is survived');
  const rest = await me.sh(
    'cd mnt && sleep 60 & sleep 0.3; cd; $L umount mnt; kill $!; wait; $L umount mnt && ls -A mnt | wc -l',
  );
  t.match(rest.stderr, /it is in use by pid \d+/);
  t.equal(rest.stdout, '0\n', rest.stderr);
  for (const [line, message] of [
    ['$L mount --rw "$I" mnt', /an overlay outside of containers needs root/],
    ['$L mount --subdir /bin "$I" mnt', /bind mounts need root/],
    ['$L mount --engine kernel "$I" mnt', /mounting EROFS needs root/],
    ['$L mount "$I" /usr/share', /not empty/],
  ] as const) {
    const refused = await me.sh(line);
    t.equal(refused.code, 1, line);
    t.match(refused.stderr, message);
  }
  const elsewhere = await me.sh('$L mount "$I" "$H/roots"; $L mounts');
  t.match(elsewhere.stderr, /Cannot mount on \S+: fusermount3: .*(?:permission|no write|not permitted)/i);
  t.notMatch(elsewhere.stdout, /fuse/);
});

t.test('run and bundle', async (t) => {
  if (cannotRun(t)) return;
  const { person } = await place(t);
  const me = person(true);
  const inside = await me.sh(`$L run "$I" sh -c 'id -u; echo new >/new && cat /new; exit 7'`);
  t.equal(inside.code, 7, inside.stderr);
  t.equal(inside.stdout, '0\nnew\n');
  const other = await me.sh(`$L run -u 33:33 "$I" sh -c 'id -u; cat /etc/passwd >/dev/null && echo readable'`);
  t.equal(other.stdout, '33\nreadable\n', other.stderr);
  const readOnly = await me.sh(`$L run --read-only "$I" sh -c ': >/new'`);
  t.not(readOnly.code, 0);
  t.match(readOnly.stderr, /Read-only file system/i);
  t.equal((await me.sh(`echo text | $L run -i "$I" cat`)).stdout, 'text\n');
  const killed = await me.sh(
    `$L run "$I" sh -c 'trap "exit 9" TERM; echo up >/tmp/up; while :; do sleep 0.1; done' & sleep 2; kill -TERM $!; wait $!; echo $?`,
  );
  t.equal(killed.stdout, '9\n', killed.stderr);
  const unmapped = await me.sh('$L run -u 70000 "$I" id');
  t.equal(unmapped.code, 125);
  t.match(unmapped.stderr, /you have no subordinate ids for it/);
  const bundled = await me.sh(
    `$L bundle --arg sh --arg -c --arg 'id -u; cat /proc/self/uid_map' "$I" b && runc --root ~/runc run -b b c1; $L bundle --remove b; ls -A b`,
  );
  t.match(bundled.stdout, new RegExp(`^0\\n +0 +${me.uid} +1\\n +1 +\\d+ +65536\\n$`), bundled.stderr);
  t.match((await me.sh('$L bundle --rw "$I" b')).stderr, /its overlay needs root/);
  const left = await me.sh('ls -A store/overlays run/bundles run/mnt; $L mounts -q');
  t.equal(left.stdout, 'run/bundles:\n\nrun/mnt:\n\nstore/overlays:\n', 'nothing is left');
});

t.test('without subordinate ids; and what doctor says', async (t) => {
  if (cannotRun(t)) return;
  const { person } = await place(t);
  const me = person(false);
  const mounted = await me.sh('mkdir mnt && $L mount "$I" mnt && find mnt -printf "%U\\n" | sort -u; $L umount mnt');
  t.match(mounted.stderr, /you have no subordinate ids/);
  t.strictSame(new Set(mounted.stdout.trim().split('\n')).has(String(me.uid)), true);
  t.notMatch(mounted.stdout, /^0$/m);
  const inside = await me.sh(`$L run "$I" sh -c 'id -u; echo x >/x && cat /x'`);
  t.equal(inside.stdout, '0\nx\n', inside.stderr);
  const doctor = async (before = ''): Promise<string> => (await me.sh(`${before}\n$L doctor`)).stdout;
  const well = await doctor();
  t.match(well, /^ok +fusermount3 +\/\S+/m);
  t.match(well, /^warn +subordinate ids +none/m);
  t.match(well, /^ok +overlay in them/m);
  const paths = 'mkdir -p p; for d in /usr/bin /bin /usr/sbin /sbin; do for f in $d/*; do ln -sf $f p/; done; done;';
  t.match(
    await doctor(`${paths} rm p/fusermount*; PATH=~/p`),
    /^fail +fusermount3 +not installed .*apt-get install fuse3/m,
  );
  t.match(
    await doctor(`${paths} rm p/newuidmap; PATH=~/p`),
    /^warn +newuidmap +no newuidmap .*apt-get install uidmap/m,
  );
  t.match(await doctor(`${paths} rm p/unshare; PATH=~/p`), /^warn +user namespaces +no unshare/m);
  t.match(
    await doctor(`${paths} rm p/fusermount3; cp /usr/bin/fusermount3 p/fusermount3; PATH=~/p`),
    /^fail +fusermount3 +\S+ is not set-user-ID root .*chmod u\+s/m,
  );
  chmodSync('/dev/fuse', 0o600);
  const closed = await me.sh('$L doctor; $L mount "$I" mnt');
  chmodSync('/dev/fuse', 0o666);
  t.match(closed.stdout, /^fail +fuse device +EACCES .*chmod 0666 \/dev\/fuse/m);
  t.match(closed.stderr, /Cannot mount on \S+: fusermount3: .*\/dev\/fuse/);
});
