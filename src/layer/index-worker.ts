/** A thread that indexes layers, one after the other. Large blobs get a second thread that hashes. */
import { parentPort, workerData } from 'node:worker_threads';
import { toLaminaError, type SerializedError } from '../errors.js';
import { FetchPort, useFetchPort } from '../source/fetch/port.js';
import { HashThread } from './hash-thread.js';
import { PassHasher, type PassSink } from './hasher.js';
import { indexLayer, type IndexJob, type IndexedLayer } from './index-pass.js';
import type { IndexWorkerData } from './indexer.js';
import { indexSoci, indexToc, type IndexedToc, type SociJob, type TocJob } from './toc-pass.js';

export type FromIndexWorker =
  | { readonly op: 'progress'; readonly done: number }
  | { readonly op: 'indexed'; readonly layer?: IndexedLayer; readonly toc?: IndexedToc }
  | { readonly op: 'failed'; readonly error: SerializedError };

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

function run(job: IndexJob | TocJob | SociJob, send: (message: FromIndexWorker) => void): void {
  let next = 0;
  const onProgress = (done: number): void => {
    const now = Date.now();
    if (now < next) return;
    next = now + PROGRESS_EVERY_MS;
    send({ op: 'progress', done });
  };
  try {
    if ('ztoc' in job) {
      indexSoci(job);
      send({ op: 'indexed', toc: { prefetch: 0 } });
    } else if ('toc' in job) {
      send({ op: 'indexed', toc: indexToc(job) });
    } else send({ op: 'indexed', layer: indexLayer(job, { sink: sinkFor, onProgress }) });
  } catch (e) {
    // The other thread may be in the middle of the pass that failed.
    hashThread?.close();
    hashThread = undefined;
    send({
      op: 'failed',
      error: toLaminaError(e, `Indexing ${'ztoc' in job ? job.ztoc.path : job.blob.path}`).toJSON(),
    });
  }
}

const { fetch } = workerData as IndexWorkerData;
if (fetch !== undefined) useFetchPort(new FetchPort(fetch, { waits: true }));
const port = parentPort;
port?.on('message', (job: IndexJob | TocJob | SociJob) => run(job, (message) => port.postMessage(message)));
