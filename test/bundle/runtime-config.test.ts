import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { runtimeConfig, type RuntimeOptions, type RuntimeSpec } from '../../src/bundle/runtime-config.js';
import { parseConfig } from '../../src/oci/config.js';
import { golden } from './golden.js';
import { group, has, image, passwd, rootfs, run } from './fixtures.js';

const plain: RuntimeOptions = { readonlyRootfs: true, terminal: false };
const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The config alone; the image must give no warning. */
function convert(
  fields: Parameters<typeof image>[0],
  options: Partial<RuntimeOptions> = {},
  files = rootfs(),
): RuntimeSpec {
  const { config, warnings } = runtimeConfig(image(fields), files, { ...plain, ...options });
  assert.deepEqual(warnings, []);
  return config;
}

/** Options of the mount at a place, with its type in front. */
function mountAt(config: RuntimeSpec, destination: string): string[] | undefined {
  const found = config.mounts.filter((mount) => mount.destination === destination);
  assert.ok(found.length <= 1, `one mount at ${destination}`);
  return found[0] && [found[0].type, ...(found[0].options ?? [])];
}

t.test('process.args: Entrypoint, then Cmd or what was given (B001)', (t) => {
  const rows: [entrypoint: string[], cmd: string[], given: string[] | undefined, args: string[]][] = [
    [['/e', '-x'], ['c', ''], undefined, ['/e', '-x', 'c', '']],
    [['/e'], [], undefined, ['/e']],
    [[], ['/c', '1'], undefined, ['/c', '1']],
    [['/e'], ['c'], ['d', 'e'], ['/e', 'd', 'e']],
    [['/e'], [], ['d'], ['/e', 'd']],
    [[], ['/c', '1'], ['/d'], ['/d']],
    [[], [], ['/d'], ['/d']],
    [['/e'], ['c'], [], ['/e', 'c']],
  ];
  for (const [entrypoint, cmd, args, expected] of rows) {
    t.strictSame(convert({ entrypoint, cmd }, { args }).process.args, expected);
  }
  for (const args of [undefined, []]) {
    t.throws(() => convert({ entrypoint: [], cmd: [] }, { args }), { code: 'NO_COMMAND' });
  }
  t.end();
});

t.test('process.env: verbatim and in order; of two the last; what is missing is added (B002)', (t) => {
  t.strictSame(convert({}).process.env, [PATH]);
  t.strictSame(convert({ env: ['B=1', 'A=2', 'PATH=/x', 'E='] }).process.env, ['B=1', 'A=2', 'PATH=/x', 'E=']);
  t.strictSame(convert({ env: ['A=1', 'B=2', 'A=3'] }).process.env, ['A=3', 'B=2', PATH]);
  t.strictSame(convert({ env: ['A=x=y', 'a=1', 'Ä=ü\n$A'] }).process.env, ['A=x=y', 'a=1', 'Ä=ü\n$A', PATH]);
  t.strictSame(convert({ env: ['PATH='] }).process.env, ['PATH='], 'an empty PATH is a PATH');
  t.strictSame(convert({ env: ['__proto__=1', 'constructor=2'] }).process.env, ['__proto__=1', 'constructor=2', PATH]);
  t.strictSame(convert({}, { terminal: true }).process.env, [PATH, 'TERM=xterm']);
  t.strictSame(convert({ env: ['TERM=dumb'] }, { terminal: true }).process.env, ['TERM=dumb', PATH]);
  t.strictSame(convert({ env: ['A=1', 'B=2'] }, { env: ['C=3', 'A=4'] }).process.env, ['A=4', 'B=2', 'C=3', PATH]);

  const malformed = runtimeConfig(image({ env: ['A', '=x', '', 'N=\0', 'B=1'] }), rootfs(), plain);
  t.strictSame(malformed.config.process.env, ['B=1', PATH]);
  t.strictSame(
    malformed.warnings,
    ['Left out of Env, not of the form NAME=VALUE: "A", "=x", "", "N=\\u0000"'],
    'one for all',
  );
  t.throws(() => convert({}, { env: ['A'] }), { code: 'USAGE' });
  t.end();
});

t.test('process.cwd: "/" by default, always absolute (B003)', (t) => {
  for (const [workingDir, cwd] of [
    ['', '/'],
    ['/srv/app', '/srv/app'],
    ['/srv//app/../x/', '/srv//app/../x/'],
  ]) {
    t.equal(convert({ workingDir: workingDir ?? '' }).process.cwd, cwd, `${workingDir}: verbatim`);
  }
  for (const [workingDir, cwd] of [
    ['rel', '/rel'],
    ['../../x', '/x'],
    ['.', '/'],
  ]) {
    const { config, warnings } = runtimeConfig(image({ workingDir: workingDir ?? '' }), rootfs(), plain);
    t.equal(config.process.cwd, cwd);
    t.match(warnings, [/WorkingDir .* is not absolute/]);
  }
  t.equal(convert({ workingDir: '/srv' }, { workdir: '/opt' }).process.cwd, '/opt');
  t.throws(() => convert({}, { workdir: 'opt' }), { code: 'USAGE' });
  t.end();
});

t.test('process.user and HOME: by the image, HOME only where Env has none (B004, B007, B008)', (t) => {
  const files = rootfs({ '/etc/passwd': passwd, '/etc/group': group });
  const process = (fields: Parameters<typeof image>[0], options = {}): RuntimeSpec['process'] =>
    convert(fields, options, files).process;
  t.strictSame(process({ user: 'adm' }).user, { uid: 42, gid: 43, additionalGids: [1234] });
  t.strictSame(process({ user: 'adm:grp' }).user, { uid: 42, gid: 1234 });
  t.strictSame(process({ user: 'adm' }, { user: '5:6' }).user, { uid: 5, gid: 6 });
  t.throws(() => process({ user: 'nobody' }), { code: 'USER_UNKNOWN' });

  t.strictSame(process({ user: 'adm' }).env, [PATH, 'HOME=/var/adm']);
  t.strictSame(process({ user: 'adm', env: ['HOME=/x'] }).env, ['HOME=/x', PATH]);
  t.strictSame(process({ user: 'adm', env: ['HOME='] }).env, ['HOME=', PATH]);
  t.strictSame(process({ user: 'adm' }, { env: ['HOME=/y'] }).env, ['HOME=/y', PATH]);
  t.strictSame(process({ user: 'homeless' }).env, [PATH]);
  t.strictSame(process({ user: '5000' }).env, [PATH]);
  const odd = rootfs({ '/etc/passwd': 'a:x:1:1::/h\0: \n' });
  t.strictSame(convert({ user: 'a' }, {}, odd).process.env, [PATH], 'a home that no variable can hold');
  t.end();
});

t.test('annotations: fields that are there, and labels over them (B009, B010)', (t) => {
  t.strictSame(convert({ architecture: '', os: '' }).annotations, undefined, 'nothing to say');
  t.strictSame(
    convert({
      architecture: 'arm',
      variant: 'v7',
      osVersion: '1.2',
      osFeatures: ['a', 'b'],
      author: 'Ann <a@example.org>',
      created: '2020-01-02T03:04:05.6+01:00',
      stopSignal: 'SIGINT',
      exposedPorts: ['80/tcp', '443/tcp', '53/udp'],
      labels: { b: '2', a: '' },
    }).annotations,
    {
      'org.opencontainers.image.os': 'linux',
      'org.opencontainers.image.architecture': 'arm',
      'org.opencontainers.image.variant': 'v7',
      'org.opencontainers.image.os.version': '1.2',
      'org.opencontainers.image.os.features': 'a,b',
      'org.opencontainers.image.author': 'Ann <a@example.org>',
      'org.opencontainers.image.created': '2020-01-02T03:04:05.6+01:00',
      'org.opencontainers.image.stopSignal': 'SIGINT',
      'org.opencontainers.image.exposedPorts': '443/tcp,53/udp,80/tcp',
      a: '',
      b: '2',
    },
  );
  const empty = {
    variant: '',
    osVersion: '',
    osFeatures: [],
    author: '',
    created: '',
    stopSignal: '',
    exposedPorts: [],
  };
  const pair = { 'org.opencontainers.image.os': 'linux', 'org.opencontainers.image.architecture': 'amd64' };
  t.strictSame(convert(empty).annotations, pair, 'empty ones are not written');

  const labels = { 'org.opencontainers.image.os': 'plan9', 'org.opencontainers.image.author': '' };
  t.strictSame(convert({ author: 'me', labels }).annotations, { ...pair, ...labels });

  const hostile = JSON.parse('{"": "x", "__proto__": "y"}') as Record<string, string>;
  const { config, warnings } = runtimeConfig(image({ labels: hostile }), rootfs(), plain);
  t.equal(JSON.stringify(Object.entries(config.annotations ?? {}).slice(2)), '[["__proto__","y"]]');
  t.match(warnings, [/label without a name/]);
  const acted = runtimeConfig(image({ labels: { 'run.oci.handler': 'krun' } }), rootfs(), plain);
  t.match(acted.warnings, [/Labels that runtimes act on/]);
  t.equal(acted.config.annotations?.['run.oci.handler'], 'krun');
  t.end();
});

t.test('an image for another system is refused', (t) => {
  t.throws(() => convert({ os: 'windows' }), { code: 'CONFIG_INVALID', message: /"windows"/ });
  t.end();
});

t.test('mounts: a volume of the image is an empty tmpfs of its user (B011)', (t) => {
  const tmpfs = ['tmpfs', 'rw', 'nosuid', 'nodev', 'mode=0755'];
  const config = convert({ volumes: ['/var/lib/x', '/data/', '/data', 'rel', '/devices'] });
  t.strictSame(
    config.mounts.slice(7).map((mount) => mount.destination),
    ['/data', '/rel', '/devices', '/var/lib/x'],
    'each once, a shallow one before a deep one',
  );
  t.strictSame(mountAt(config, '/data'), tmpfs);
  t.strictSame(mountAt(convert({ volumes: ['/data'], user: '7:8' }), '/data'), [...tmpfs, 'uid=7', 'gid=8']);

  const refused = runtimeConfig(
    image({ volumes: ['/', '', '/..', '/proc', '/proc/sys', '/dev/shm', '/x/../sys', '/ok', '/a\0b'] }),
    rootfs(),
    plain,
  );
  t.strictSame(
    refused.config.mounts.slice(7).map((mount) => mount.destination),
    ['/ok'],
  );
  t.match(refused.warnings, [/Left out volumes.*"\/", "", "\/\.\.", "\/proc", "\/proc\/sys" and 3 more/]);
  t.end();
});

t.test('mounts: volumes of the user are bind mounts, and take the place of others', (t) => {
  const volumes = [
    { source: '/srv/a b', destination: '/data/in/', readonly: true },
    { source: '/srv', destination: '/data', readonly: false },
    { source: '/run/shm', destination: '/dev/shm', readonly: false },
  ];
  const config = convert({ volumes: ['/data', '/data/in/deep'] }, { volumes });
  t.strictSame(mountAt(config, '/data'), ['bind', 'rbind', 'rprivate', 'rw']);
  t.strictSame(mountAt(config, '/data/in'), ['bind', 'rbind', 'rprivate', 'ro']);
  t.strictSame(mountAt(config, '/dev/shm'), ['bind', 'rbind', 'rprivate', 'rw']);
  t.strictSame(
    config.mounts.slice(6).map((mount) => mount.destination),
    ['/data', '/data/in', '/dev/shm', '/data/in/deep'],
  );
  for (const bad of [
    { source: 'rel', destination: '/x', readonly: true },
    { source: '/x', destination: 'rel', readonly: true },
    { source: '/x', destination: '/x/..', readonly: true },
  ]) {
    t.throws(() => convert({}, { volumes: [bad] }), { code: 'USAGE' });
  }
  t.end();
});

t.test('mounts: what a runtime cannot make in a read-only root is told', (t) => {
  const there = new Set(['/proc', '/dev', '/sys', '/have', '/srv']);
  const files = { ...rootfs(), exists: (path: string) => there.has(path) };
  const full = runtimeConfig(image({ volumes: ['/have', '/have/not', '/not'], workingDir: '/srv' }), files, plain);
  t.match(full.warnings, [/Left out volumes that the image has no directory for: "\/not"$/]);
  t.strictSame(
    full.config.mounts.slice(7).map((mount) => mount.destination),
    ['/have', '/have/not'],
    'a runtime can make a directory in a tmpfs',
  );

  there.delete('/proc');
  const volumes = [{ source: '/x', destination: '/gone', readonly: true }];
  const scratch = runtimeConfig(image({ workingDir: '/w' }), files, { ...plain, volumes });
  t.strictSame(scratch.warnings, [
    'The image lacks "/proc", "/gone", "/w", and a runtime cannot make it in a read-only root: use --rw',
  ]);
  t.equal(mountAt(scratch.config, '/gone')?.[0], 'bind');

  const writable = runtimeConfig(image({ volumes: ['/not'] }), files, { ...plain, volumes, readonlyRootfs: false });
  t.strictSame(writable.warnings, []);
  t.ok(mountAt(writable.config, '/not'));
  t.end();
});

t.test('root, hostname and terminal', (t) => {
  const usual = convert({});
  t.strictSame(usual.root, { path: 'rootfs', readonly: true });
  t.equal(usual.hostname, 'lamina');
  t.equal(usual.process.terminal, false);
  const other = convert({}, { readonlyRootfs: false, terminal: true, hostname: 'h' });
  t.strictSame(other.root, { path: 'rootfs', readonly: false });
  t.equal(other.hostname, 'h');
  t.equal(other.process.terminal, true);
  t.end();
});

t.test('the whole config of a typical image', (t) => {
  const files = rootfs({
    '/etc/passwd': 'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:\n',
    '/etc/group': 'log:x:4:app\n',
  });
  const { config } = runtimeConfig(
    image({
      created: '2024-05-06T07:08:09Z',
      user: 'app',
      env: ['PATH=/usr/bin:/bin', 'LANG=C.UTF-8'],
      entrypoint: ['/usr/bin/tini', '--'],
      cmd: ['serve', '--port', '8080'],
      workingDir: '/srv/app',
      labels: { 'org.example.team': 'files' },
      volumes: ['/var/cache/app'],
      exposedPorts: ['8080/tcp'],
      stopSignal: 'SIGQUIT',
    }),
    files,
    plain,
  );
  t.equal(JSON.stringify(config, null, 2), JSON.stringify(golden, null, 2));
  t.end();
});

const otherRunc = !has('runc')
  ? 'runc is not installed'
  : !/^runc version 1\.1\./.test(run('runc', ['--version'])) &&
    'the defaults are those of runc 1.1, and this is another';

t.test('what no image says is what runc spec writes', { skip: otherRunc }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'lamina-spec-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  run('runc', ['spec', '--bundle', dir]);
  const spec = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as RuntimeSpec;
  const ours = convert({ cmd: ['sh'], os: '', architecture: '' }, { terminal: true });
  t.strictSame(ours, { ...spec, ociVersion: '1.0.2', hostname: 'lamina' });
  t.end();
});

t.test('agrees with umoci', { skip: has('umoci') ? false : 'umoci is not installed' }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'lamina-umoci-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const oci = join(dir, 'oci');
  mkdirSync(join(dir, 'rootfs/etc'), { recursive: true });
  writeFileSync(join(dir, 'rootfs/etc/passwd'), passwd);
  writeFileSync(join(dir, 'rootfs/etc/group'), group);
  run('umoci', ['init', '--layout', oci]);
  run('umoci', ['new', '--image', `${oci}:t`]);
  const fields: Record<string, string[]> = {
    user: ['adm'],
    env: ['A=1', 'LANG=C.UTF-8', 'B=x=y'],
    entrypoint: ['/entry', '--flag'],
    cmd: ['serve', 'a b'],
    label: ['k=v', 'org.example.empty='],
    volume: ['/data', '/var/lib/x'],
    exposedports: ['80/tcp', '443/tcp', '53/udp'],
    workingdir: ['/work'],
    stopsignal: ['SIGINT'],
  };
  const flags = Object.entries(fields).flatMap(([name, values]) => values.map((value) => `--config.${name}=${value}`));
  run('umoci', ['config', '--image', `${oci}:t`, '--author=me', '--created=2020-01-02T03:04:05Z', ...flags]);
  const out = join(dir, 'config.json');
  run('umoci', ['raw', 'runtime-config', '--image', `${oci}:t`, '--rootfs', join(dir, 'rootfs'), out]);
  const theirs = JSON.parse(readFileSync(out, 'utf8')) as RuntimeSpec;

  const blob = (digest: string): Buffer => readFileSync(join(oci, 'blobs', digest.replace(':', '/')));
  const index = JSON.parse(readFileSync(join(oci, 'index.json'), 'utf8')) as { manifests: { digest: string }[] };
  const manifest = JSON.parse(blob(index.manifests[0]?.digest ?? '').toString()) as { config: { digest: string } };
  const files = rootfs({ '/etc/passwd': passwd, '/etc/group': group });
  const { config, warnings } = runtimeConfig(parseConfig(blob(manifest.config.digest)), files, {
    ...plain,
    terminal: true,
  });

  t.strictSame(warnings, []);
  t.strictSame(config.process.args, theirs.process.args);
  t.strictSame(config.process.cwd, theirs.process.cwd);
  t.strictSame(config.process.user.uid, theirs.process.user.uid);
  t.strictSame(config.process.user.gid, theirs.process.user.gid);
  t.strictSame(config.process.user.additionalGids, [...new Set(theirs.process.user.additionalGids)]);
  t.strictSame([...config.process.env].sort(), [...theirs.process.env].sort());
  t.strictSame(config.annotations, theirs.annotations);
  t.strictSame(
    // umoci has the image's volumes in no order.
    config.mounts.map((mount) => mount.destination).sort(),
    theirs.mounts
      .map((mount) => mount.destination)
      .filter((path) => path !== '/etc/resolv.conf')
      .sort(),
  );
  t.end();
});
