/** The control API, its client, and starting a daemon. Nothing is mounted here. */
import { chmod, mkdir, stat, symlink, writeFile } from 'node:fs/promises';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DaemonClient } from '../../src/daemon/client.js';
import { Control } from '../../src/daemon/control.js';
import { ensureDaemon } from '../../src/daemon/launch.js';
import { createLogger } from '../../src/daemon/log.js';
import { defaultRunDir, RunDir } from '../../src/daemon/run-dir.js';
import { packageVersion } from '../../src/daemon/version.js';
import { daemonProcesses, killDaemon } from '../../scripts/leftovers.js';
import { startDaemon, until } from '../support/daemon.js';
import { tempDir } from '../support/tmp.js';
import { failure } from '../support/failure.js';

t.test('requests are taken strictly', async (t) => {
  const daemon = await startDaemon(t);
  const control = (method: string, path: string, body?: unknown): ReturnType<typeof daemon.control> =>
    daemon.control(method, path, body);
  const status = await control('GET', '/v1/status');
  t.match(status, { status: 200, body: { version: packageVersion(), mounts: [], supervised: true, restarts: 0 } });
  t.match(packageVersion(), /^\d+\.\d+\.\d+/);

  const refused: [string, string, unknown][] = [
    ['POST', '/v1/mounts', {}],
    ['POST', '/v1/mounts', { reference: 'oci:/x:y', surprise: 1 }],
    ['POST', '/v1/mounts', { reference: 'oci:/x:y', mountpoint: 'relative' }],
    ['POST', '/v1/mounts', { reference: 'oci:/x:y', engine: 'magic' }],
    ['POST', '/v1/mounts', { reference: 'r'.repeat(9000) }],
    ['POST', '/v1/mounts', { reference: 'r', platform: 'p'.repeat(100_000) }],
    ['POST', '/v1/mounts', undefined],
    ['POST', '/v1/stop', { force: 'yes' }],
    ['POST', '/v1/stop', undefined],
    ['DELETE', '/v1/mounts', undefined],
    ['DELETE', '/v1/mounts?target=x&lazy=2', undefined],
    ['DELETE', '/v1/mounts?target=x&target=y', undefined],
    ['DELETE', '/v1/mounts?target=x&other=y', undefined],
  ];
  for (const [method, path, body] of refused) {
    const answer = await control(method, path, body);
    t.match(
      answer,
      { status: 400, body: { code: 'USAGE' } },
      `${method} ${path} ${JSON.stringify(body ?? null).slice(0, 60)}`,
    );
  }
  t.match(await control('GET', '/v1/nothing'), { status: 404, body: { code: 'USAGE' } });
  t.match(await control('PUT', '/v1/status'), { status: 404 });
  t.match(await control('DELETE', '/v1/mounts?target=/nowhere'), { status: 404, body: { code: 'MOUNT_NOT_FOUND' } });
  t.match(await control('DELETE', `/v1/mounts?target=${encodeURIComponent('\u00ff'.repeat(4000))}`), { status: 404 });
  t.match(await control('POST', '/v1/mounts', { reference: 'oci:/none:x' }), {
    status: 200,
    body: [{ type: 'error', error: { code: 'IMAGE_NOT_FOUND' } }],
  });
  await garbage(daemon.run);
  t.match(await control('GET', '/v1/mounts'), { status: 200, body: [] }, 'and the daemon lives');
});

/** Sends what is no HTTP; resolves when the daemon has closed the connection. */
function garbage(run: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(join(run, 'control.sock'), () => socket.end('\0\x01\x02 nothing like it\r\n\r\n'));
    socket.resume();
    socket.once('close', () => resolve());
    socket.once('error', reject);
  });
}

t.test('only its owner reaches the daemon', async (t) => {
  const { run } = await startDaemon(t);
  t.equal((await stat(join(run, 'control.sock'))).mode & 0o777, 0o600);
  t.equal((await stat(join(run, 'mounts'))).mode & 0o777, 0o700);
});

t.test('a run directory that others can change is not used', async (t) => {
  const dir = tempDir(t);
  const at = (name: string): RunDir => new RunDir(join(dir, name));
  t.equal(at('missing').check(), false);
  at('fine').create();
  t.equal(at('fine').check(), true);
  t.equal((await stat(join(dir, 'fine'))).mode & 0o777, 0o711);
  await mkdir(join(dir, 'open'));
  await chmod(join(dir, 'open'), 0o777);
  t.throws(() => at('open').create(), { code: 'PERMISSION_DENIED', message: /other users can write to it/ });
  await mkdir(join(dir, 'open/inner'), { mode: 0o700 });
  t.throws(() => at('open/inner').check(), { code: 'PERMISSION_DENIED', message: /its parent/ });
  await chmod(join(dir, 'open'), 0o1777);
  t.equal(at('open/inner').check(), true, 'a sticky parent is safe');
  t.throws(() => at('fine').check(12_345), { code: 'PERMISSION_DENIED', message: /belongs to user/ });
  await symlink('fine', join(dir, 'link'));
  t.throws(() => at('link').check(), { code: 'PERMISSION_DENIED', message: /not a directory/ });
  await writeFile(join(dir, 'file'), '');
  t.throws(() => at('file').check(), { code: 'PERMISSION_DENIED' });
  t.throws(() => at('file/below').create(), { code: 'IO' });
  await t.rejects(DaemonClient.connect(join(dir, 'link')), { code: 'PERMISSION_DENIED' });

  t.equal(defaultRunDir({ LAMINA_RUN: '/x' }, 0), '/x');
  t.equal(defaultRunDir({}, 0), '/run/lamina');
  t.equal(defaultRunDir({ XDG_RUNTIME_DIR: '/run/user/7' }, 7), '/run/user/7/lamina');
});

/** For a daemon that is started by what is tested; it does not outlive the test. */
function placeOf(t: Test, name = 'run'): { run: string; store: string } {
  const dir = tempDir(t);
  const run = join(dir, name);
  t.teardown(() => killDaemon(run));
  return { run, store: join(dir, 'store') };
}

t.test('a daemon is started where there is none, and only one', async (t) => {
  const place = placeOf(t);
  t.equal(await DaemonClient.connect(place.run), undefined);
  const clients = await Promise.all([ensureDaemon(place), ensureDaemon(place), ensureDaemon(place)]);
  const pids = new Set<number>();
  for (const client of clients) pids.add((await client.status()).supervisorPid);
  t.equal(pids.size, 1);
  t.equal((await stat(join(place.run, 'log'))).mode & 0o777, 0o600);
  await clients[0]?.stop();
  t.equal(await DaemonClient.connect(place.run), undefined);
  t.match(await failure(clients[1]?.status() ?? Promise.resolve()), { code: 'DAEMON_UNREACHABLE' });
});

t.test('a daemon that cannot start is given up with what it says', async (t) => {
  const { run, store } = placeOf(t);
  await writeFile(store, 'a file');
  const error = await failure(ensureDaemon({ run, store: join(store, 'below') }));
  t.equal(error.code, 'DAEMON_FAILED');
  t.match(error.message, /Cannot use the store .*store\/below/);
  t.match(error.hint ?? '', join(run, 'log'));
});

/** Has servers begin later, by as many milliseconds as the name of their run directory ends in. */
const LATE = `
  import { isMainThread } from 'node:worker_threads';
  const [, program = '', run = ''] = process.argv;
  const late = program.endsWith('/server.js') && isMainThread ? Number(/-(\\d+)$/.exec(run)?.[1] ?? 0) : 0;
  if (late > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, late);`;

t.test('on a busy machine a daemon is waited for, and given up, no differently', async (t) => {
  const before = process.env['NODE_OPTIONS'];
  process.env['NODE_OPTIONS'] = `--import=data:text/javascript,${encodeURIComponent(LATE)}`;
  t.teardown(() => {
    if (before === undefined) delete process.env['NODE_OPTIONS'];
    else process.env['NODE_OPTIONS'] = before;
  });
  const good = placeOf(t, 'run-12000');
  const bad = placeOf(t, 'run-5200');
  await writeFile(bad.store, 'a file');
  const [clients, error] = await Promise.all([
    Promise.all([ensureDaemon(good), ensureDaemon(good)]),
    failure(ensureDaemon({ ...bad, store: join(bad.store, 'below') })),
  ]);
  const [one, other] = await Promise.all(clients.map(async (client) => (await client.status()).supervisorPid));
  t.equal(one, other);
  t.match(error, { code: 'DAEMON_FAILED', message: /Cannot use the store/ });
  const isGone = (): boolean => !daemonProcesses().some(({ run }) => run === bad.run);
  t.ok(await until(isGone, 60_000), 'it is not started again for ever');
  await clients[0]?.stop();
});

t.test('the number of a dead daemon that is another process by now is no daemon', async (t) => {
  const { run } = placeOf(t);
  new RunDir(run).create();
  await writeFile(join(run, 'lock'), `${process.pid}\n`);
  t.equal(await DaemonClient.connect(run), undefined);
});

t.test('a stop whose client does not wait for the answer ends the daemon all the same', async (t) => {
  const socket = join(tempDir(t), 'control.sock');
  let letGo = (): void => undefined;
  const unmounted = new Promise<void>((resolve) => (letGo = resolve));
  const unused = (): Promise<never> => Promise.reject(new Error('not asked for'));
  let begun = (): void => undefined;
  const stopping = new Promise<void>((resolve) => (begun = resolve));
  const stopped = new Promise<void>((resolve) => {
    const stop = (): Promise<void> => {
      begun();
      return unmounted;
    };
    const handlers = {
      status: unused,
      mounts: unused,
      contents: unused,
      mount: unused,
      configure: unused,
      unmount: unused,
      background: () => undefined,
      stop,
      stopped: resolve,
    };
    const control = new Control(handlers, createLogger('test'));
    t.teardown(() => control.close());
    void control.listen(socket).then(() => {
      const client = connectSocket(socket, () => {
        client.write('POST /v1/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}');
      });
      void stopping.then(() => client.destroy());
      client.once('close', () => setTimeout(letGo, 100));
    });
  });
  await stopped;
  t.pass('it was told to end');
});
