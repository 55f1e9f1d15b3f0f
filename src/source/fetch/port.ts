/** A thread's way to the fetch thread. Threads that may wait do so; a fill worker is told what is missing instead. */
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import { LaminaError } from '../../errors.js';
import { DONE, type FromFetcher, type RemoteBlobSpec, type ToFetcher } from './protocol.js';

/** Thrown in a thread that must not wait: these bytes have to be fetched, and then the work can be begun again. */
export class NotAtHand extends Error {
  override readonly name = 'NotAtHand';
  readonly blob: RemoteBlobSpec;
  readonly start: number;
  readonly end: number;

  constructor(blob: RemoteBlobSpec, start: number, end: number) {
    super(`${blob.digest} from ${start} to ${end} has to be fetched`);
    this.blob = blob;
    this.start = start;
    this.end = end;
  }
}

/** Longer than the fetch thread takes to give anything up. */
const WAIT_MS = 15 * 60_000;

export class FetchPort {
  readonly #port: MessagePort;
  readonly #waits: boolean;
  readonly #pending = new Map<number, (answer: FromFetcher) => void>();
  #ids = 0;
  #isTracing = true;

  /** `waits`: whether this thread may be blocked while something is fetched. */
  constructor(port: MessagePort, { waits }: { readonly waits: boolean }) {
    this.#port = port;
    this.#waits = waits;
  }

  /** Returns when the bytes are in the store. Throws {@link NotAtHand} where this thread must not wait, else what fetching throws. */
  need(blob: RemoteBlobSpec, start: number, end: number): void {
    if (!this.#waits) throw new NotAtHand(blob, start, end);
    this.#ask({ op: 'want', blob, start, end });
  }

  /** A mounted image's reader has used bytes that are in the store: threads that must not wait work for these. */
  used(blob: RemoteBlobSpec, start: number, end: number): void {
    if (!this.#waits && this.#isTracing) this.#port.postMessage({ op: 'used', blob, start, end } satisfies ToFetcher);
  }

  /** What `act` uses is used for no reader. */
  withoutTrace<T>(act: () => T): T {
    this.#isTracing = false;
    try {
      return act();
    } finally {
      this.#isTracing = true;
    }
  }

  /** The store's bytes there are wrong; they will be fetched anew. Returns at once or nearly so. */
  discard(blob: RemoteBlobSpec, start: number, end: number): void {
    this.#ask({ op: 'discard', blob, start, end });
  }

  /** The same as {@link need}, for threads that have other things to do. `mounted`: see ToFetcher. */
  async fetch({ blob, start, end }: NotAtHand, mounted: boolean): Promise<void> {
    const id = ++this.#ids;
    const answer = await new Promise<FromFetcher>((resolve) => {
      if (this.#pending.size === 0) this.#port.on('message', this.#onAnswer);
      this.#pending.set(id, resolve);
      this.#port.postMessage({ op: 'want', id, blob, start, end, mounted } satisfies ToFetcher);
    });
    if (answer.error !== undefined) throw LaminaError.fromJSON(answer.error);
  }

  close(): void {
    this.#port.close();
  }

  readonly #onAnswer = (answer: FromFetcher): void => {
    this.#pending.get(answer.id)?.(answer);
    this.#pending.delete(answer.id);
    if (this.#pending.size === 0) this.#port.off('message', this.#onAnswer);
  };

  #ask(request: { op: 'want' | 'discard'; blob: RemoteBlobSpec; start: number; end: number }): void {
    const id = ++this.#ids;
    const done = new Int32Array(new SharedArrayBuffer(4));
    this.#port.postMessage({ ...request, id, done } satisfies ToFetcher);
    if (Atomics.wait(done, 0, 0, WAIT_MS) === 'timed-out') {
      throw new LaminaError('INTERNAL', 'The fetch thread does not answer');
    }
    if (Atomics.load(done, 0) === DONE) return;
    throw this.#failure(id);
  }

  /** It was sent before the number was set. */
  #failure(id: number): Error {
    for (let m = receiveMessageOnPort(this.#port); m !== undefined; m = receiveMessageOnPort(this.#port)) {
      const answer = m.message as FromFetcher;
      if (answer.id === id && answer.error !== undefined) return LaminaError.fromJSON(answer.error);
      if (answer.id !== id) this.#onAnswer(answer);
    }
    return new LaminaError('INTERNAL', 'The fetch thread failed without a reason');
  }
}

let ofThread: FetchPort | (() => FetchPort) | undefined;

/** What blobs that are opened in this thread use from now on, or how to come by it when one needs it. */
export function useFetchPort(port: FetchPort | (() => FetchPort)): void {
  ofThread = port;
}

/** {@link FetchPort.used}, where this thread has a port. */
export function noteUse(blob: RemoteBlobSpec, start: number, end: number): void {
  if (ofThread instanceof FetchPort) ofThread.used(blob, start, end);
}

/** Throws INTERNAL where this thread has none. */
export function fetchPort(): FetchPort {
  if (ofThread === undefined) throw new LaminaError('INTERNAL', 'This thread cannot read from registries');
  if (typeof ofThread === 'function') ofThread = ofThread();
  return ofThread;
}
