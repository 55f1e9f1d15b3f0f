/**
 * A fill worker: answers the reads that have to wait. Any thread may write the reply of a request, so it does that
 * itself. Reads of the same part of a layer come to the same worker, one after the other: the first fetches, the
 * others find the bytes there.
 */
import { receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads';
import { sendReply } from '../fuse/serve-loop.js';
import { REPLY_SIZE } from '../fuse/session.js';
import { Served, type Deferred, type FromWorker, type ServedOptions, type ToWorker } from './served.js';

export interface FillWorkerData extends ServedOptions {
  readonly kind: 'fill';
  readonly control: MessagePort;
  /** One from each serve worker. */
  readonly work: readonly MessagePort[];
}

function main({ control, work, memory, counters }: FillWorkerData): void {
  const send = (message: FromWorker): void => control.postMessage(message);
  const served = new Served({ memory, counters }, send);
  const reply = Buffer.alloc(REPLY_SIZE);
  const apply = (message: ToWorker): void => {
    served.apply(message);
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
  for (const port of work) {
    port.on('message', ({ id, request }: Deferred) => {
      if (served.connection(id) === undefined) takeMessages();
      const connection = served.connection(id);
      if (connection === undefined) return;
      const bytes = Buffer.from(request.buffer, request.byteOffset, request.byteLength);
      const length = connection.session.handleWaiting(bytes, bytes.length, reply);
      if (length > 0) sendReply(connection.fd, reply, length);
    });
  }
  send({ op: 'ready' });
}

main(workerData as FillWorkerData);
