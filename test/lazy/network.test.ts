/** Lazy layers and the registry that they are in: whose credentials, how far, cut off, gone, and misbehaving. */
import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { DaemonStatus } from '../../src/daemon/protocol.js';
import { watchesMounts } from '../support/namespaces.js';
import { runCommand } from '../support/cli.js';
import { startDaemon, until, type TestDaemon } from '../support/daemon.js';
import { makeEstargz } from '../support/estargz.js';
import { isBlob, type Fault } from '../support/fault-proxy.js';
import { makeLayout } from '../support/images.js';
import { password, push, startRegistry, user } from '../support/registry.js';
import { tempDir } from '../support/tmp.js';
import type { Entry } from '../support/tar.js';
import {
  LARGE,
  NO_BACKGROUND,
  cannotLoadFuseNative,
  cannotRun,
  contents,
  entries,
  mounted,
  serveEstargz,
} from './served.js';

t.before(watchesMounts);

async function errnoOf(read: Promise<unknown>): Promise<string | undefined> {
  return read.then(
    () => undefined,
    (e: unknown) => (e as { code?: string }).code,
  );
}

/** An eStargz that is given only to who has a password, and a daemon. */
async function servePrivate(t: Test): Promise<{ daemon: TestDaemon; reference: string }> {
  const registry = await startRegistry(t, { auth: true });
  const { tar, blob, annotations } = await makeEstargz(entries, { chunkSize: 256 * 1024 });
  const image = await makeLayout(tempDir(t), { layers: [{ tar, blob, annotations }] });
  push(image.reference, registry.host, 'private:1', ['--dest-creds', `${user}:${password}`]);
  return { daemon: await startDaemon(t, undefined, NO_BACKGROUND), reference: `docker://${registry.host}/private:1` };
}

t.test('What was typed as --creds is known after a crash of the server, and in no file', async (t) => {
  if (cannotRun(t)) return;
  const { daemon, reference } = await servePrivate(t);
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse', '--creds', `${user}:${password}`);
  await readFile(join(mountpoint, 'd/small-1'));
  const { stdout } = await daemon.lamina(['daemon', 'status', '--json']);
  process.kill((JSON.parse(stdout) as DaemonStatus).serverPid, 'SIGKILL');
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE), 'what had to be fetched after it');
  const found = await runCommand('grep', ['-rl', password, daemon.run, daemon.store]);
  t.strictSame([found.code, found.stdout], [1, ''], 'no file has the password');
});

t.test('What was typed as --creds is known to the process of fuse-native', async (t) => {
  if (cannotRun(t) || cannotLoadFuseNative(t)) return;
  const { daemon, reference } = await servePrivate(t);
  const creds = ['--creds', `${user}:${password}`];
  const mountpoint = await mounted(daemon, reference, '--transport', 'fuse-native', ...creds);
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE));
});

t.test('Of a registry that is far, more is asked for at once', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  const lengths = async (mountpoint: string, names: readonly string[]): Promise<number[]> => {
    const before = proxy.seen.length;
    for (const name of names) await readFile(join(mountpoint, name));
    const ranges = proxy.seen.slice(before).map(({ range }) => /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? []);
    return ranges.map(([, from, to]) => Number(to) + 1 - Number(from));
  };
  const nearby = await mounted(daemon, reference, '--engine', 'fuse');
  // On a busy machine the first answers may take as long as from afar.
  await lengths(nearby, ['d/small-130', 'd/small-100', 'd/small-70', 'd/small-30']);
  const near = await lengths(nearby, ['d/small-250', 'd/small-200']);
  t.ok(
    near.some((length) => length < 96 * 1024),
    `near: ${near.join()}`,
  );
  proxy.fault = (passing) => (isBlob(passing) ? { delayMs: 100 } : undefined);
  const other = await startDaemon(t, undefined, NO_BACKGROUND);
  const far = await lengths(await mounted(other, reference, '--engine', 'fuse'), ['d/small-180', 'd/small-5']);
  t.ok(
    far.every((length) => length >= 96 * 1024),
    `far: ${far.join()}`,
  );
});

t.test('What was read of a lazy layer needs no registry, the rest fails until it is back', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  const small = await readFile(join(mountpoint, 'd/small-3'));
  proxy.fault = () => ({ hang: true });
  await daemon.lamina(['umount', '--all']);
  const offline = await mounted(daemon, reference, '--engine', 'fuse', '--offline');
  t.ok((await readFile(join(offline, 'd/small-3'))).equals(small), 'what was read before');
  t.equal(await errnoOf(readFile(join(offline, 'large'))), 'EIO');
  t.match(daemon.log(), /must not be asked/);
  await daemon.lamina(['umount', '--all']);

  const again = await mounted(daemon, reference, '--engine', 'fuse');
  const beside = await mounted(daemon, reference, '--engine', 'fuse', '--offline');
  const slow = errnoOf(readFile(join(again, 'other')));
  t.ok((await readFile(join(again, 'd/small-3'))).equals(small), 'a cached read does not wait behind one that hangs');
  t.equal(await slow, 'EIO', 'which ends in a bounded time');
  t.match(daemon.log(), /sends nothing of sha256/);
  proxy.fault = undefined;
  t.ok((await readFile(join(again, 'large'))).equals(LARGE), 'and when the registry is back, all is well');
  t.equal((await daemon.lamina(['umount', beside])).code, 0, 'whether or not the image is mounted offline beside');
});

t.test('A server that is killed while a read waits for the registry is replaced, and the read answered', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  proxy.fault = (passing) => (isBlob(passing) ? { delayMs: 500 } : undefined);
  const reading = readFile(join(mountpoint, 'large'));
  const asked = proxy.seen.length;
  await until(() => proxy.seen.length > asked, 5000);
  const { stdout } = await daemon.lamina(['daemon', 'status', '--json']);
  process.kill((JSON.parse(stdout) as { serverPid: number }).serverPid, 'SIGKILL');
  t.ok((await reading).equals(LARGE));
});

t.test('Layers are completed when nobody reads, and verified as a whole', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon } = await serveEstargz(t);
  await daemon.stop();
  const completing = await startDaemon(t, daemon.directory);
  t.equal((await completing.lamina(['daemon', 'pause'])).code, 0);
  await mounted(completing, reference);
  const status = async (): Promise<DaemonStatus> =>
    JSON.parse((await completing.lamina(['daemon', 'status', '--json'])).stdout) as DaemonStatus;
  const { background, serverPid } = await status();
  t.equal(background, 'paused');
  process.kill(serverPid, 'SIGKILL');
  t.equal((await status()).background, 'paused', 'and so it stays');
  await sleep(5000);
  t.ok(
    (await contents(completing)).some(({ fetched, size }) => fetched < size),
    'nothing comes that nobody reads',
  );
  t.equal((await completing.lamina(['daemon', 'resume'])).code, 0);
  const done = await until(
    async () => (await contents(completing)).every(({ fetched, size }) => fetched === size),
    60_000,
  );
  t.ok(done, 'all of it is here');
  t.ok(await until(() => completing.log().includes('a layer is here as a whole'), 5000));
  await proxy.stop();
  await completing.lamina(['umount', '--all']);
  const mountpoint = await mounted(completing, reference);
  t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE), 'the registry is not needed any more');
});

/** Faults that a read of a lazy layer meets. `ends`: right, or failed with EIO; never anything else. */
const faults: readonly {
  readonly name: string;
  readonly fault: (n: number) => Fault | undefined;
  readonly ends: string;
}[] = [
  { name: 'latency of 50 ms', fault: () => ({ delayMs: 50 }), ends: 'right' },
  { name: '1 MB/s', fault: () => ({ bytesPerSecond: 1_000_000 }), ends: 'right' },
  {
    name: 'cut after 10 kB, every other',
    fault: (n) => (n % 2 === 0 ? { cutAfter: 10_000 } : undefined),
    ends: 'right',
  },
  { name: '500 twice', fault: (n) => (n <= 2 ? { status: 500 } : undefined), ends: 'right' },
  {
    name: '429, once',
    fault: (n) => (n <= 1 ? { status: 429, headers: { 'retry-after': '1' } } : undefined),
    ends: 'right',
  },
  { name: '200 to a range', fault: () => ({ ignoreRange: true }), ends: 'right' },
  { name: 'a wrong range, once', fault: (n) => (n <= 1 ? { shiftRange: 4096 } : undefined), ends: 'right' },
  { name: 'a wrong byte, once', fault: (n) => (n <= 1 ? { flipAt: 1000 } : undefined), ends: 'right' },
  { name: 'wrong bytes always', fault: () => ({ garble: true }), ends: 'EIO' },
  { name: 'wrong ranges always', fault: () => ({ shiftRange: 4096 }), ends: 'EIO' },
  { name: 'stalls after 5 kB, once', fault: (n) => (n <= 1 ? { stallAfter: 5000 } : undefined), ends: 'right' },
  { name: 'hangs', fault: () => ({ hang: true }), ends: 'EIO' },
  { name: '404', fault: () => ({ status: 404 }), ends: 'EIO' },
  { name: '401', fault: () => ({ status: 401 }), ends: 'EIO' },
];

/** Far from each other in the layer; read at the same time. */
const readUnderFaults = entries.filter(({ name }) =>
  ['d/small-20', 'd/small-150', 'd/small-290', 'other'].includes(name),
);

t.test('Reads of a lazy layer are right or EIO, whatever the network does, and never wrong', async (t) => {
  if (cannotRun(t)) return;
  const { reference, proxy, daemon, digest } = await serveEstargz(t);
  const tables = await mounted(daemon, reference, '--engine', 'fuse');
  t.equal((await daemon.lamina(['umount', tables])).code, 0);
  for (const { name, fault, ends } of faults) {
    for (const part of ['blobs', 'layers']) execFileSync('rm', ['-rf', join(daemon.store, part)]);
    execFileSync('mkdir', [join(daemon.store, 'blobs'), join(daemon.store, 'layers')]);
    proxy.fault = undefined;
    const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
    let n = 0;
    proxy.fault = (passing) => (isBlob(passing) && passing.url.includes(digest) ? fault(++n) : undefined);
    const outcomes = { right: 0, EIO: 0, wrong: 0 };
    const read = async ({ name: file, content = '' }: Entry): Promise<void> => {
      const got = await readFile(join(mountpoint, file)).catch((e: unknown) => (e as { code: string }).code);
      const outcome =
        got === 'EIO' ? 'EIO' : typeof got !== 'string' && got.equals(Buffer.from(content)) ? 'right' : 'wrong';
      outcomes[outcome]++;
    };
    await Promise.all(readUnderFaults.map(read));
    t.same(outcomes, { right: 0, EIO: 0, wrong: 0, [ends]: readUnderFaults.length }, `${name} (${n} requests)`);
    proxy.fault = undefined;
    t.ok((await readFile(join(mountpoint, 'large'))).equals(LARGE), 'and then all is well');
    t.equal((await daemon.lamina(['umount', mountpoint])).code, 0);
  }
});
