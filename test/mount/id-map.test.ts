/** Images shown with other ids, by both engines: the kernel's own mapping and ours are each other's judge. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { idMapOf, mapId, parseIdRange, type IdRange } from '../../src/mount/id-map.js';
import { mapXattr } from '../../src/mount/id-map-xattrs.js';
import { commandExists } from '../support/commands.js';
import { startDaemon, until, type TestDaemon } from '../support/daemon.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { watchesMounts } from '../support/namespaces.js';
import { dropCaches } from '../support/page-cache.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { makeTar, paxEntry } from '../support/tar.js';

t.before(watchesMounts);

const engines = ['kernel', 'fuse'] as const;
type Engine = (typeof engines)[number];

const uids = [parseIdRange('0:100000:1000'), parseIdRange('65534:5:1')];
const gids = [parseIdRange('0:200000:1'), parseIdRange('1:300000:999')];
const flags = [
  ...uids.flatMap(({ container, host, size }) => ['--uid-map', `${container}:${host}:${size}`]),
  ...gids.flatMap(({ container, host, size }) => ['--gid-map', `${container}:${host}:${size}`]),
];

/** cap_net_raw=ep of revision 2 (linux/capability.h). */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex');
/** user::rw- user:33:rwx group::r-- group:7:r-x mask::rwx other::r-- */
const ACL = Buffer.concat([
  Buffer.from('02000000', 'hex'),
  ...[
    [0x01, 6, -1],
    [0x02, 7, 33],
    [0x04, 4, -1],
    [0x08, 5, 7],
    [0x10, 7, -1],
    [0x20, 4, -1],
  ].map(([tag = 0, permissions = 0, id = 0]) => {
    const entry = Buffer.alloc(8);
    entry.writeUInt16LE(tag, 0);
    entry.writeUInt16LE(permissions, 2);
    entry.writeInt32LE(id, 4);
    return entry;
  }),
]);

async function makeImage(directory: string): Promise<MadeImage> {
  const owners: readonly (readonly [number, number])[] = [
    [0, 0],
    [1, 1],
    [33, 7],
    [999, 999],
    [1000, 1000],
    [65534, 65534],
    [4242424, 2],
  ];
  const tar = await makeTar([
    ...owners.map(([uid, gid]) => ({ name: `file-${uid}-${gid}`, content: `${uid}`, uid, gid })),
    { name: 'directory/', type: 'directory' as const, uid: 33, gid: 33, mode: 0o2775 },
    { name: 'directory/link', type: 'symlink' as const, linkname: '../file-0-0', uid: 12, gid: 12 },
    { name: 'suid', content: 'x', mode: 0o6755 },
    paxEntry({ 'SCHILY.xattr.security.capability': CAPABILITY }),
    { name: 'cap', content: 'x', mode: 0o755 },
    paxEntry({ 'SCHILY.xattr.system.posix_acl_access': ACL }),
    { name: 'acl', content: 'x', mode: 0o674 },
  ]);
  return makeLayout(join(directory, 'image'), { layers: [{ tar }] });
}

function cannotRun(t: Test): boolean {
  const missing = ['getcap', 'getfacl', 'unshare'].filter((name) => !commandExists(name));
  return (
    skipUnless(t, isRoot && existsSync('/dev/fuse'), 'mounting needs root and /dev/fuse') ||
    skipUnless(t, missing.length === 0, `commands are missing: ${missing.join(', ')} (scripts/install-peers)`) ||
    skipUnless(t, kernelEngineObstacle() === undefined, `no kernel engine: ${kernelEngineObstacle()}`)
  );
}

async function mount(daemon: TestDaemon, image: MadeImage, name: string, args: readonly string[]): Promise<string> {
  const mountpoint = join(daemon.directory, name);
  mkdirSync(mountpoint);
  const { code, stderr } = await daemon.lamina(['mount', ...args, image.reference, mountpoint]);
  if (code !== 0) throw new Error(stderr);
  return mountpoint;
}

/** "path uid gid mode type" of everything, sorted. */
function listing(directory: string): string[] {
  const format = '%p %U %G %m %y\\n';
  return execFileSync('find', ['.', '-printf', format], { cwd: directory, encoding: 'utf8' }).trim().split('\n').sort();
}

function mapped(line: string): string {
  const [path = '', uid = '', gid = '', ...rest] = line.split(' ');
  return [path, mapId(uids, Number(uid)), mapId(gids, Number(gid)), ...rest].join(' ');
}

t.test('ranges', async (t) => {
  t.equal(mapId(uids, 0), 100_000);
  t.equal(mapId(uids, 999), 100_999);
  t.equal(mapId(uids, 1000), 65_534);
  t.equal(mapId(uids, 65_534), 5);
  const one: IdRange[] = [parseIdRange('0:1:2')];
  t.strictSame(idMapOf(one, []), { uid: one, gid: one }, 'groups as users');
  t.strictSame(idMapOf([], one), { uid: one, gid: one }, 'and the other way round');
  t.equal(idMapOf([], []), undefined);
  for (const text of [
    '',
    '0:1',
    '0:1:0',
    '-1:0:1',
    '0:1:2:3',
    'a:b:c',
    '4294967294:0:2',
    '0:4294967295:1',
    '0:0:4294967296',
  ])
    t.throws(() => parseIdRange(text), { code: 'USAGE' }, text);
  t.throws(() => idMapOf([parseIdRange('0:10:5'), parseIdRange('4:100:1')], []), {
    code: 'USAGE',
    message: /container id 4/,
  });
  t.throws(() => idMapOf([], [parseIdRange('0:10:5'), parseIdRange('9:14:1')]), {
    code: 'USAGE',
    message: /host id 14/,
  });
  const many = Array.from({ length: 341 }, (_, i) => ({ container: i, host: i, size: 1 }));
  t.throws(() => idMapOf(many, []), { code: 'USAGE', message: /340/ });
});

t.test('capabilities belong to the user that root is shown as', async (t) => {
  const owner = (map: IdRange[]): number | string | undefined => {
    const value = mapXattr({ uid: map, gid: map }, 'security.capability', CAPABILITY);
    if (value === undefined) return undefined;
    return value.length === 20 ? 'root' : Buffer.from(value).readUInt32LE(20);
  };
  t.equal(owner(uids), 100_000);
  t.equal(owner([parseIdRange('0:0:1')]), 'root');
  t.equal(owner([parseIdRange('1:0:1')]), undefined, 'whose root is nobody has no capabilities');
  t.strictSame(mapXattr({ uid: uids, gid: gids }, 'user.x', Buffer.from('x')), Buffer.from('x'));
});

t.test('both engines show the mapped ids', async (t) => {
  if (cannotRun(t)) return;
  const daemon = await startDaemon(t);
  const image = await makeImage(daemon.directory);
  const plain = listing(await mount(daemon, image, 'plain', ['--engine', 'kernel']));
  const expected = plain.map(mapped).sort();
  t.ok(
    plain.some((line) => line.startsWith('./file-33-7 33 7 ')),
    'the plain mount has the ids of the image',
  );
  const shown: Partial<Record<Engine, string>> = {};
  for (const engine of engines) {
    const mountpoint = await mount(daemon, image, engine, ['--engine', engine, ...flags]);
    t.strictSame(listing(mountpoint), expected, engine);
    t.equal(readFileSync(join(mountpoint, 'file-1000-1000'), 'utf8'), '1000', 'what belongs to nobody is there');
    const sh = (command: string): string =>
      execFileSync('sh', ['-c', command], {
        cwd: mountpoint,
        encoding: 'utf8',
        env: { PATH: `${process.env['PATH']}:/sbin` },
      });
    shown[engine] = sh('getcap -n cap; getfacl -n acl; getfattr -d -m - -e hex cap acl');
    t.match(shown[engine], /rootid=100000/);
    t.match(shown[engine], /user:100033:rwx\n/);
    t.match(shown[engine], /group:300006:r-x\n/);
  }
  t.equal(shown.fuse, shown.kernel, 'attributes are the same');
  const { body } = await daemon.control('GET', '/v1/mounts');
  t.match(body, [
    { idMap: null },
    { engine: 'kernel', idMap: { uid: uids, gid: gids } },
    { engine: 'fuse', idMap: { uid: uids } },
  ]);
});

t.test('an overlay and a directory of a mapped image are mapped; a crash changes nothing', async (t) => {
  if (cannotRun(t)) return;
  const daemon = await startDaemon(t);
  const image = await makeImage(daemon.directory);
  const plain = listing(await mount(daemon, image, 'plain', ['--engine', 'kernel']));
  const expected = plain.map(mapped).sort();
  const inDirectory = expected
    .filter((line) => line.startsWith('./directory/'))
    .map((line) => line.replace('directory/', ''));
  const check = (engine: Engine, when: string): void => {
    t.strictSame(listing(join(daemon.directory, `rw-${engine}`)), expected, `${engine}: the overlay, ${when}`);
    t.strictSame(
      listing(join(daemon.directory, `sub-${engine}`)).slice(1),
      inDirectory,
      `${engine}: the directory, ${when}`,
    );
  };
  for (const engine of engines) {
    await mount(daemon, image, `rw-${engine}`, ['--engine', engine, '--rw', ...flags]);
    await mount(daemon, image, `sub-${engine}`, ['--engine', engine, '--subdir', '/directory', ...flags]);
    check(engine, 'at first');
  }
  const before = await serverPid(daemon);
  process.kill(before, 'SIGKILL');
  t.ok(await until(async () => (await serverPid(daemon).catch(() => before)) !== before, 10_000), 'another server');
  dropCaches();
  for (const engine of engines) check(engine, 'after a crash');
  // What is copied up keeps the ids that are shown.
  for (const engine of engines) {
    writeFileSync(join(daemon.directory, `rw-${engine}`, 'file-33-7'), 'changed');
    t.ok(
      listing(join(daemon.directory, `rw-${engine}`)).some((line) => line.startsWith('./file-33-7 100033 300006 ')),
      engine,
    );
  }
});

async function serverPid(daemon: TestDaemon): Promise<number> {
  const { body } = await daemon.control('GET', '/v1/status');
  return (body as { serverPid: number }).serverPid;
}

t.test('on the command line and in fstab', async (t) => {
  if (cannotRun(t)) return;
  const daemon = await startDaemon(t);
  const image = await makeImage(daemon.directory);
  for (const bad of [
    ['--uid-map', '0:1'],
    ['--uid-map', '0:1:2', '--uid-map', '1:9:1'],
    ['-o', 'gid-map=x'],
  ]) {
    const { code, stderr } = await daemon.lamina(['mount', ...bad, image.reference]);
    t.equal(code, 2, bad.join(' '));
    t.match(stderr, /id range|ranges share/);
  }
  const mountpoint = await mount(daemon, image, 'o', ['-o', 'nosuid,uid-map=0:7:1,uid-map=33:8:1,engine=fuse']);
  const lines = listing(mountpoint);
  t.ok(lines.some((line) => line.startsWith('./file-0-0 7 7 ')));
  t.ok(lines.some((line) => line.startsWith('./file-33-7 8 65534 ')));
});
