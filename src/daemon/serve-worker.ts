/** A serve worker: answers what it can at once, hands reads that miss to a fill worker. Never waits for data. */
import { receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads';
import { serve } from '../fuse/serve-loop.js';
import { epollRemove } from '../native/libc.js';
import { Served, type Deferred, type FromWorker, type ServedOptions, type ToWorker } from './served.js';

export interface ServeWorkerData extends ServedOptions {
  readonly kind: 'serve';
  readonly epoll: number;
  readonly control: MessagePort;
  readonly fill: readonly MessagePort[];
}

function main({ epoll, control, fill, memory, counters }: ServeWorkerData): void {
  const send = (message: FromWorker): void => control.postMessage(message);
  const served = new Served({ memory, counters }, send);

  const disconnected: number[] = [];
  const takeMessages = (): void => {
    for (let m = receiveMessageOnPort(control); m !== undefined; m = receiveMessageOnPort(control)) {
      const message = m.message as ToWorker;
      served.apply(message);
      if (message.op === 'disconnect') disconnected.push(message.id);
    }
  };

  // blobfs learns of a layer by the message that was sent before the kernel was told of it.
  served.layers.onUnknown = takeMessages;
  send({ op: 'ready' });
  serve({
    epoll,
    connection: (id) => served.connection(id),
    between() {
      takeMessages();
      // Not earlier: messages may be taken in the middle of a request, which has yet to be answered.
      for (let id = disconnected.pop(); id !== undefined; id = disconnected.pop()) send({ op: 'released', id });
    },
    defer(connection, request) {
      const deferred: Deferred = { id: connection.id, request: Uint8Array.from(request) };
      fill[connection.session.affinity(request) % fill.length]?.postMessage(deferred);
    },
    gone(connection) {
      epollRemove(epoll, connection.fd);
      send({ op: 'gone', id: connection.id });
    },
  });
}

main(workerData as ServeWorkerData);
