/**
 * A fill worker: answers the reads that have to wait. Any thread may write the reply of a request, so it does that
 * itself. Reads of the same part of a layer come to the same worker, one after the other: the first decompresses, the
 * others find the bytes there. A read of what a registry has to send first is put aside until that is there, so that a
 * slow registry keeps nobody else waiting.
 */
import { receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads';
import { LaminaError, toLaminaError } from '../errors.js';
import { sendReply } from '../fuse/serve-loop.js';
import type { FetchFailure } from '../mount/layer-readers.js';
import { DEFERRED, REPLY_SIZE } from '../fuse/session.js';
import { FetchPort, useFetchPort } from '../source/fetch/port.js';
import { FillAhead } from './fill-ahead.js';
import { Served, type Deferred, type FromWorker, type ServedOptions, type ToWorker } from './served.js';

export interface FillWorkerData extends ServedOptions {
  readonly kind: 'fill';
  /** Which of the fill workers this is, from 0 on. */
  readonly turn: number;
  readonly control: MessagePort;
  /** One from each serve worker. */
  readonly work: readonly MessagePort[];
  /** To the fetch thread. */
  readonly fetch: MessagePort;
}

/** What one read may have fetched, one after the other: a chunk of 64 KiB each, of at most 1 MiB, and some again. */
const FETCHES_MAX = 64;

function main({ turn, control, work, memory, counters, fetch }: FillWorkerData): void {
  const fetchPort = new FetchPort(fetch, { waits: false });
  useFetchPort(fetchPort);
  const send = (message: FromWorker): void => control.postMessage(message);
  const served = new Served({ memory, counters }, send);
  const reply = Buffer.alloc(REPLY_SIZE);
  const ahead = new FillAhead(served.layers, fetchPort, { turn, workers: work.length });
  const apply = (message: ToWorker): void => {
    served.apply(message);
    if (message.op === 'layer') for (const { slot } of message.places.slice(0, 1)) ahead.add(slot, message.ahead);
    else if (message.op === 'rest' || message.op === 'forget') ahead.stop(message.slots);
    // Messages may be taken in the middle of a read, which has yet to be answered.
    if (message.op === 'disconnect') setImmediate(() => send({ op: 'released', id: message.id }));
  };
  // A read may come before the message that tells of its connection is handled: the ports have queues of their own.
  const takeMessages = (): void => {
    for (let m = receiveMessageOnPort(control); m !== undefined; m = receiveMessageOnPort(control)) {
      apply(m.message as ToWorker);
    }
  };
  served.layers.onUnknown = takeMessages;
  control.on('message', apply);
  const answer = (deferred: Deferred, fetches: number, failure?: FetchFailure): void => {
    const { id, request } = deferred;
    if (served.connection(id) === undefined) takeMessages();
    const connection = served.connection(id);
    if (connection === undefined) return;
    const bytes = Buffer.from(request.buffer, request.byteOffset, request.byteLength);
    served.layers.failure = failure;
    const length = connection.session.handleWaiting(bytes, bytes.length, reply);
    served.layers.failure = undefined;
    if (length > 0) sendReply(connection.fd, reply, length);
    const { missing } = served.layers;
    if (length !== DEFERRED || missing === undefined) return;
    served.layers.missing = undefined;
    fetchPort.fetch(missing, true).then(
      () => answer(deferred, fetches + 1, fetches < FETCHES_MAX ? undefined : lost()),
      (e: unknown) => {
        const error = toLaminaError(e);
        answer(deferred, fetches + 1, fetches < FETCHES_MAX ? { error, blob: missing.blob } : { error });
      },
    );
  };
  for (const port of work) port.on('message', (deferred: Deferred) => answer(deferred, 0));
  send({ op: 'ready' });
}

/** The store loses what is put into it. */
function lost(): FetchFailure {
  return { error: new LaminaError('IO', 'What was fetched of a layer does not stay in the store') };
}

main(workerData as FillWorkerData);
