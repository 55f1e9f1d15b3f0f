/** Indexes layers in threads, several at once; what a cancelled or dead thread leaves is removed. */
import { rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Worker, type MessagePort } from 'node:worker_threads';
import { LaminaError } from '../errors.js';
import type { IndexJob, IndexedLayer } from './index-pass.js';
import type { FromIndexWorker } from './index-worker.js';
import type { IndexedToc, SociJob, TocJob } from './toc-pass.js';

export interface IndexCallbacks {
  /** Compressed bytes done. */
  readonly onProgress?: ((done: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A pass keeps about one and a half cores busy. */
const THREADS_MAX = Math.max(1, availableParallelism());

/** Over all indexers: several images may be prepared at once. */
const waiting: (() => void)[] = [];
let running = 0;

async function takeSlot(): Promise<void> {
  if (running < THREADS_MAX) running++;
  else await new Promise<void>((resolve) => waiting.push(resolve));
}

/** The slot goes to who has waited longest, and is counted on. */
function releaseSlot(): void {
  const next = waiting.shift();
  if (next === undefined) running--;
  else next();
}

/** Of an index worker. */
export interface IndexWorkerData {
  /** To the fetch thread, for blobs of registries. */
  readonly fetch: MessagePort | undefined;
}

/** Milliseconds that a thread with nothing to do is kept for the next layer: to start one takes longer than many layers. */
const IDLE_MS = 10_000;

/** Threads with nothing to do, by what gives them their ports. They do not keep the process alive. */
const idle = new Map<PortSource | undefined, Set<Worker>>();

/** Gives ports to the fetch thread. */
interface PortSource {
  connect(): MessagePort;
}

export class Indexer {
  readonly #ports: PortSource | undefined;

  /** `ports`: where blobs of registries may come. */
  constructor(ports?: PortSource) {
    this.#ports = ports;
  }

  /** Throws what `indexLayer` throws, and an AbortError when `signal` says so. */
  async index(job: IndexJob, callbacks: IndexCallbacks = {}): Promise<IndexedLayer> {
    await takeSlot();
    try {
      callbacks.signal?.throwIfAborted();
      const { layer } = await this.#inThread(job, callbacks);
      if (layer === undefined) throw new LaminaError('INTERNAL', 'The indexing thread has indexed something else');
      return layer;
    } finally {
      releaseSlot();
    }
  }

  /** Throws what `indexToc` and `indexSoci` throw, and an AbortError when `signal` says so. */
  async indexToc(job: TocJob | SociJob, signal?: AbortSignal): Promise<IndexedToc> {
    await takeSlot();
    try {
      signal?.throwIfAborted();
      const { toc } = await this.#inThread(job, { signal });
      if (toc === undefined) throw new LaminaError('INTERNAL', 'The indexing thread has indexed something else');
      return toc;
    } finally {
      releaseSlot();
    }
  }

  async #inThread(
    job: IndexJob | TocJob | SociJob,
    { onProgress, signal }: IndexCallbacks,
  ): Promise<Answer & { op: 'indexed' }> {
    const worker = this.#takeIdle() ?? this.#newWorker();
    let answered = false;
    try {
      const answer = await runJob(worker, job, onProgress, signal);
      answered = true;
      if (answer.op === 'failed') throw LaminaError.fromJSON(answer.error);
      return answer;
    } finally {
      // One that has not answered is at work, or dead.
      if (answered) this.#rest(worker);
      else await worker.terminate();
      rmSync(job.temporary, { recursive: true, force: true });
      rmSync(`${job.temporary}.map`, { force: true });
    }
  }

  #takeIdle(): Worker | undefined {
    const workers = idle.get(this.#ports);
    const [worker] = workers ?? [];
    if (worker === undefined) return undefined;
    workers?.delete(worker);
    worker.ref();
    return worker;
  }

  #rest(worker: Worker): void {
    let workers = idle.get(this.#ports);
    if (workers === undefined) idle.set(this.#ports, (workers = new Set()));
    workers.add(worker);
    worker.unref();
    const end = (): void => {
      if (workers.delete(worker)) void worker.terminate();
    };
    setTimeout(end, IDLE_MS).unref();
  }

  #newWorker(): Worker {
    const fetch = this.#ports?.connect();
    const workerData: IndexWorkerData = { fetch };
    const transferList = fetch === undefined ? [] : [fetch];
    const worker = new Worker(new URL('./index-worker.js', import.meta.url), { workerData, transferList });
    // Who has given it a job is told; with nobody listening, the event would end the process.
    worker.on('error', () => undefined).once('exit', () => idle.get(this.#ports)?.delete(worker));
    return worker;
  }
}

type Answer = Exclude<FromIndexWorker, { readonly op: 'progress' }>;

function runJob(
  worker: Worker,
  job: IndexJob | TocJob | SociJob,
  onProgress: ((done: number) => void) | undefined,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
      signal?.removeEventListener('abort', onAbort);
      act();
    };
    const onMessage = (message: FromIndexWorker): void => {
      if (message.op === 'progress') onProgress?.(message.done);
      else settle(() => resolve(message));
    };
    const onError = (e: unknown): void => settle(() => reject(e instanceof Error ? e : new Error(String(e))));
    const onExit = (code: number): void =>
      settle(() => reject(new LaminaError('INTERNAL', `The indexing thread ended with code ${code}`)));
    const onAbort = (): void =>
      settle(() => reject(signal?.reason instanceof Error ? signal.reason : new Error('Aborted')));
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
    signal?.addEventListener('abort', onAbort, { once: true });
    worker.postMessage(job);
  });
}
