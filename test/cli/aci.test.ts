/** appc images from the command line: looked into, mounted by both engines, run. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { directory, file, makeAci } from '../support/aci.js';
import { startDaemon } from '../support/daemon.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { lamina } from '../support/cli.js';
import { programsWithLibraries } from './shell-image.js';

const hasRunc = spawnSync('runc', ['--version']).status === 0;

async function images(dir: string): Promise<{ top: string; deps: string }> {
  const deps = join(dir, 'deps');
  const tools = programsWithLibraries().map((path) => file(path.slice(1), readFileSync(path), 0o755));
  await makeAci(join(deps, 'tools.aci'), {
    manifest: { name: 'example.com/tools' },
    entries: [...tools, directory('data'), file('data/.wh.kept', 'kept'), file('secret')],
  });
  const top = await makeAci(join(dir, 'app.aci'), {
    manifest: {
      labels: [{ name: 'os', value: 'linux' }],
      app: {
        exec: ['/bin/sh', '-c', 'cat /greeting /data/.wh.kept; echo $NAME; echo x > /work/x && echo written'],
        user: '/greeting',
        group: '5',
        environment: [{ name: 'NAME', value: 'value' }],
        mountPoints: [{ name: 'work', path: '/work' }],
      },
      dependencies: [{ imageName: 'example.com/tools' }],
      pathWhitelist: [
        ...programsWithLibraries(),
        ...['/data/.wh.kept', '/greeting', '/proc', '/sys', '/dev', '/work', '/tmp'],
      ],
    },
    entries: [
      { name: 'rootfs/greeting', content: 'hello\n', uid: 1234, gid: 1 },
      ...['proc', 'sys', 'dev', 'work', 'tmp'].map((name) => directory(name)),
    ],
  });
  return { top: top.path, deps };
}

t.test('ls, cat, inspect, verify, help', async (t) => {
  const dir = tempDir(t);
  const { top, deps } = await images(dir);
  const env = { LAMINA_STORE: join(dir, 'store'), LAMINA_RUN: join(dir, 'run') };
  const missing = await lamina(['ls', top], { env });
  t.equal(missing.code, 4);
  t.match(missing.stderr, /depends on example\.com\/tools, which is not there.*--aci-path DIR/s);

  const listed = await lamina(['ls', `aci:${top}`, '/', '--aci-path', 'deps'], { env, cwd: dir });
  t.match(listed.stdout, /^bin\ndata\ndev\ngreeting\n/);
  t.notMatch(listed.stdout, /secret|manifest/);
  const byVariable = { ...env, LAMINA_ACI_PATH: `${join(dir)}:${deps}` };
  t.equal((await lamina(['cat', top, '/data/.wh.kept'], { env: byVariable })).stdout, 'kept');
  const inspected = await lamina(['inspect', '--json', top], { env: byVariable });
  t.match(JSON.parse(inspected.stdout), {
    reference: `aci:${top}`,
    configDigest: /^sha512:/,
    config: { cmd: ['/bin/sh', '-c', /cat/], user: '/greeting:5', volumes: ['/work'] },
    layers: [{ index: { indexed: true } }, { index: { indexed: true } }],
  });
  const verified = await lamina(['verify', top], { env: byVariable });
  t.equal(verified.code, 0);
  t.match((await lamina(['help'])).stdout, /aci:FILE/);
});

t.test('mount, with both engines; run', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const daemon = await startDaemon(t);
  const { top, deps } = await images(daemon.directory);
  for (const engine of ['fuse', 'auto']) {
    const mountpoint = join(daemon.directory, engine);
    mkdirSync(mountpoint);
    const mounted = await daemon.lamina(['mount', '--engine', engine, '--aci-path', deps, top, mountpoint]);
    t.equal(mounted.code, 0, mounted.stderr);
    t.strictSame(readdirSync(join(mountpoint, 'data')), ['.wh.kept']);
    t.equal(execFileSync('stat', ['-c', '%u:%g %s', join(mountpoint, 'greeting')], { encoding: 'utf8' }), '1234:1 6\n');
    t.ok(readFileSync(join(mountpoint, 'bin/sh')).equals(readFileSync('/bin/sh')));
    t.equal((await daemon.lamina(['umount', mountpoint])).code, 0);
  }
  if (!hasRunc) return;
  const run = await daemon.lamina(['run', '--rm', '--runtime', 'runc', '--aci-path', deps, top]);
  t.equal(run.stdout, 'hello\nkeptvalue\nwritten\n', run.stderr);
  t.match(run.stderr, /expects data at "\/work"/);
  const args = ['run', '--rm', '--runtime', 'runc', '--aci-path', deps, top, '/bin/sh', '-c', 'exit 7'];
  t.equal((await daemon.lamina(args)).code, 7);
});
