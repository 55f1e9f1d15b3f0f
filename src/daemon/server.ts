/**
 * The server: serves every mount, and the control API. Started by the supervisor, which starts it again when it dies, so
 * whatever it cannot go on after kills it. Arguments: RUN STORE. Exit code 0 only when it was asked to stop.
 */
import { LaminaError } from '../errors.js';
import { PrepareThreads } from '../image/prepare-threads.js';
import { Fetcher } from '../source/fetch/fetcher.js';
import { cacheTime } from '../source/limits.js';
import { Store } from '../store/store.js';
import { Background } from './background.js';
import { BlobMount } from './blob-mount.js';
import { Broker } from './broker.js';
import { Connections } from './connections.js';
import { Control } from './control.js';
import { withDeadline } from './deadline.js';
import { takeLock } from './take-lock.js';
import { Repetitions, createLogger } from './log.js';
import { MountTable } from './mount-table.js';
import { NativeServers } from './native-servers.js';
import type { DaemonStatus } from './protocol.js';
import { Records } from './records.js';
import { recover } from './recovery.js';
import { RunDir } from './run-dir.js';
import type { FromWorker } from './served.js';
import { Slots } from './slots.js';
import { packageVersion } from './version.js';
import { WorkerPool } from './worker-pool.js';

/** Bytes of verified chunks in memory. Beside the kernel's page cache it matters only for chunks read in small parts. */
const MEMORY = 128 * 1024 * 1024;
/** How soon it is noticed that somebody else has unmounted a mount of the kernel engine. */
const TIDY_INTERVAL_MS = 30_000;
/** From the start on, and again when there is something to do then: who starts a daemon wants something of it. */
const REHEARSE_AFTER_MS = 10_000;
const LOCK_RETRY_MS = 10;

const STOP_TIMEOUT_MS = 40_000;

const log = createLogger('server');

function die(error: unknown, message: string): never {
  log.fatal({ err: error }, message);
  // process.exit would wait for workers that are in a system call.
  process.kill(process.pid, 'SIGKILL');
  throw error;
}

function logWorkerMessage(message: FromWorker, connections: Connections, repetitions: Repetitions): void {
  if (message.op === 'failed') {
    const { node, error } = message;
    const connection = connections.keyOf(message.connection) ?? 'gone';
    const suppressed = repetitions.report(`${connection} ${node} ${error.code}`);
    if (suppressed !== undefined) log.error({ connection, node, error, suppressed }, 'an access has failed');
  } else if (message.op === 'healed') {
    const { diffId, offset, got } = message;
    const suppressed = repetitions.report(`healed ${diffId}`);
    if (suppressed !== undefined)
      log.warn({ diffId, offset, got, suppressed }, 'a cached chunk was wrong and has been replaced');
  }
}

/** Takes note of what has happened to a mount. A run directory that cannot be written is no reason to end the others. */
function orLogged(act: () => void | Promise<void>, about: Readonly<Record<string, string>>): void {
  const say = (e: unknown): void => log.error({ err: e, ...about }, 'cannot record what has become of a mount');
  try {
    Promise.resolve(act()).catch(say);
  } catch (e) {
    say(e);
  }
}

/** A dying process closes its descriptors one after the other: the supervisor's lock may outlive its channel. */
function lockWhenFree(run: RunDir): void {
  if (takeLock(run)) log.info('the run directory is locked by the server now');
  else setTimeout(() => lockWhenFree(run), LOCK_RETRY_MS);
}

async function main(): Promise<void> {
  const startedAt = Date.now();
  const [runPath, storePath] = process.argv.slice(2);
  if (runPath === undefined || storePath === undefined) throw new LaminaError('USAGE', 'Usage: server RUN STORE');
  process.umask(0o077);
  const run = new RunDir(runPath);
  const store = Store.open(storePath);
  const records = new Records(run);
  const slots = new Slots();
  const repetitions = new Repetitions();

  const broker = new Broker(() => {
    log.error('the supervisor died: the mounts would not survive this process');
    lockWhenFree(run);
  });
  const fetcher = new Fetcher({
    userAgent: `lamina/${packageVersion()}`,
    onDeath: (e) => die(e, 'the fetch thread died'),
    // When the supervisor dies meanwhile, there is no next server either.
    onKeep: (typed) => void broker.keep(typed).catch(() => undefined),
  });
  const pool: WorkerPool = new WorkerPool({
    memory: MEMORY,
    fetcher,
    onDeath: (e) => die(e, 'a worker died'),
    onMessage(message) {
      if (message.op === 'init') connections.initialised(message.id, message.negotiated);
      else if (message.op === 'gone') connections.gone(message.id);
      else logWorkerMessage(message, connections, repetitions);
    },
  });
  slots.onForget = (forgotten) => pool.forgetLayers(forgotten);
  const connections: Connections = new Connections({
    broker,
    pool,
    log,
    onInit: (key, negotiated) =>
      orLogged(() => (BlobMount.isKey(key) ? blobs : table).initialised(key, negotiated), { connection: key }),
    onGone: (key) => orLogged(() => (BlobMount.isKey(key) ? blobs.gone(key) : table.gone(key)), { connection: key }),
  });
  const natives: NativeServers = new NativeServers((id) => orLogged(() => table.gone(id), { id }));
  const blobs: BlobMount = new BlobMount({
    run,
    records,
    connections,
    slots,
    log,
    slotsInUse: () => table.slotsInUse(),
    isInTheWay: () => table.waitsForBlobs(),
    keptMs: cacheTime(),
  });
  const shared = { run, store, records, slots, blobs, connections, natives, broker, pool, fetcher, log };
  const background = new Background({ fetcher, log, run });
  const table: MountTable = new MountTable({
    ...shared,
    background,
    addLayer: (places) => pool.addLayer(places),
    restLayers: (unused) => pool.restLayers(unused),
    bytes: (slot) => pool.bytes(slot),
  });

  // With `force` nothing may keep us: what could not be unmounted ends with the connections.
  const stop = async (force: boolean): Promise<void> => {
    try {
      await withDeadline(table.stop(force), STOP_TIMEOUT_MS, 'Unmounting everything');
    } catch (e) {
      if (!force) throw e;
      log.error({ err: e }, 'not everything could be unmounted');
    }
  };
  const end = async (): Promise<never> => {
    control.close();
    await broker.announceEnd().catch(() => undefined);
    log.info('stopped');
    if (!(await pool.stop())) process.kill(process.pid, 'SIGKILL');
    process.exit(0);
  };
  const status = async (): Promise<DaemonStatus> => ({
    supervisorPid: held.supervisorPid,
    serverPid: process.pid,
    version: packageVersion(),
    uptime: (Date.now() - startedAt) / 1000,
    restarts: held.restarts,
    supervised: broker.supervised,
    store: store.path,
    run: run.path,
    background: background.paused ? 'paused' : 'on',
    mounts: await table.list(),
  });
  const control = new Control(
    {
      status,
      mounts: () => table.list(),
      contents: () => table.contents(),
      mount: (request, onEvent, signal) => table.mount(request, onEvent, signal),
      unmount: (target, lazy) => table.unmount(target, lazy),
      background: (paused) => background.pause(paused),
      stop,
      stopped: () => void end(),
    },
    log,
  );

  pool.start();
  const held = await broker.start();
  if (held.connections.size > 0) await pool.ready();
  for (const typed of held.typed) fetcher.restore(typed);
  for (const record of await recover(shared, held.connections)) table.adopt(record);
  await table.tidy();
  await control.listen(run.socket);
  await broker.announceServing();
  setInterval(() => {
    table.tidy().catch((e: unknown) => log.error({ err: e }, 'looking after the mounts failed'));
  }, TIDY_INTERVAL_MS).unref();
  const threads = new PrepareThreads(fetcher);
  const rehearsal = setInterval(() => {
    if (threads.rehearse()) clearInterval(rehearsal);
  }, REHEARSE_AFTER_MS).unref();
  process.on('SIGTERM', () => void stop(true).then(end));
  process.on('SIGINT', () => undefined);
  // Whoever has used a registry will again; the thread takes a while to start.
  if (store.hasReferences()) setImmediate(() => fetcher.start());
  log.info({ run: run.path, store: store.path, version: packageVersion(), restarts: held.restarts }, 'serving');
}

process.on('uncaughtException', (e) => die(e, 'uncaught exception'));
main().catch((e: unknown) => die(e, 'cannot start'));
