/** Parts of the daemon that need no process. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { join } from 'node:path';
import t from 'tap';
import { Background } from '../../src/daemon/background.js';
import { withDeadline } from '../../src/daemon/deadline.js';
import { Repetitions, type Logger } from '../../src/daemon/log.js';
import { isAlive } from '../../src/daemon/process.js';
import { Records, type MountRecord } from '../../src/daemon/records.js';
import { RestartPause } from '../../src/daemon/restart-pause.js';
import { RunDir } from '../../src/daemon/run-dir.js';
import { Serial } from '../../src/daemon/serial.js';
import { Slots } from '../../src/daemon/slots.js';
import { parseDigest } from '../../src/digest/index.js';
import { LaminaError } from '../../src/errors.js';
import type { PreparedLayer } from '../../src/image/known-layer.js';
import { Counters, createCounterMemory } from '../../src/mount/counters.js';
import { BlobFs } from '../../src/mount/blobfs.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { openHint } from '../../src/mount/fuse-mount.js';
import { LayerReaders, type LayerSource } from '../../src/mount/layer-readers.js';
import { mountAt, mountOf, readMountInfo } from '../../src/mount/mountinfo.js';
import { until } from '../support/daemon.js';
import { tempDir } from '../support/tmp.js';

function layer(hex: string, path = '/blob', view = ''): PreparedLayer {
  return {
    diffId: parseDigest(`sha256:${hex.repeat(64)}`),
    directory: `/layers/${hex}${view}`,
    index: 'tar',
    mapPath: '/m',
    blob: { kind: 'file', path, offset: 0, size: 1 },
    addressSpace: 1024,
    compression: 'gzip',
    points: 1,
    kept: 0,
    cached: true,
  };
}

t.test('Slots gives a layer one number and a number to one layer', async (t) => {
  const slots = new Slots();
  const numbers = (layers: PreparedLayer[], verify: 'every-read' | 'first-read' = 'every-read'): number[] =>
    slots.assign(layers, verify).map(({ slot }) => slot);
  t.strictSame(numbers([layer('a'), layer('b'), layer('a')]), [2, 3, 2], 'from 2 on: 1 is the root of blobfs');
  t.strictSame(numbers([layer('c'), layer('b', '/moved')]), [4, 3]);
  const placesOf = (slot: number): string[] => slots.places(slot).map(({ blob }) => blob.path);
  t.strictSame(placesOf(3), ['/blob', '/moved'], 'both places of the blob');
  t.notOk(slots.keepPlaces(3, slots.sources), 'all are needed');
  t.ok(slots.keepPlaces(3, slots.sources.slice(-1).concat(slots.places(3).slice(1))));
  t.strictSame(placesOf(3), ['/moved'], 'the mount that has it there is left');
  t.notOk(slots.keepPlaces(3, []), 'somebody may have it mounted elsewhere');
  t.strictSame(numbers([layer('b')], 'first-read'), [5], 'a laxer check is another matter');
  t.strictSame(numbers([layer('b', '/blob', '-aci'), layer('b', '/moved')]), [6, 3], 'so is another view');
  const forgotten: number[] = [];
  slots.onForget = (gone) => forgotten.push(...gone);
  slots.retain(new Set([3]));
  t.strictSame(forgotten.sort(), [2, 4, 5, 6]);
  t.strictSame(numbers([layer('b'), layer('a')]), [3, 7], 'a number is never used again');

  const next = new Slots();
  next.restore(slots.sources, slots.next);
  t.strictSame(
    next.assign([layer('b'), layer('d')], 'every-read').map(({ slot }) => slot),
    [3, 8],
  );
});

t.test('a process that has ended is none, though nobody has asked for it', async (t) => {
  // The second sleep takes the shell's place before the first has ended, and never waits for it.
  const parent = spawn('sh', ['-c', 'sleep 0.3 & echo $!; exec sleep 30'], { stdio: ['ignore', 'pipe', 'ignore'] });
  t.teardown(() => parent.kill('SIGKILL'));
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(line.toString());
  const stat = (): string => readFileSync(`/proc/${pid}/stat`, 'latin1');
  t.ok(await until(() => stat().includes(') Z '), 10_000), 'its number is still there');
  t.notOk(isAlive(pid));
  t.ok(isAlive(process.pid));
  t.notOk(isAlive(2 ** 22 + 1), 'beyond the largest number');
});

t.test('Serial runs tasks of one key in order and others side by side', async (t) => {
  const serial = new Serial();
  const log: string[] = [];
  const task = (name: string, ms: number) => async (): Promise<void> => {
    log.push(`${name}+`);
    await delay(ms);
    log.push(`${name}-`);
    if (name === 'a1') throw new Error(name);
  };
  t.notOk(serial.busy('a'));
  const done = Promise.allSettled([
    serial.run('a', task('a1', 30)),
    serial.run('a', task('a2', 0)),
    serial.run('b', task('b1', 5)),
  ]);
  t.ok(serial.busy('a'));
  t.strictSame(
    (await done).map(({ status }) => status),
    ['rejected', 'fulfilled', 'fulfilled'],
  );
  t.notOk(serial.busy('a'));
  t.strictSame(log, ['a1+', 'b1+', 'b1-', 'a1-', 'a2+', 'a2-']);
});

t.test('withDeadline waits no longer', async (t) => {
  t.equal(await withDeadline(Promise.resolve(7), 1000, 'Waiting'), 7);
  await t.rejects(withDeadline(new Promise(() => undefined), 10, 'Waiting'), {
    code: 'MOUNT_FAILED',
    message: /Waiting took longer/,
  });
});

t.test('a server that dies is followed at once, then later and later, and soon where it had served', async (t) => {
  const pause = new RestartPause();
  const times = (servedMs: readonly (number | undefined)[]): number[] => servedMs.map((ms) => pause.died(ms));
  const never = undefined;
  t.strictSame(times([never, never, never]), [0, 50, 150]);
  t.notOk(pause.hopeless);
  t.strictSame(times(Array<undefined>(8).fill(never)), [350, 750, 1550, 3150, 6350, 8000, 8000, 8000]);
  t.ok(pause.hopeless);
  t.strictSame(times([1, 1]), [1000, 1000], 'whatever was before');
  t.strictSame(times([never, never]), [2050, 4150]);
  t.strictSame(times([6000, 1]), [0, 50], 'after one that was well');
  t.notOk(pause.hopeless);
});

t.test('Repetitions lets one of a kind through each half minute', async (t) => {
  const repetitions = new Repetitions();
  t.equal(repetitions.report('x', 0), 0);
  t.equal(repetitions.report('x', 1), undefined);
  t.equal(repetitions.report('y', 1), 0);
  t.equal(repetitions.report('x', 29_999), undefined);
  t.equal(repetitions.report('x', 30_000), 2, 'and tells how many it held back');
  const many = Array.from({ length: 5000 }, (_, i) => repetitions.report(`key ${i}`, 60_000 + i));
  t.ok(many.filter((report) => report !== undefined).length <= 100, 'many kinds fill the log no faster');
  t.equal(repetitions.report('later', 100_000), 0);
});

t.test('Counters count by slot in memory that another thread reads', async (t) => {
  const memory = createCounterMemory();
  const writer = new Counters(memory);
  writer.add(2, 10, 20, 30);
  writer.add(2, 1, 2, 3);
  writer.add(3, 5, 0, 0);
  const reader = new Counters(memory);
  t.strictSame(reader.get(2), { served: 11, verified: 22, filled: 33 });
  t.strictSame(reader.get(3), { served: 5, verified: 0, filled: 0 });
  t.strictSame(reader.get(4), { served: 0, verified: 0, filled: 0 });
});

t.test('Records come back as they were written; half a file is passed over', async (t) => {
  const run = new RunDir(join(tempDir(t), 'run'));
  run.create();
  const records = new Records(run);
  const slots = new Slots();
  const layers = slots.assign([layer('a')], 'every-read');
  const record: MountRecord = {
    id: 'abc',
    mountpoint: '/m\u00e4nt',
    engine: 'fuse',
    transport: 'dev-fuse',
    nativePid: null,
    reason: 'asked for',
    reference: 'oci:/x:y',
    manifestDigest: null,
    configDigest: 'sha256:x',
    platform: 'linux/amd64',
    treePath: '/t',
    layers,
    overlay: { upper: '/u', work: '/w', ownedDirectory: null },
    subdir: '/usr/share',
    flags: ['nosuid'],
    idMap: { uid: [{ container: 0, host: 100_000, size: 65_536 }], gid: [] },
    imageDevice: '0:40',
    overlayDevice: null,
    ownsMountpoint: false,
    created: 2,
    negotiated: { minor: 45, flags: -1, flags2: 0, noOpen: true, noOpendir: true },
    detached: false,
  };
  records.put(record);
  records.put({ ...record, id: 'def', created: 1, overlay: null, negotiated: null });
  writeFileSync(run.record('half'), '{"id": "ha');
  mkdirSync(join(run.records, 'not-a-record'));
  const { records: read, unreadable } = records.all();
  t.strictSame(
    read.map(({ id }) => id),
    ['def', 'abc'],
    'in the order of their making',
  );
  t.strictSame(read[1], record);
  t.strictSame(unreadable, ['half.json']);
  records.remove('abc');
  records.remove('abc');
  t.equal(records.all().records.length, 1);

  t.equal(records.blobs(), undefined);
  const table = { nextSlot: 3, layers, connections: [{ key: 'blobs-1', negotiated: null }] };
  records.putBlobs(table);
  t.strictSame(records.blobs(), table);
  records.removeBlobs();
  t.equal(records.blobs(), undefined);
});

t.test('readMountInfo unescapes and finds what is on top', async (t) => {
  const mounts = readMountInfo(
    [
      '22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw',
      '40 27 0:39 / /a\\040b\\134c\\303\\244 ro - fuse.lamina oci:/x\\040y:latest ro,user_id=0',
      '41 27 0:40 / /a\\040b\\134c\\303\\244 ro - tmpfs over rw',
      'nonsense',
      '',
    ].join('\n'),
  );
  t.equal(mounts.length, 3);
  t.strictSame(mounts[1], {
    device: '0:39',
    mountpoint: '/a b\\c\u00e4',
    type: 'fuse.lamina',
    source: 'oci:/x y:latest',
  });
  t.equal(mountAt('/a b\\c\u00e4', mounts)?.source, 'over');
  t.equal(mountAt('/nowhere', mounts), undefined);
  t.equal(mountOf('/proc/self', mounts)?.type, 'proc');
  t.equal(mountOf('/a b\\c\u00e4/x', mounts)?.source, 'over', 'what is on top');
  t.equal(mountOf('/process', mounts), undefined);
});

t.test('the kernel engine is taken where the system has what it needs', async (t) => {
  const system = { uid: 0, release: '6.18.44-x', filesystems: 'nodev\tfuse\n\terofs\n' };
  t.equal(kernelEngineObstacle(system), undefined);
  t.equal(kernelEngineObstacle({ ...system, release: '7.0' }), undefined);
  t.match(kernelEngineObstacle({ ...system, uid: 1000 }) ?? '', /root/);
  t.match(kernelEngineObstacle({ ...system, release: '6.11.9' }) ?? '', /6\.12/);
  t.match(kernelEngineObstacle({ ...system, release: '5.15.0-generic' }) ?? '', /6\.12/);
  t.match(kernelEngineObstacle({ ...system, filesystems: 'nodev\tfuse\n' }) ?? '', /modprobe erofs/);
  t.match(kernelEngineObstacle(system, 70_000) ?? '', /65535/);
});

t.test('a layer that could not be completed is tried again, as a mount that is still there has it', async (t) => {
  const asked: string[] = [];
  const lines: string[] = [];
  const complete = async ({ access }: { access: { repository: string } }): Promise<void> => {
    if (asked.push(access.repository) < 3) throw new LaminaError('BLOB_MISSING', 'it is not there');
  };
  const say = (_facts: object, line: string): number => lines.push(line);
  const background = new Background({
    fetcher: { complete },
    log: { info: say, warn: say } as unknown as Logger,
    run: new RunDir(tempDir(t)),
    retryMs: 1,
  });
  const lazy = (repository: string): LayerSource => {
    const access = { host: 'localhost', repository, places: { env: {}, uid: 0 } };
    const digest = parseDigest(`sha256:${'e'.repeat(64)}`);
    const blob = { kind: 'registry', path: '/e', offset: 0, size: 1, digest, access } as const;
    return { ...layer('e'), slot: 2, mapPath: '', blob, verify: 'every-read' };
  };
  background.update([lazy('a')]);
  background.update([lazy('b')]);
  t.ok(await until(() => lines.includes('a layer is here as a whole'), 10_000));
  t.strictSame(asked, ['a', 'b', 'b']);
  t.equal(lines.filter((line) => line === 'a layer cannot be completed').length, 2, 'a line for each attempt');
});

t.test('blobfs knows its slots, "." and "..", and no other name', async (t) => {
  const layers = new LayerReaders({ memory: 1 });
  const fs = new BlobFs(layers);
  const lookup = (parent: number, name: string): number =>
    fs.lookup(parent, Buffer.from(`<${name}>`), 1, 1 + name.length);
  const [source] = new Slots().assign([layer('a')], 'every-read');
  if (source === undefined) throw new Error('No source');
  layers.set([source]);
  t.equal(lookup(1, '2'), 2);
  t.equal(lookup(1, '.'), 1);
  t.equal(lookup(2, '.'), 2, 'a file asked for by its handle');
  t.equal(lookup(2, '..'), 1);
  for (const name of ['.2', '..2', '...', '.x', '2.', '02', '3', 'x'])
    t.throws(() => lookup(1, name), { code: 'PATH_NOT_FOUND' }, name);
  layers.forget([2]);
  t.throws(() => lookup(1, '2'), { code: 'PATH_NOT_FOUND' }, 'a layer that was forgotten');
});

t.test('what is said of /dev/fuse fits the failure', async (t) => {
  t.match(openHint('EACCES'), /needs root/);
  t.match(openHint('EPERM'), /--device/);
  for (const code of ['ENOENT', 'ENODEV', undefined]) t.match(openHint(code), /modprobe fuse/);
});
