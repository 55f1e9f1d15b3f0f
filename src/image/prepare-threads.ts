/** Threads that index layers and merge their trees, several at once; what a cancelled or dead one leaves is removed. */
import { rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Worker, type MessagePort } from 'node:worker_threads';
import { LaminaError } from '../errors.js';
import { Lane } from '../source/fetch/lanes.js';
import type { IndexJob, IndexedLayer } from '../layer/index-pass.js';
import type { ShippedJob } from '../layer/shipped-pass.js';
import type { IndexedToc, SociJob, TocJob } from '../layer/toc-pass.js';
import type { BlobLocation } from '../source/blob.js';
import type { RuntimeConfig } from '../bundle/runtime-config.js';
import type { ConfigJob } from './configure.js';
import { isSmallMerge, mergeToStore, type MergeJob } from './merge.js';
import type { Answer, FromPrepareWorker, Idle, PrepareJob, PrepareWorkerData } from './prepare-worker.js';

export interface IndexCallbacks {
  /** Compressed bytes done. */
  readonly onProgress?: ((done: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An indexing pass keeps about one and a half cores busy. */
const THREADS_MAX = Math.max(1, availableParallelism());

/** Configs wait for bytes of a registry, perhaps, and for nothing else. */
const CONFIGS_MAX = 8;
/** Threads that read from registries at once, over all of these. Who waits for bytes keeps no core busy. */
const REMOTE_MAX = 16;

/**
 * How many of a kind run at once, over all images that are prepared. Indexing may take minutes: who needs only a merge or a
 * config does not wait behind it. Tables of contents take some 0.1 s each, in a thread that has done one; in one that has not,
 * three times that: on two cores two are sooner done one after the other, the second core being busy with what is fetched
 * (PERFORMANCE.md).
 */
const widths = { index: THREADS_MAX, table: Math.max(1, THREADS_MAX - 1), merge: THREADS_MAX, config: CONFIGS_MAX };
const kinds: Readonly<Record<PrepareJob['op'], keyof typeof widths>> = {
  index: 'index',
  toc: 'table',
  soci: 'table',
  shipped: 'table',
  merge: 'merge',
  configure: 'config',
};

/** By kind and registry: one that is slow keeps no image of others waiting, nor any of this machine's files. */
const lanes = new Map<string, Lane>();
const remote = new Lane(REMOTE_MAX);

/** The registry whose bytes a job may wait for. */
function registryOf({ op, job }: PrepareJob): string | undefined {
  switch (op) {
    case 'index':
    case 'toc':
      return hostOf(job.blob);
    case 'soci':
      return hostOf(job.ztoc);
    case 'shipped':
      return hostOf(job.parts.files.blob);
    case 'merge':
      return undefined;
    case 'configure':
      return job.prepared.layers.map(({ blob }) => hostOf(blob)).find((host) => host !== undefined);
  }
}

function hostOf(blob: BlobLocation): string | undefined {
  return blob.kind === 'registry' ? blob.access.host : undefined;
}

async function inTurn<T>(job: PrepareJob, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  const kind = kinds[job.op];
  const host = registryOf(job);
  const key = `${kind} ${host ?? ''}`;
  const lane = lanes.get(key) ?? new Lane(widths[kind]);
  lanes.set(key, lane);
  try {
    return await lane.run(() => (host === undefined ? work() : remote.run(work, signal)), signal);
  } finally {
    if (lane.idle) lanes.delete(key);
  }
}

/** Bytes: a thread whose heap has grown beyond this is not kept. */
const HEAP_MAX = 128 * 1024 * 1024;
/**
 * Milliseconds that a thread with nothing to do is kept for the next job, beside one that is kept for good: to start one takes
 * longer than many jobs, and what has run before runs three times as fast.
 */
const IDLE_MS = 120_000;

/** Threads that get their ports from the same. Those with nothing to do do not keep the process alive. */
interface Pool {
  /** The one that is kept for good, and given a job first. */
  kept: Worker | undefined;
  /** With nothing to do, and when they end. */
  readonly idle: Map<Worker, NodeJS.Timeout | undefined>;
}

const pools = new Map<PortSource | undefined, Pool>();

/** Gives ports to the fetch thread. */
interface PortSource {
  connect(): MessagePort;
}

export class PrepareThreads {
  readonly #ports: PortSource | undefined;
  readonly #pool: Pool;

  /** `ports`: where blobs of registries may come. */
  constructor(ports?: PortSource) {
    this.#ports = ports;
    const known = pools.get(ports);
    this.#pool = known ?? { kept: undefined, idle: new Map() };
    if (known === undefined) pools.set(ports, this.#pool);
  }

  /** Starts a thread for what is about to come, where there is none. */
  warm(): void {
    if (this.#pool.kept === undefined) this.#rest(this.#newWorker());
  }

  /** For a daemon that has nothing to do: the thread that is kept gets faster by itself. False where it is at work. */
  rehearse(): boolean {
    const { kept, idle } = this.#pool;
    if (kept !== undefined && !idle.has(kept)) return false;
    this.warm();
    this.#pool.kept?.postMessage({ op: 'rehearse' } satisfies Idle);
    return true;
  }

  /** Throws what `indexLayer` throws, and an AbortError when `signal` says so. */
  index(job: IndexJob, callbacks: IndexCallbacks = {}): Promise<IndexedLayer> {
    return this.#run({ op: 'index', job }, callbacks) as Promise<IndexedLayer>;
  }

  /** Throws what `indexToc` throws, and an AbortError when `signal` says so. */
  indexToc(job: TocJob, signal?: AbortSignal): Promise<IndexedToc> {
    return this.#run({ op: 'toc', job }, { signal }) as Promise<IndexedToc>;
  }

  /** Throws what `indexSoci` throws, and an AbortError when `signal` says so. */
  async indexSoci(job: SociJob, signal?: AbortSignal): Promise<void> {
    await this.#run({ op: 'soci', job }, { signal });
  }

  /** Throws what `indexShipped` throws, and an AbortError when `signal` says so. */
  async indexShipped(job: ShippedJob, signal?: AbortSignal): Promise<void> {
    await this.#run({ op: 'shipped', job }, { signal });
  }

  /** {@link mergeToStore}, without keeping this thread where it takes long; throws an AbortError too. */
  async merge(job: MergeJob, signal?: AbortSignal): Promise<void> {
    if (isSmallMerge(job)) mergeToStore(job);
    else await this.#run({ op: 'merge', job }, { signal });
  }

  /** Throws what `configOf` throws, and an AbortError when `signal` says so. */
  configure(job: ConfigJob, signal?: AbortSignal): Promise<RuntimeConfig> {
    return this.#run({ op: 'configure', job }, { signal }) as Promise<RuntimeConfig>;
  }

  #run(job: PrepareJob, callbacks: IndexCallbacks): Promise<unknown> {
    return inTurn(job, callbacks.signal, () => this.#inThread(job, callbacks));
  }

  async #inThread(job: PrepareJob, { onProgress, signal }: IndexCallbacks): Promise<unknown> {
    const worker = this.#takeIdle() ?? this.#newWorker();
    let fit = false;
    try {
      const answer = await runJob(worker, job, onProgress, signal);
      fit = answer.heap < HEAP_MAX;
      if (answer.op === 'failed') throw LaminaError.fromJSON(answer.error);
      return answer.result;
    } finally {
      // One that has not answered is at work, or dead.
      if (fit) this.#rest(worker);
      else await worker.terminate();
      if (job.op !== 'configure') removeTemporary(job.job.temporary);
    }
  }

  #takeIdle(): Worker | undefined {
    const { kept, idle } = this.#pool;
    // Of the others, the one that has worked last is the warmest.
    const worker = kept !== undefined && idle.has(kept) ? kept : [...idle.keys()].at(-1);
    if (worker === undefined) return undefined;
    clearTimeout(idle.get(worker));
    idle.delete(worker);
    worker.ref();
    return worker;
  }

  #rest(worker: Worker): void {
    const { idle } = this.#pool;
    const kept = (this.#pool.kept ??= worker);
    if (worker !== kept && idle.size >= THREADS_MAX) return void worker.terminate();
    worker.unref();
    const end = (): void => {
      if (idle.delete(worker)) void worker.terminate();
    };
    idle.set(worker, worker === kept ? undefined : setTimeout(end, IDLE_MS).unref());
  }

  #newWorker(): Worker {
    const fetch = this.#ports?.connect();
    const workerData: PrepareWorkerData = { fetch };
    const transferList = fetch === undefined ? [] : [fetch];
    const worker = new Worker(new URL('./prepare-worker.js', import.meta.url), { workerData, transferList });
    // Who has given it a job is told; with nobody listening, the event would end the process.
    worker
      .on('error', () => undefined)
      .once('exit', () => {
        this.#pool.idle.delete(worker);
        if (this.#pool.kept === worker) this.#pool.kept = undefined;
      });
    return worker;
  }
}

function removeTemporary(path: string): void {
  rmSync(path, { recursive: true, force: true });
  rmSync(`${path}.map`, { force: true });
}

function runJob(
  worker: Worker,
  job: PrepareJob,
  onProgress: ((done: number) => void) | undefined,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
      signal?.removeEventListener('abort', onAbort);
      act();
    };
    const onMessage = (message: FromPrepareWorker): void => {
      if (message.op === 'progress') onProgress?.(message.done);
      else settle(() => resolve(message));
    };
    const onError = (e: unknown): void => settle(() => reject(e instanceof Error ? e : new Error(String(e))));
    const onExit = (code: number): void =>
      settle(() => reject(new LaminaError('INTERNAL', `A thread that prepares images ended with code ${code}`)));
    const onAbort = (): void =>
      settle(() => reject(signal?.reason instanceof Error ? signal.reason : new Error('Aborted')));
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
    signal?.addEventListener('abort', onAbort, { once: true });
    worker.postMessage(job);
  });
}
