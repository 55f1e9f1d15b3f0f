/**
 * The serve and fill workers, and what they all have to know. A worker that dies takes the server with it: the
 * supervisor starts another, which loses nothing.
 */
import { availableParallelism } from 'node:os';
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';
import { epollAdd, epollCreate, epollRemove, eventfd, signal } from '../native/libc.js';
import { STOP } from '../fuse/serve-loop.js';
import { Counters, createCounterMemory, type ByteCounts } from '../mount/counters.js';
import type { LayerSource } from '../mount/layer-readers.js';
import type { Fetcher } from '../source/fetch/fetcher.js';
import type { FillWorkerData } from './fill-worker.js';
import type { ServeWorkerData } from './serve-worker.js';
import type { ConnectionSpec, FromWorker, ToWorker } from './served.js';

export interface WorkerPoolOptions {
  readonly onMessage: (message: FromWorker) => void;
  /** A worker died; the process cannot go on. */
  readonly onDeath: (error: Error) => void;
  readonly fetcher: Fetcher;
  /** Bytes of verified chunks that all workers together keep in memory. */
  readonly memory: number;
}

const WORKERS_MIN = 2;
const WORKERS_MAX = 4;
const STOP_TIMEOUT_MS = 2000;

export class WorkerPool {
  readonly #epoll = epollCreate();
  readonly #stopEvent = eventfd();
  readonly #controls: MessagePort[] = [];
  readonly #workers: Worker[] = [];
  /** One of each worker. */
  readonly #counters: Counters[] = [];
  /** Connections that are being let go, with the number of workers that may still use them. */
  readonly #releasing = new Map<number, { left: number; done: () => void }>();
  readonly #options: WorkerPoolOptions;
  #ready: Promise<unknown> = Promise.resolve();
  #stopping = false;

  constructor(options: WorkerPoolOptions) {
    this.#options = options;
    epollAdd(this.#epoll, this.#stopEvent, STOP, 'level');
  }

  /** They are told of layers and connections from now on, and serve a while later. */
  start(): void {
    const count = Math.min(Math.max(availableParallelism(), WORKERS_MIN), WORKERS_MAX);
    const memory = Math.floor(this.#options.memory / (2 * count));
    const channels = Array.from({ length: count }, () => Array.from({ length: count }, () => new MessageChannel()));
    const ready: Promise<void>[] = [];
    for (let i = 0; i < count; i++) {
      const fill = channels.flatMap((row) => row[i]?.port1 ?? []);
      const serve = channels[i]?.map((channel) => channel.port2) ?? [];
      const fetch = this.#options.fetcher.connect();
      ready.push(
        this.#spawn('./fill-worker.js', [...serve, fetch], (control): FillWorkerData => ({
          kind: 'fill',
          turn: i,
          control,
          work: serve,
          fetch,
          memory,
          counters: this.#newCounters(),
        })),
      );
      ready.push(
        this.#spawn('./serve-worker.js', fill, (control): ServeWorkerData => ({
          kind: 'serve',
          epoll: this.#epoll,
          control,
          fill,
          memory,
          counters: this.#newCounters(),
        })),
      );
    }
    this.#ready = Promise.all(ready);
  }

  /** Resolves when every worker serves. */
  async ready(): Promise<void> {
    await this.#ready;
  }

  /** `places`: all that there are of one layer. */
  addLayer(places: readonly LayerSource[]): void {
    const { fetcher } = this.#options;
    const blob = places.map((source) => source.blob).find(({ kind }) => kind === 'registry');
    if (blob?.kind === 'registry') fetcher.start();
    const ahead = blob?.kind === 'registry' ? fetcher.takePrefetched(blob.digest) : [];
    this.#broadcast({ op: 'layer', places, ahead });
  }

  /** No mount uses these layers now: nothing of theirs is kept open. */
  restLayers(slots: readonly number[]): void {
    if (slots.length > 0) this.#broadcast({ op: 'rest', slots });
  }

  /** Nothing will ask for these slots again. */
  forgetLayers(slots: readonly number[]): void {
    if (slots.length > 0) this.#broadcast({ op: 'forget', slots });
  }

  connect(spec: ConnectionSpec): void {
    this.#broadcast({ op: 'connect', spec });
    epollAdd(this.#epoll, spec.fd, spec.id, 'edge');
  }

  /**
   * Makes all workers forget a connection. When it resolves, none of them will use its descriptor again: the number may
   * be given to another connection, to which a late reply would otherwise go.
   */
  async disconnect({ id, fd }: { readonly id: number; readonly fd: number }): Promise<void> {
    epollRemove(this.#epoll, fd);
    const released = new Promise<void>((done) => this.#releasing.set(id, { left: this.#workers.length, done }));
    this.#broadcast({ op: 'disconnect', id });
    await released;
  }

  /** What all workers have counted for a slot since they started. */
  bytes(slot: number): ByteCounts {
    let [served, verified, filled] = [0, 0, 0];
    for (const counters of this.#counters) {
      const counts = counters.get(slot);
      served += counts.served;
      verified += counts.verified;
      filled += counts.filled;
    }
    return { served, verified, filled };
  }

  /** False when some worker did not end in time: it is in a native call, and `process.exit` would wait for it. */
  async stop(): Promise<boolean> {
    this.#stopping = true;
    const exited = this.#workers.map((w) => new Promise((resolve) => w.once('exit', resolve)));
    signal(this.#stopEvent);
    for (const control of this.#controls) control.close();
    const timeout = new Promise<false>((resolve) => setTimeout(() => resolve(false), STOP_TIMEOUT_MS));
    return Promise.race([Promise.all(exited).then(() => true), timeout]);
  }

  #newCounters(): SharedArrayBuffer {
    const memory = createCounterMemory();
    this.#counters.push(new Counters(memory));
    return memory;
  }

  #released(id: number): void {
    const releasing = this.#releasing.get(id);
    if (releasing === undefined || --releasing.left > 0) return;
    this.#releasing.delete(id);
    releasing.done();
  }

  #broadcast(message: ToWorker): void {
    for (const control of this.#controls) control.postMessage(message);
  }

  #spawn(
    file: string,
    ports: MessagePort[],
    data: (control: MessagePort) => ServeWorkerData | FillWorkerData,
  ): Promise<void> {
    const { port1, port2 } = new MessageChannel();
    this.#controls.push(port1);
    const worker = new Worker(new URL(file, import.meta.url), {
      workerData: data(port2),
      transferList: [port2, ...ports],
    });
    this.#workers.push(worker);
    worker.on('error', (e) => this.#options.onDeath(e instanceof Error ? e : new Error(String(e))));
    worker.on('exit', (code) => {
      if (!this.#stopping) this.#options.onDeath(new Error(`A worker ended with code ${code}`));
    });
    return new Promise((resolve) => {
      port1.on('message', (message: FromWorker) => {
        if (message.op === 'ready') resolve();
        else if (message.op === 'released') this.#released(message.id);
        else this.#options.onMessage(message);
      });
    });
  }
}
