/**
 * Brings one blob into the store: the parts that somebody waits for, each in a request of its own; what comes behind them,
 * where they follow each other; and the whole of it from the beginning on where somebody wants that, or has come to read so
 * much of it that the rest is sooner had than asked for piece by piece. What is under way is not asked for twice. A transfer
 * that is cut off goes on where it was, until `recoverMs` have passed without a byte.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { LaminaError, toLaminaError } from '../../errors.js';
import type { RegistryClient } from '../registry/client.js';
import { isTransient, retryAfterOf } from '../registry/failures.js';
import { BLOCK, type BlockFile, type ByteRange } from './block-file.js';
import type { Lane, Lanes } from './lanes.js';
import type { RemoteBlobSpec } from './protocol.js';
import { AHEAD_MAX, Distance, ReadPattern } from './read-pattern.js';
import { Silence } from './silence.js';
import type { TraceFile } from './trace-file.js';

/** What is given up for another attempt is silent for this part of the time after which a read is failed. */
const SILENT_PART = 0.25;
/** Milliseconds between two attempts, at most. */
const PAUSE_MAX_MS = 5000;
const PAUSE_MS = 200;
/** What is less than this ahead of a transfer under way is waited for. */
const AHEAD = 8 * 1024 * 1024;
/** Milliseconds after a read that had to wait in which nothing is fetched that nobody waits for. */
const QUIET_MS = 3000;
const LOOK_MS = 500;
/** Milliseconds until a registry that does not answer is asked again for what nobody waits for. */
const LATER_MS = 30_000;
/** Bytes that are there already and still not worth ending a transfer for. */
const GAP = 1024 * 1024;

/** A transfer: bytes from `at` up to `end` are still to come. */
interface Flight {
  readonly end: number;
  at: number;
  /** False while it waits for others of its kind. */
  begun: boolean;
}

interface Waiter extends ByteRange {
  readonly resolve: () => void;
  readonly reject: (e: LaminaError) => void;
}

export interface DownloadOptions {
  readonly spec: RemoteBlobSpec;
  readonly file: BlockFile;
  readonly trace: TraceFile;
  /** Undefined: nothing may be asked of the network. */
  readonly client: () => RegistryClient | undefined;
  readonly lanes: Lanes;
  /** Milliseconds without a byte after which a read is failed. Registries are restarted, and networks come back. */
  readonly recoverMs: number;
}

export class Download {
  readonly #options: DownloadOptions;
  readonly #file: BlockFile;
  readonly #flights = new Set<Flight>();
  readonly #waiters = new Set<Waiter>();
  /** Those who want all of it. */
  #streamers = 0;
  #streaming: Promise<void> | undefined;
  /** Those who want it to be completed when there is time. */
  #completers = 0;
  #cancel = new AbortController();
  readonly #pattern: ReadPattern;
  readonly #distance = new Distance();

  constructor(options: DownloadOptions) {
    this.#options = options;
    this.#file = options.file;
    this.#pattern = new ReadPattern(options.file.size);
  }

  get idle(): boolean {
    return this.#flights.size === 0 && this.#waiters.size === 0 && this.#streamers === 0 && this.#completers === 0;
  }

  has(start: number, end: number): boolean {
    return this.#file.has(start, end);
  }

  /** Resolves when the bytes are in the store; `mounted`: see ToFetcher. Throws REGISTRY_*, BLOB_MISSING, BLOB_SIZE_MISMATCH, DISK_FULL, IO. */
  want(start: number, end: number, mounted: boolean): Promise<void> {
    if (this.#file.has(start, end)) return Promise.resolve();
    const again = [...this.#waiters].some((waiter) => waiter.start <= start && end <= waiter.end);
    return new Promise((resolve, reject) => {
      this.#waiters.add({ start, end, resolve, reject });
      this.#cover(start, this.#reach(start, end), this.#options.lanes.demand);
      if (again) return;
      // Who reads all of it says nothing about what is read first.
      if (mounted && this.#streamers === 0) this.#options.trace.add({ start, end });
      this.#lookAhead(start, end);
    });
  }

  /** Begins to bring what will be wanted. */
  prefetch(start: number, end: number): void {
    if (this.#file.has(start, end)) return;
    this.#options.trace.add({ start, end });
    this.#pattern.awaited();
    this.#cover(start, end, this.#options.lanes.ahead);
  }

  /** Where to end a request for a part: what is worth having comes with it, up to what is there already. */
  #reach(start: number, end: number): number {
    const more = this.#file.missing(end, start + this.#distance.part);
    return more !== undefined && more.start <= end ? more.end : end;
  }

  #lookAhead(start: number, end: number): void {
    const next = this.#pattern.wanted(start, end, this.#streamers > 0);
    // Who waits for parts of it is told when it fails.
    if (next === 'all') void this.stream(new AbortController().signal).catch(() => undefined);
    else if (next !== undefined) this.prefetch(next.start, next.end);
  }

  /** Resolves when all of it is in the store, or `signal` says that it is not wanted any more. Throws as {@link want} does. */
  async stream(signal: AbortSignal): Promise<void> {
    const given = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    this.#streamers++;
    try {
      this.#streaming ??= this.#streamAll().finally(() => (this.#streaming = undefined));
      await Promise.race([this.#streaming, given]);
    } finally {
      if (--this.#streamers === 0) {
        this.#cancel.abort();
        this.#cancel = new AbortController();
      }
    }
  }

  /** Bytes that somebody has waited for. */
  get needed(): number {
    return this.#pattern.needed;
  }

  /**
   * Brings what is missing, piece by piece, when nobody has waited for anything for a while: `rate` bytes a second at most, or
   * as many as come. Throws what is no passing failure.
   */
  async complete(rate: number, signal: AbortSignal): Promise<void> {
    this.#completers++;
    try {
      await this.#complete(rate, signal);
    } finally {
      this.#completers--;
    }
  }

  async #complete(rate: number, signal: AbortSignal): Promise<void> {
    const { size } = this.#file;
    for (let at = 0; !signal.aborted;) {
      const missing = this.#file.missing(at, size) ?? this.#file.missing(0, size);
      if (missing === undefined) return;
      if (this.#waiters.size > 0 || this.#flights.size > 0 || this.#pattern.quietMs < QUIET_MS) {
        await sleep(LOOK_MS);
        continue;
      }
      const end = Math.min(missing.end, missing.start + AHEAD_MAX);
      const began = performance.now();
      const failure = await this.#fly({ at: missing.start, end, begun: false }, this.#options.lanes.background, signal);
      if (isGiven(signal)) return;
      if (failure !== undefined && !isTransient(failure)) throw failure;
      const took = performance.now() - began;
      await sleep(failure === undefined ? Math.max((1000 * (end - missing.start)) / rate - took, 0) : LATER_MS);
      at = end;
    }
  }

  /** Starts transfers of what is not there and does not come soon. */
  #cover(start: number, end: number, lane: Lane): void {
    for (let run = this.#file.missing(start, end); run !== undefined; run = this.#file.missing(run.end, end)) {
      // What somebody waits for does not wait behind what nobody does; that passes over what is there when its turn comes.
      const flights = [...this.#flights].filter(({ begun }) => begun || lane !== this.#options.lanes.demand);
      for (let at = run.start; at < run.end;) {
        const coming = flights.find((f) => f.at <= at && at < f.end && at - f.at < AHEAD);
        if (coming !== undefined) {
          at = coming.end;
          continue;
        }
        const next = Math.min(run.end, ...flights.map((f) => f.at).filter((begin) => begin > at));
        void this.#fly({ at, end: next, begun: lane === this.#options.lanes.demand }, lane, undefined);
        at = next;
      }
    }
  }

  async #streamAll(): Promise<void> {
    const { signal } = this.#cancel;
    const { size } = this.#file;
    for (let at = 0; at < size && !signal.aborted;) {
      const missing = this.#file.missing(at, size);
      if (missing === undefined) return;
      let { end } = missing;
      for (let next = this.#file.missing(end, size); next !== undefined && next.start - end < GAP;) {
        ({ end } = next);
        next = this.#file.missing(end, size);
      }
      const failure = await this.#fly({ at: missing.start, end, begun: false }, this.#options.lanes.stream, signal);
      if (signal.aborted) return;
      if (failure !== undefined) throw failure;
      at = end;
    }
  }

  /** What it failed with. Those who wait for its bytes are told. */
  async #fly(flight: Flight, lane: Lane, signal: AbortSignal | undefined): Promise<LaminaError | undefined> {
    this.#flights.add(flight);
    let failure: LaminaError | undefined;
    try {
      await lane.run(() => this.#transfer(flight, signal));
    } catch (e) {
      failure = toLaminaError(e, `Fetching ${this.#options.spec.digest}`);
    }
    this.#flights.delete(flight);
    const given = isGiven(signal);
    for (const waiter of [...this.#waiters]) {
      if (this.#settle(waiter) || waiter.end <= flight.at || waiter.start >= flight.end) continue;
      if (failure === undefined || given) this.#cover(waiter.start, waiter.end, this.#options.lanes.demand);
      else this.#fail(waiter, failure);
    }
    return failure;
  }

  async #transfer(flight: Flight, given: AbortSignal | undefined): Promise<void> {
    const { recoverMs, spec } = this.#options;
    flight.begun = true;
    flight.at = this.#file.missing(flight.at, flight.end)?.start ?? flight.end;
    let lastByte = performance.now();
    for (let attempt = 0; flight.at < flight.end && !isGiven(given);) {
      const before = flight.at;
      const silence = new Silence(spec, recoverMs * SILENT_PART);
      const signal = given === undefined ? silence.signal : AbortSignal.any([given, silence.signal]);
      try {
        await this.#request(flight, signal, () => silence.broken());
      } catch (e) {
        if (isGiven(given)) return;
        if (flight.at > before) {
          attempt = 0;
          lastByte = silence.since;
        }
        const pause = retryAfterOf(e) ?? Math.min(PAUSE_MS * 2 ** attempt++, PAUSE_MAX_MS);
        if (!isTransient(e) || performance.now() + pause - lastByte > recoverMs) throw e;
        await sleep(pause);
      } finally {
        silence.end();
      }
    }
  }

  /** One request. Throws when it ends too early. */
  async #request(flight: Flight, signal: AbortSignal, onByte: () => void): Promise<void> {
    const { spec, client: findClient } = this.#options;
    const client = findClient();
    if (client === undefined) throw offline(spec);
    const offset = Math.floor(flight.at / BLOCK) * BLOCK;
    const whole = offset === 0 && flight.end === spec.size;
    const length = flight.end - offset;
    const range = whole ? {} : { offset, length };
    const asked = performance.now();
    const answer = await client.blob(spec.access.repository, spec.digest, { ...range, signal, retry: { attempts: 1 } });
    this.#distance.answered(performance.now() - asked);
    if (answer.total !== undefined && answer.total !== spec.size) {
      await answer.cancel();
      throw wrongSize(spec, answer.host, answer.total);
    }
    // A registry that knows no ranges sends all of it: then it is kept, from the beginning to where it is wanted.
    let at = answer.offset;
    let marked = at;
    for await (const bytes of answer.stream) {
      onByte();
      if (at + bytes.length > spec.size) throw wrongSize(spec, answer.host, at + bytes.length);
      this.#file.write(at, bytes);
      at += bytes.length;
      this.#file.mark(marked, at);
      marked = Math.floor(at / BLOCK) * BLOCK;
      if (at <= flight.at) continue;
      flight.at = at;
      for (const waiter of [...this.#waiters]) this.#settle(waiter);
    }
    if (at < flight.end) throw cutOff(spec, answer.host);
  }

  /** Whether the waiter has what it waits for. */
  #settle(waiter: Waiter): boolean {
    if (!this.#file.has(waiter.start, waiter.end)) return false;
    this.#waiters.delete(waiter);
    waiter.resolve();
    return true;
  }

  #fail(waiter: Waiter, failure: LaminaError): void {
    this.#waiters.delete(waiter);
    waiter.reject(failure);
  }
}

/** Nobody wants it any more. */
function isGiven(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function wrongSize({ digest, size }: RemoteBlobSpec, host: string, got: number): LaminaError {
  return new LaminaError('BLOB_SIZE_MISMATCH', `${host} has ${got} bytes of ${digest}, not ${size}`, {
    details: { digest, wanted: size, got, host },
  });
}

function cutOff({ digest }: RemoteBlobSpec, host: string): LaminaError {
  return new LaminaError('REGISTRY_UNREACHABLE', `${host} has sent only a part of ${digest}`, {
    details: { digest, host, transient: true },
  });
}

export function offline({ digest, access }: RemoteBlobSpec): LaminaError {
  const message = `${digest} of ${access.host}/${access.repository} is not in the store as a whole`;
  return new LaminaError('BLOB_MISSING', `${message}, and the registry must not be asked (--offline)`, {
    hint: 'Mount it once without --offline.',
    details: { digest, host: access.host },
  });
}
