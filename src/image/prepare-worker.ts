/** A thread that indexes layers, merges trees and reads what a config needs of them, one after the other. Large blobs get a second thread that hashes. */
import { getHeapStatistics } from 'node:v8';
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { toLaminaError, type SerializedError } from '../errors.js';
import { HashThread } from '../layer/hash-thread.js';
import { indexShipped, type ShippedJob } from '../layer/shipped-pass.js';
import { PassHasher, type PassSink } from '../layer/hasher.js';
import { indexLayer, type IndexJob } from '../layer/index-pass.js';
import { indexSoci, indexToc, type SociJob, type TocJob } from '../layer/toc-pass.js';
import { FetchPort, useFetchPort } from '../source/fetch/port.js';
import { configOf, type ConfigJob } from './configure.js';
import { mergeToStore, type MergeJob } from './merge.js';
import { rehearse } from './rehearsal.js';

export interface PrepareWorkerData {
  /** To the fetch thread, for blobs of registries. */
  readonly fetch: MessagePort | undefined;
}

/** There is nothing to do: time to {@link rehearse}, until there is. Not answered. */
export interface Idle {
  readonly op: 'rehearse';
}

export type PrepareJob =
  | { readonly op: 'index'; readonly job: IndexJob }
  | { readonly op: 'toc'; readonly job: TocJob }
  | { readonly op: 'soci'; readonly job: SociJob }
  | { readonly op: 'shipped'; readonly job: ShippedJob }
  | { readonly op: 'merge'; readonly job: MergeJob }
  | { readonly op: 'configure'; readonly job: ConfigJob };

/** `result` is what the job's function returns; `heap` the bytes that the thread has in use for its objects. */
export type Answer = { readonly heap: number } & (
  { readonly op: 'done'; readonly result: unknown } | { readonly op: 'failed'; readonly error: SerializedError }
);

export type FromPrepareWorker = Answer | { readonly op: 'progress'; readonly done: number };

/** Compressed bytes below which starting a thread takes longer than hashing. */
const SMALL_BLOB = 8 * 1024 * 1024;
const PROGRESS_EVERY_MS = 100;

let hashThread: HashThread | undefined;

function sinkFor(job: IndexJob): PassSink {
  if (job.blob.size < SMALL_BLOB) return new PassHasher(job.digest, job.diffId);
  hashThread ??= new HashThread();
  hashThread.start({ blob: job.digest, diffId: job.diffId });
  return hashThread;
}

function doJob({ op, job }: PrepareJob, onProgress: (done: number) => void): unknown {
  switch (op) {
    case 'index':
      return indexLayer(job, { sink: sinkFor, onProgress });
    case 'toc':
      return indexToc(job);
    case 'soci':
      return indexSoci(job);
    case 'shipped':
      return indexShipped(job);
    case 'merge':
      return mergeToStore(job);
    case 'configure':
      return configOf(job);
  }
}

function what({ op, job }: PrepareJob): string {
  if (op === 'merge') return 'Merging the layers';
  if (op === 'configure') return `Reading ${job.prepared.image.reference}`;
  if (op === 'soci') return `Indexing ${job.ztoc.path}`;
  return `Indexing ${op === 'shipped' ? job.digest : job.blob.path}`;
}

function heapSize(): number {
  const { total_heap_size: objects, external_memory: external } = getHeapStatistics();
  return objects + external;
}

function run(job: PrepareJob, send: (message: FromPrepareWorker) => void): void {
  let next = 0;
  const onProgress = (done: number): void => {
    const now = Date.now();
    if (now < next) return;
    next = now + PROGRESS_EVERY_MS;
    send({ op: 'progress', done });
  };
  try {
    const result = doJob(job, onProgress);
    send({ op: 'done', result, heap: heapSize() });
  } catch (e) {
    // The other thread may be in the middle of the pass that failed.
    hashThread?.close();
    hashThread = undefined;
    send({ op: 'failed', error: toLaminaError(e, what(job)).toJSON(), heap: heapSize() });
  }
}

/** Until a job has come, or the rehearsal is over. */
function rehearseUntil(hasJob: () => boolean): void {
  const rehearsal = rehearse();
  const step = (): void => {
    if (!hasJob() && rehearsal.next().done !== true) setImmediate(step);
  };
  setImmediate(step);
}

const { fetch } = workerData as PrepareWorkerData;
if (fetch !== undefined) useFetchPort(new FetchPort(fetch, { waits: true }));
const port = parentPort;
let jobs = 0;
port?.on('message', (message: PrepareJob | Idle) => {
  if (message.op === 'rehearse') {
    const before = jobs;
    return rehearseUntil(() => jobs > before);
  }
  jobs++;
  run(message, (answer) => port.postMessage(answer));
});
