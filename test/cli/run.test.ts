/** bundle and run, under a real runtime. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { Test } from 'tap';
import { killDaemon } from '../../scripts/leftovers.js';
import { findExecutable } from '../../src/mount/executable.js';
import type { MountStatus } from '../../src/daemon/protocol.js';
import { makesNamespaces } from '../support/namespaces.js';
import { cliPath, lamina, runCommand, type CliOptions, type CliResult } from '../support/cli.js';
import { until } from '../support/daemon.js';
import { isRoot, skipUnless } from '../support/skip.js';
import type { MadeImage } from '../support/images.js';
import { tempDir } from '../support/tmp.js';
import { startIndexing } from './indexing.js';
import { makeShellImage } from './shell-image.js';

const hasRunc = spawnSync('runc', ['--version']).status === 0;

interface Place {
  readonly directory: string;
  readonly image: MadeImage;
  readonly env: Readonly<Record<string, string>>;
  readonly lamina: (args: readonly string[], options?: CliOptions) => Promise<CliResult>;
  /** Nothing of a container is left: no mount, no bundle, no state of the runtime, no overlay. */
  readonly clean: () => Promise<void>;
}

async function place(t: Test, config: Record<string, unknown> = {}): Promise<Place> {
  const directory = tempDir(t);
  const image = await makeShellImage(join(directory, 'image'), config);
  const run = join(directory, 'run');
  const store = join(directory, 'store');
  const env = { LAMINA_STORE: store, LAMINA_RUN: run, LAMINA_RUNTIME: 'runc' };
  t.teardown(() => killDaemon(run));
  const onPlace = (args: readonly string[], options: CliOptions = {}): Promise<CliResult> =>
    lamina(args, { cwd: directory, ...options, env: { ...env, ...options.env } });
  return {
    directory,
    image,
    env,
    lamina: onPlace,
    async clean() {
      t.equal((await onPlace(['mounts', '-q'])).stdout, '', 'no mount is left');
      const listed = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);
      t.strictSame([...listed(join(run, 'bundles')), ...listed(join(store, 'overlays'))], [], 'no bundle, no overlay');
      const { stdout } = await runCommand('runc', ['list', '-f', 'json']);
      t.notMatch(stdout, directory, 'the runtime knows no container');
    },
  };
}

t.before(makesNamespaces);

t.test('run', async (t) => {
  if (skipUnless(t, isRoot && hasRunc, 'needs root and runc')) return;
  const {
    directory,
    image,
    lamina: onPlace,
    clean,
  } = await place(t, {
    User: 'app',
    Env: ['GREETING=hej'],
    WorkingDir: '/tmp',
    Cmd: ['/bin/sh', '-c', 'echo $GREETING $PWD $HOME; exit 7'],
  });
  const { reference } = image;

  const own = await onPlace(['run', reference]);
  t.equal(own.stdout, 'hej /tmp /home/app\n', own.stderr);
  t.equal(own.code, 7, "the container's exit code");
  t.notMatch((await onPlace(['run', '-q', reference])).stderr, /./, 'nothing of ours with -q');

  mkdirSync(join(directory, 'shared'));
  writeFileSync(join(directory, 'shared/in'), 'from outside\n');
  const script = [
    'echo "args $0 $*"',
    'echo "$A|$B|$C|$PWD"',
    'read -r line </v/in && echo "$line"',
    '(echo x >/v/out) 2>/dev/null || echo "v is read-only"',
    'echo x >/w/out',
    'echo y >/etc/new && read -r line </etc/new && echo "root is writable: $line"',
  ].join('; ');
  const full = await onPlace(
    ['run', '--rm', '-e', 'A=1', '--env', 'B', '-e', 'C', '-v', './shared:/v:ro', '--volume', `${directory}/shared:/w`]
      .concat(['-w', '/etc', '-u', '0:0', reference])
      .concat(['sh', '-c', script, '-q', '--json', '--', 'x']),
    { env: { B: 'ours', C: undefined } },
  );
  t.strictSame(
    full.stdout.split('\n'),
    ['args -q --json -- x', '1|ours||/etc', 'from outside', 'v is read-only', 'root is writable: y', ''],
    full.stderr,
  );
  t.equal(readFileSync(join(directory, 'shared/out'), 'utf8'), 'x\n');

  const readOnly = await onPlace(['run', '--read-only', '-u', 'root', reference, 'sh', '-c', 'echo x >/etc/new']);
  t.not(readOnly.code, 0);
  t.match(readOnly.stderr, /Read-only file system/);

  t.equal((await onPlace(['run', '-i', reference, 'cat'], { input: 'in\n' })).stdout, 'in\n');
  t.equal((await onPlace(['run', reference, 'cat'], { input: 'in\n' })).stdout, '', 'without -i it has no input');
  await clean();
});

t.test('run tells its own failures from the container', async (t) => {
  if (skipUnless(t, isRoot && hasRunc, 'needs root and runc')) return;
  const { image, lamina: onPlace, clean } = await place(t);
  const { reference } = image;
  const cases: [string[], RegExp, Record<string, string>?][] = [
    [[reference], /it names no command|neither Entrypoint nor Cmd/],
    [[reference, 'nonesuch'], /Cannot run the container: .*nonesuch/],
    [['-u', 'nobody-here', reference, 'sh'], /no user "nobody-here"/],
    [['./absent', 'sh'], /no such file/],
    [['--runtime', 'no-such-runtime', reference, 'sh'], /there is no no-such-runtime here/],
    [[reference, 'sh'], /there is no nor-this here/, { LAMINA_RUNTIME: 'nor-this' }],
    [['--runtime', '/etc/passwd', reference, 'sh'], /there is no \/etc\/passwd here/],
  ];
  for (const [args, message, env = {}] of cases) {
    const { code, stdout, stderr } = await onPlace(['run', ...args], { env });
    t.equal(code, 125, args.join(' '));
    t.equal(stdout, '');
    t.match(stderr, message);
  }
  const noTerminal = await onPlace(['run', '-t', reference, 'sh']);
  t.equal(noTerminal.code, 2);
  t.match(noTerminal.stderr, /none of stdin, stdout and stderr is one/);
  await clean();
});

t.test('run passes signals on and cleans up', async (t) => {
  if (skipUnless(t, isRoot && hasRunc, 'needs root and runc')) return;
  const { image, env, clean } = await place(t);
  const start = (script: string): { exit: Promise<unknown>; kill: (s: NodeJS.Signals) => void; said: () => string } => {
    const child = spawn(process.execPath, [cliPath, 'run', image.reference, 'sh', '-c', script], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let stdout = '';
    child.stdout.on('data', (bytes: Buffer) => (stdout += bytes.toString()));
    return { exit: once(child, 'close'), kill: (signal) => child.kill(signal), said: () => stdout };
  };
  for (const signal of ['TERM', 'INT', 'HUP', 'USR1'] as const) {
    const container = start(`trap 'echo got; exit 9' ${signal}; echo ready; while :; do sleep 0.05; done`);
    await until(() => container.said().includes('ready'), 20_000);
    container.kill(`SIG${signal}`);
    t.strictSame(await container.exit, [9, null], signal);
    t.equal(container.said(), 'ready\ngot\n', 'once');
  }
  const stubborn = start('trap "" INT; echo ready; sleep 100');
  await until(() => stubborn.said().includes('ready'), 20_000);
  for (let i = 0; i < 3; i++) {
    stubborn.kill('SIGINT');
    // Two that come before the first has been seen are one.
    await sleep(500);
  }
  t.strictSame(await stubborn.exit, [137, null], 'the third kills');
  await clean();
});

t.test('run that is stopped while its image is prepared leaves nothing', async (t) => {
  if (skipUnless(t, isRoot && hasRunc, 'needs root and runc')) return;
  const { directory, env, lamina: onPlace, clean } = await place(t);
  await onPlace(['daemon', 'start']);
  const { interrupt } = await startIndexing(directory, env, (reference) => ['run', reference, 'true']);
  t.equal(readdirSync(join(env['LAMINA_RUN']!, 'bundles')).length, 1);
  t.strictSame(await interrupt(), [130, null]);
  await clean();
});

t.test('run with a terminal', async (t) => {
  if (skipUnless(t, isRoot && hasRunc, 'needs root and runc')) return;
  const { image, env, clean } = await place(t);
  const script = 'test -t 0 && test -t 1 && echo "terminal $TERM"';
  const command = [process.execPath, cliPath, 'run', '-it', image.reference, 'sh', '-c', `'${script}'`].join(' ');
  const result = await runCommand('script', ['-qec', command, '/dev/null'], { env });
  t.equal(result.code, 0, result.stdout);
  t.match(result.stdout, /terminal xterm/);
  await clean();
});

t.test('bundle', async (t) => {
  if (skipUnless(t, isRoot && hasRunc, 'needs root and runc')) return;
  const {
    directory,
    image,
    lamina: onPlace,
    clean,
  } = await place(t, { Cmd: ['/bin/sh', '-c', 'echo own; echo x >/tmp/x'] });
  const { reference } = image;
  const bundle = join(directory, 'b');
  const id = `lamina-test-bundle-${process.pid}`;
  const runc = (): Promise<CliResult> => runCommand('runc', ['run', '--bundle', bundle, id]);

  const made = await onPlace(['bundle', reference, 'b']);
  t.equal(made.code, 0, made.stderr);
  t.match(made.stderr, `runc run --bundle ${bundle} NAME`);
  const ran = await runc();
  t.equal(ran.stdout, 'own\n');
  t.match(ran.stderr, /Read-only/);
  const again = await onPlace(['bundle', reference, 'b']);
  t.equal(again.code, 1);
  t.match(again.stderr, /there is one in/);
  t.equal((await onPlace(['bundle', '--remove', 'b'])).code, 0);
  t.notOk(existsSync(bundle));

  const writable = await onPlace([
    'bundle',
    '--json',
    '--rw',
    '--arg',
    'sh',
    '--arg',
    '-c',
    '--arg',
    'echo $0; echo x >/x',
    '--arg',
    'z',
    reference,
    'b',
  ]);
  const answer = JSON.parse(writable.stdout) as { bundle: string; mount: MountStatus };
  t.match(answer, { bundle, mount: { mountpoint: join(bundle, 'rootfs'), configDigest: image.config.digest } });
  t.type(answer.mount.upper, 'string');
  t.strictSame((await runc()).stdout, 'z\n');
  t.ok(existsSync(join(bundle, 'rootfs/x')));
  const removed = await onPlace(['bundle', '-q', '--remove', bundle]);
  t.equal(removed.stdout, `${bundle}\n`);

  const failed = await onPlace(['bundle', `oci:${image.directory}:nonesuch`, 'b']);
  t.equal(failed.code, 4, failed.stderr);
  mkdirSync(bundle, { mode: 0o700 });
  mkdirSync(join(bundle, 'rootfs'));
  writeFileSync(join(bundle, 'rootfs/file'), '');
  t.equal((await onPlace(['bundle', reference, 'b'])).code, 1);
  t.strictSame(readdirSync(bundle), ['rootfs'], 'nothing is left of what failed');
  t.equal((await onPlace(['bundle', '--remove', 'b'])).code, 1, 'what is no bundle of ours stays');
  await clean();
});

t.test('a runtime is never taken from the working directory', async (t) => {
  const directory = tempDir(t);
  writeFileSync(join(directory, 'some-runtime'), '#!/bin/sh\n', { mode: 0o755 });
  const before = process.cwd();
  process.chdir(directory);
  t.teardown(() => process.chdir(before));
  for (const PATH of [undefined, '', ':', `/nowhere:`, '.']) {
    t.equal(findExecutable('some-runtime', PATH === undefined ? {} : { PATH }), undefined, `PATH=${PATH}`);
  }
  t.equal(findExecutable('some-runtime', { PATH: directory }), join(directory, 'some-runtime'));
  t.equal(findExecutable('./some-runtime', {}), './some-runtime', 'but where it is asked for');
});
