/** The runtime config of appc images (appc spec v0.8.11, spec/aci.md). */
import t from 'tap';
import { runtimeConfig, type RootfsFiles, type RuntimeOptions } from '../../src/bundle/runtime-config.js';
import { aciConfig, parseAciManifest } from '../../src/oci/aci-manifest.js';

const passwd = 'root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:\n100:x:2000:2001::/home/digits:\n';
const group = 'root:x:0:\nlog:x:4:app\n100:x:3000:\n';

const files: RootfsFiles = {
  readFile: (path) => ({ '/etc/passwd': Buffer.from(passwd), '/etc/group': Buffer.from(group) })[path],
  exists: (path) => ['/', '/opt/work', '/data'].includes(path),
  owner: (path) => (path === '/bin/ping' ? { uid: 7, gid: 8 } : undefined),
};

function config(app: Record<string, unknown>, options: Partial<RuntimeOptions> = {}, rootfs = files) {
  const manifest = parseAciManifest(
    Buffer.from(
      JSON.stringify({
        acKind: 'ImageManifest',
        acVersion: '0.8.11',
        name: 'a',
        app: { exec: ['/bin/app', 'x'], user: '0', group: '0', ...app },
      }),
    ),
  );
  return runtimeConfig(aciConfig(manifest, []), rootfs, { readonlyRootfs: false, terminal: false, ...options });
}

t.test('exec, environment, workingDirectory', async (t) => {
  const environment = [
    { name: 'A', value: '1=2' },
    { name: 'A', value: '3' },
  ];
  const { config: made, warnings } = config({ environment, workingDirectory: '/opt/work' });
  t.match(made.process, { args: ['/bin/app', 'x'], cwd: '/opt/work', user: { uid: 0, gid: 0 } });
  t.ok(made.process.env.includes('A=3'));
  t.ok(made.process.env.includes('HOME=/root'));
  t.strictSame(made.annotations, { 'org.opencontainers.image.title': 'a' });
  t.strictSame(warnings, []);
  t.strictSame(config({}, { args: ['/bin/sh'] }).config.process.args, ['/bin/sh'], 'a command takes the place of exec');
  t.equal(config({}).config.process.cwd, '/');
  t.throws(() => config({ exec: undefined }), { code: 'NO_COMMAND' });
  t.throws(() => config({ workingDirectory: '/nowhere' }), { code: 'CONFIG_INVALID', message: /"\/nowhere"/ });
  t.equal(config({ workingDirectory: '/nowhere' }, { workdir: '/opt/work' }).config.process.cwd, '/opt/work');
  const inMount = { workingDirectory: '/new', mountPoints: [{ name: 'n', path: '/new' }] };
  t.equal(config(inMount).config.process.cwd, '/new', 'a mount point is there too');
});

t.test('user and group: names before numbers, files by their owner', async (t) => {
  const table: [string, string, Record<string, unknown>][] = [
    ['app', 'log', { uid: 1000, gid: 4 }],
    ['100', '100', { uid: 2000, gid: 3000 }],
    ['1000', '77', { uid: 1000, gid: 77 }],
    ['/bin/ping', '/bin/ping', { uid: 7, gid: 8 }],
    ['5', '/bin/ping', { uid: 5, gid: 8 }],
  ];
  for (const [user, name, expected] of table) {
    t.strictSame(config({ user, group: name }).config.process.user, expected, `${user} ${name}`);
  }
  const groups = config({ user: 'app', group: 'app2', supplementaryGIDs: [9, 4, 9] }, { user: 'app' });
  t.strictSame(groups.config.process.user, { uid: 1000, gid: 1001, additionalGids: [4] }, '--user has its own rules');
  t.strictSame(config({ supplementaryGIDs: [9, 4, 9] }).config.process.user, {
    uid: 0,
    gid: 0,
    additionalGids: [9, 4],
  });
  t.ok(config({ user: '100' }).config.process.env.includes('HOME=/home/digits'));
  for (const unknown of ['nobody', '-1', '4294967296', '/bin/none', 'app:log']) {
    t.throws(() => config({ user: unknown }), { code: 'USER_UNKNOWN' }, unknown);
    t.throws(() => config({ group: unknown }), { code: 'USER_UNKNOWN' }, unknown);
  }
});

t.test('mount points are volumes; read-only ones stay so whoever fills them', async (t) => {
  const mountPoints = [
    { name: 'work', path: '/data', readOnly: true },
    { name: 'logs', path: '/logs' },
    { name: 'no', path: '/proc' },
  ];
  const volumes = [{ source: '/srv', destination: '/data', readonly: false }];
  const own = (options: Partial<RuntimeOptions>) => {
    const { config: made, warnings } = config({ mountPoints }, options);
    const places = ['/data', '/logs'];
    return { warnings, mounts: made.mounts.filter(({ destination }) => places.includes(destination)) };
  };
  const empty = own({});
  t.match(empty.mounts, [
    { destination: '/data', type: 'tmpfs', options: ['ro', 'nosuid', 'nodev', 'mode=0755'] },
    { destination: '/logs', type: 'tmpfs', options: ['rw', 'nosuid', 'nodev', 'mode=0755'] },
  ]);
  t.match(empty.warnings, [/expects data at "\/data", "\/logs", "\/proc"/, /Left out volumes .*"\/proc"/]);
  const filled = own({ volumes });
  t.match(filled.mounts, [
    { destination: '/logs', type: 'tmpfs' },
    { destination: '/data', type: 'bind', source: '/srv', options: ['rbind', 'rprivate', 'ro'] },
  ]);
  t.match(filled.warnings[0], /expects data at "\/logs"/);
  const homeless = own({ readonlyRootfs: true });
  t.match(homeless.mounts, [{ destination: '/data' }], 'a read-only root has no place for /logs');
});

t.test('what is not done is said', async (t) => {
  const { warnings } = config({
    isolators: [{ name: 'os/linux/capabilities-retain-set', value: { set: ['CAP_KILL'] } }],
    eventHandlers: [{ name: 'post-stop', exec: ['/bin/bye'] }],
  });
  t.match(warnings, [/"isolator os\/linux\/capabilities-retain-set", "event handler post-stop"/]);
});
