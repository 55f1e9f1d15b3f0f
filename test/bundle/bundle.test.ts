import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import t from 'tap';
import { createBundle, removeBundle, writeConfig, type Bundle } from '../../src/bundle/bundle.js';
import { runtimeConfig } from '../../src/bundle/runtime-config.js';
import { image, rootfs, run } from './fixtures.js';

const { config } = runtimeConfig(image(), rootfs(), { readonlyRootfs: true, terminal: false });
const asRoot = process.getuid?.() === 0 ? false : 'needs root';

function temporary(t: Tap): string {
  const dir = mkdtempSync(join(tmpdir(), 'lamina-bundle-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function makeBundle(directory: string, spec = config): Bundle {
  const bundle = createBundle({ directory, lasting: true });
  writeConfig(bundle, spec);
  return bundle;
}

type Tap = Pick<typeof t, 'teardown'>;

const mode = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8);

/** Every path below a directory, with its mode. */
function listing(directory: string): string[] {
  return run('find', [directory, '-mindepth', '1', '-printf', '%m %P\n']).split('\n').filter(Boolean).sort();
}

t.test('createBundle makes a private directory, and those above it', (t) => {
  const dir = join(temporary(t), 'a/b/bundle');
  const bundle = makeBundle(dir);
  t.strictSame(bundle, { directory: dir, configPath: join(dir, 'config.json'), rootfs: join(dir, 'rootfs') });
  t.equal(mode(dir), '700');
  t.strictSame(listing(dir), ['600 .lamina.json', '600 config.json', '755 rootfs']);
  t.strictSame(JSON.parse(readFileSync(bundle.configPath, 'utf8')), config);
  t.end();
});

t.test('createBundle takes a relative path', (t) => {
  const dir = temporary(t);
  const bundle = makeBundle(relative(process.cwd(), join(dir, 'x')));
  t.equal(bundle.rootfs, join(dir, 'x/rootfs'));
  t.end();
});

t.test('createBundle makes an existing directory private when it is empty but for an empty rootfs', (t) => {
  const dir = temporary(t);
  chmodSync(dir, 0o755);
  mkdirSync(join(dir, 'rootfs'));
  makeBundle(dir);
  t.equal(mode(dir), '700');
  t.end();
});

t.test('createBundle lets other files be in a directory that is private already', (t) => {
  const dir = temporary(t);
  writeFileSync(join(dir, 'notes'), '');
  makeBundle(dir);
  t.strictSame(readdirSync(dir).sort(), ['.lamina.json', 'config.json', 'notes', 'rootfs']);
  t.end();
});

t.test('createBundle refuses where a bundle is (B014)', (t) => {
  const dir = temporary(t);
  writeFileSync(join(dir, 'config.json'), 'mine');
  t.throws(() => makeBundle(dir), { code: 'BUNDLE_EXISTS' });
  t.strictSame(readdirSync(dir), ['config.json']);
  t.equal(readFileSync(join(dir, 'config.json'), 'utf8'), 'mine');

  rmSync(join(dir, 'config.json'));
  symlinkSync('nowhere', join(dir, 'config.json'));
  t.throws(() => makeBundle(dir), { code: 'BUNDLE_EXISTS' }, 'a symlink to nothing');
  t.strictSame(readdirSync(dir), ['config.json']);

  const twice = join(dir, 'twice');
  makeBundle(twice);
  t.throws(() => makeBundle(twice), { code: 'BUNDLE_EXISTS' });
  rmSync(join(twice, 'config.json'));
  t.throws(() => makeBundle(twice), { code: 'BUNDLE_EXISTS', hint: /--remove/ }, 'half of one');
  t.end();
});

t.test('createBundle refuses a directory that cannot be one, and leaves it as it was', (t) => {
  const cases: [name: string, prepare: (dir: string) => void][] = [
    ['open to others and not empty', (dir) => (writeFileSync(join(dir, 'a'), ''), chmodSync(dir, 0o755))],
    ['a rootfs with something in it', (dir) => mkdirSync(join(dir, 'rootfs/a'), { recursive: true })],
    ['a rootfs that is a file', (dir) => writeFileSync(join(dir, 'rootfs'), '')],
    ['a rootfs that is a symlink to a directory', (dir) => symlinkSync('/', join(dir, 'rootfs'))],
    ['the same, and open', (dir) => (symlinkSync('/', join(dir, 'rootfs')), chmodSync(dir, 0o2755))],
  ];
  for (const [name, prepare] of cases) {
    const dir = temporary(t);
    prepare(dir);
    const before = [mode(dir), ...listing(dir)];
    t.throws(() => makeBundle(dir), { code: 'BUNDLE_INVALID' }, name);
    t.strictSame([mode(dir), ...listing(dir)], before, name);
  }
  const file = join(temporary(t), 'file');
  writeFileSync(file, '');
  t.throws(() => makeBundle(file), { code: 'BUNDLE_INVALID' }, 'a file');
  t.throws(() => makeBundle(join(file, 'x')), { code: 'IO' }, 'below a file');
  t.end();
});

t.test('createBundle refuses a directory of another user', { skip: asRoot }, (t) => {
  const dir = temporary(t);
  chownSync(dir, 12345, 12345);
  t.throws(() => makeBundle(dir), { code: 'BUNDLE_INVALID', message: /user 12345/ });
  t.strictSame(readdirSync(dir), []);
  t.end();
});

t.test('createBundle leaves nothing of a bundle that it could not finish', (t) => {
  const dir = temporary(t);
  // As long as a path may be: nothing that is longer fits into it.
  let long = dir;
  while (long.length < 4090) long = join(long, 'x'.repeat(Math.min(250, 4093 - long.length)));
  t.throws(() => makeBundle(long), { code: 'IO', message: /too long/i });
  t.strictSame(readdirSync(dir), []);
  mkdirSync(long, { recursive: true });
  chmodSync(long, 0o750);
  t.throws(() => makeBundle(long), { code: 'IO' });
  t.strictSame([mode(long), ...readdirSync(long)], ['750']);
  t.end();
});

t.test('writeConfig leaves nothing of a config that cannot be written, and replaces none', (t) => {
  const bundle = createBundle({ directory: join(temporary(t), 'x'), lasting: false });
  const cyclic = { ...config } as Record<string, unknown>;
  cyclic['annotations'] = cyclic;
  t.throws(() => writeConfig(bundle, cyclic as unknown as typeof config), { code: 'INTERNAL' });
  t.strictSame(readdirSync(bundle.directory).sort(), ['.lamina.json', 'rootfs']);
  writeConfig(bundle, config);
  t.throws(() => writeConfig(bundle, config), { code: 'BUNDLE_EXISTS' });
  t.end();
});

t.test('removeBundle takes away what createBundle made, and the directory when it is empty', (t) => {
  const dir = temporary(t);
  const own = join(dir, 'own');
  makeBundle(own);
  removeBundle(own);
  t.notOk(existsSync(own));

  const shared = join(dir, 'shared');
  makeBundle(shared);
  mkdirSync(join(shared, 'upper'));
  removeBundle(shared);
  t.strictSame(readdirSync(shared), ['upper']);
  makeBundle(shared);
  t.end();
});

t.test('removeBundle finishes what was begun', (t) => {
  const dir = join(temporary(t), 'x');
  const { rootfs: root, configPath } = makeBundle(dir);
  rmSync(root, { recursive: true });
  rmSync(configPath);
  removeBundle(dir);
  t.notOk(existsSync(dir));
  t.end();
});

t.test('removeBundle removes nothing that is not ours', (t) => {
  const dir = temporary(t);
  t.throws(() => removeBundle(join(dir, 'none')), { code: 'BUNDLE_INVALID' });
  mkdirSync(join(dir, 'rootfs'));
  writeFileSync(join(dir, 'config.json'), '{}');
  t.throws(() => removeBundle(dir), { code: 'BUNDLE_INVALID' }, 'a bundle of another tool');
  for (const text of ['', '{}', 'null', '{"kind":"bundle","version":2}', `"${'x'.repeat(9000)}"`]) {
    writeFileSync(join(dir, '.lamina.json'), text);
    t.throws(() => removeBundle(dir), { code: 'BUNDLE_INVALID' }, text.slice(0, 40));
  }
  rmSync(join(dir, '.lamina.json'));
  writeFileSync(join(dir, 'mark'), '{"kind":"bundle","version":1}');
  symlinkSync('mark', join(dir, '.lamina.json'));
  t.throws(() => removeBundle(dir), { code: 'BUNDLE_INVALID' }, 'a mark that is a symlink');
  run('mkfifo', [join(dir, 'fifo')]);
  rmSync(join(dir, '.lamina.json'));
  run('mv', [join(dir, 'fifo'), join(dir, '.lamina.json')]);
  t.throws(() => removeBundle(dir), { code: 'BUNDLE_INVALID' }, 'a mark that is a fifo');
  t.ok(existsSync(join(dir, 'config.json')) && existsSync(join(dir, 'rootfs')));

  const full = makeBundle(join(dir, 'full'));
  writeFileSync(join(full.rootfs, 'a'), '');
  t.throws(() => removeBundle(full.directory), { code: 'BUNDLE_INVALID' }, 'files in rootfs');
  t.strictSame(listing(full.directory).length, 4);
  rmSync(full.rootfs, { recursive: true });
  symlinkSync(dir, full.rootfs);
  t.throws(() => removeBundle(full.directory), { code: 'BUNDLE_INVALID' }, 'rootfs is a symlink now');
  t.end();
});

t.test('removeBundle refuses while something is mounted', { skip: asRoot }, (t) => {
  const bundle = makeBundle(join(temporary(t), 'x'));
  run('mount', ['-t', 'tmpfs', 'tmpfs', bundle.rootfs]);
  try {
    t.throws(() => removeBundle(bundle.directory), {
      code: 'MOUNT_BUSY',
      hint: `Unmount it first: lamina umount ${bundle.rootfs}`,
    });
    t.strictSame(readdirSync(bundle.directory).length, 3);
  } finally {
    run('umount', [bundle.rootfs]);
  }
  removeBundle(bundle.directory);
  t.notOk(existsSync(bundle.directory));
  t.end();
});

/** How a runtime can be started on this machine: the words before `run -b ..`. */
type Runtime = readonly string[];

/** crun wants cgroup v2 alone; a mount namespace with nothing else, and no cgroup of its own, does where it is mixed. */
const unifiedCgroups = 'umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"';

const ways: Record<'runc' | 'crun', Runtime[]> = {
  runc: [['runc']],
  crun: [['crun'], ['unshare', '-m', 'sh', '-c', unifiedCgroups, 'sh', 'crun', '--cgroup-manager=disabled']],
};

/** A shell and what it is linked with. */
function fillRootfs(directory: string): void {
  const libraries = run('ldd', ['/bin/sh']).match(/\/\S+/g) ?? [];
  for (const path of ['/bin/sh', ...libraries]) {
    const target = join(directory, path);
    run('mkdir', ['-p', join(target, '..')]);
    run('cp', ['-L', path, target]);
  }
}

function start(runtime: Runtime, directory: string): { status: number | null; stdout: string; stderr: string } {
  const state = join(directory, '..', 'state');
  const [program = '', ...words] = [...runtime, '--root', state, 'run', '-b', directory, `lamina-test-${process.pid}`];
  return spawnSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** A way in which the runtime runs a bundle of its own making here, or why there is none. */
function findWay(name: 'runc' | 'crun'): Runtime | string {
  if (asRoot !== false) return asRoot;
  if (spawnSync(name, ['--version']).error !== undefined) return `${name} is not installed`;
  const dir = mkdtempSync(join(tmpdir(), 'lamina-probe-'));
  try {
    const bundle = join(dir, 'b');
    mkdirSync(join(bundle, 'rootfs'), { recursive: true });
    fillRootfs(join(bundle, 'rootfs'));
    run(name, ['spec'], bundle);
    const path = join(bundle, 'config.json');
    const spec = JSON.parse(readFileSync(path, 'utf8')) as { process: { terminal: boolean; args: string[] } };
    Object.assign(spec.process, { terminal: false, args: ['/bin/sh', '-c', 'exit 0'] });
    writeFileSync(path, JSON.stringify(spec));
    let refusal = '';
    for (const way of ways[name]) {
      const { status, stderr } = start(way, bundle);
      if (status === 0) return way;
      refusal = stderr;
    }
    return `${name} cannot run its own spec here: ${refusal.trim()}`;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const script = `
echo "cwd=$PWD home=$HOME greeting=$GREETING args=$*"
while read -r key rest; do case $key in Uid:|Gid:|Groups:|CapBnd:|NoNewPrivs:) echo "$key" $rest;; esac; done </proc/self/status
read -r name </proc/sys/kernel/hostname; echo "hostname=$name"
(echo x >/root-file) 2>/dev/null || echo "root is read-only"
echo x >/data/file && echo "volume is writable"
(echo x >/in/file) 2>/dev/null || echo "bind is read-only"
read -r line </in/hello; echo "$line"
(echo x >/proc/sys/kernel/hostname) 2>/dev/null || echo "sysctl is read-only"
exit 7
`;

for (const name of ['runc', 'crun'] as const) {
  const way = findWay(name);
  t.test(`${name} runs a bundle (B012, B013)`, { skip: typeof way === 'string' && way }, (t) => {
    const dir = temporary(t);
    mkdirSync(join(dir, 'in'));
    writeFileSync(join(dir, 'in/hello'), 'hello\n');
    const files = rootfs({ '/etc/passwd': 'app:x:1000:1001::/home/app:\n', '/etc/group': 'log:x:4:app\nx:x:5:app\n' });
    const spec = runtimeConfig(
      image({
        user: 'app',
        entrypoint: ['/bin/sh', '-c', script, 'sh'],
        cmd: ['a', 'b c'],
        env: ['GREETING=hej'],
        workingDir: '/srv',
        volumes: ['/data'],
        exposedPorts: ['80/tcp'],
        labels: { a: 'b' },
      }),
      files,
      {
        readonlyRootfs: true,
        terminal: false,
        volumes: [{ source: join(dir, 'in'), destination: '/in', readonly: true }],
      },
    );
    const bundle = makeBundle(join(dir, 'bundle'), spec.config);
    fillRootfs(bundle.rootfs);
    const { status, stdout, stderr } = start(way as Runtime, bundle.directory);
    t.equal(stderr, '');
    t.equal(status, 7);
    t.strictSame(stdout.trimEnd().split('\n'), [
      'cwd=/srv home=/home/app greeting=hej args=a b c',
      'Uid: 1000 1000 1000 1000',
      'Gid: 1001 1001 1001 1001',
      'Groups: 4 5',
      'CapBnd: 0000000020000420',
      'NoNewPrivs: 1',
      'hostname=lamina',
      'root is read-only',
      'volume is writable',
      'bind is read-only',
      'hello',
      'sysctl is read-only',
    ]);
    t.end();
  });
}
