/**
 * Brings one blob into the store: the parts that somebody waits for, each in a request of its own; what comes behind them,
 * where they follow each other; and the whole of it from the beginning on where somebody wants that, or has come to read so
 * much of it that the rest is sooner had than asked for piece by piece. What is under way from the same registry is not asked for
 * twice; where that fails for another image, it is asked for as one's own image says. A transfer that is cut off goes on where it
 * was, until `recoverMs` have passed without a byte.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest } from '../../digest/index.js';
import { LaminaError, toLaminaError } from '../../errors.js';
import type { RegistryClient } from '../registry/client.js';
import { isTransient, retryAfterOf } from '../registry/failures.js';
import { isSameAccess, type RegistryAccess } from './access.js';
import { BLOCK, type BlockFile, type ByteRange } from './block-file.js';
import type { Lanes } from './lanes.js';
import type { RemoteBlobSpec } from './protocol.js';
import { AHEAD_MAX, Distance, ReadPattern } from './read-pattern.js';
import { Silence } from './silence.js';
import { Streams } from './streams.js';
import type { TraceFile } from './trace-file.js';

/**
 * What is given up for another attempt is silent for this part of the time after which a read is failed: before its answer
 * begins, where by default it is the time that the transport gives it (HEADERS_MS there), and after that.
 */
const UNANSWERED_PART = 0.5;
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
  readonly access: RegistryAccess;
  readonly end: number;
  at: number;
  /** False while it waits for others of its kind. */
  begun: boolean;
}

/** A part of the blob, and how it may be had. */
interface Wanted extends ByteRange {
  readonly access: RegistryAccess;
}

interface Listener {
  readonly onAnswer: () => void;
  readonly onByte: () => void;
}

interface Waiter extends Wanted {
  readonly resolve: () => void;
  readonly reject: (e: LaminaError) => void;
}

export interface DownloadOptions {
  readonly digest: Digest;
  readonly file: BlockFile;
  readonly trace: TraceFile;
  /** Undefined: nothing may be asked of the network. */
  readonly clientFor: (access: RegistryAccess) => RegistryClient | undefined;
  /** Of a host. */
  readonly lanesOf: (host: string) => Lanes;
  /** Milliseconds without a byte after which a read is failed. Registries are restarted, and networks come back. */
  readonly recoverMs: number;
}

export class Download {
  readonly #options: DownloadOptions;
  readonly #file: BlockFile;
  readonly #flights = new Set<Flight>();
  readonly #waiters = new Set<Waiter>();
  /** Those who want all of it. */
  readonly #streams = new Streams((access, signal) => this.#streamAll(access, signal));
  /** Those who want it to be completed when there is time. */
  #completers = 0;
  readonly #pattern: ReadPattern;
  readonly #distance = new Distance();

  constructor(options: DownloadOptions) {
    this.#options = options;
    this.#file = options.file;
    this.#pattern = new ReadPattern(options.file.size);
  }

  get idle(): boolean {
    return this.#flights.size === 0 && this.#waiters.size === 0 && this.#streams.wanted === 0 && this.#completers === 0;
  }

  has(start: number, end: number): boolean {
    return this.#file.has(start, end);
  }

  /** Resolves when the bytes are in the store; `mounted`: see ToFetcher. Throws REGISTRY_*, BLOB_MISSING, BLOB_SIZE_MISMATCH, DISK_FULL, IO. */
  want({ access, start, end }: Wanted, mounted: boolean): Promise<void> {
    if (this.#file.has(start, end)) return Promise.resolve();
    const again = [...this.#waiters].some((waiter) => waiter.start <= start && end <= waiter.end);
    return new Promise((resolve, reject) => {
      this.#waiters.add({ access, start, end, resolve, reject });
      this.#cover({ access, start, end: mounted ? this.#reach(start, end) : end }, 'demand');
      if (again) return;
      // Who reads all of it says nothing about what is read first.
      if (mounted && this.#streams.wanted === 0) this.#options.trace.add({ start, end });
      this.#lookAhead({ access, start, end });
    });
  }

  /** Begins to bring what will be wanted. */
  prefetch(part: Wanted): void {
    const { start, end } = part;
    if (this.#file.has(start, end)) return;
    this.#options.trace.add({ start, end });
    this.#pattern.awaited();
    this.#cover(part, 'ahead');
  }

  /** Where to end a request for a part: what is worth having comes with it, up to what is there already. */
  #reach(start: number, end: number): number {
    const more = this.#file.missing(end, start + this.#distance.part);
    return more !== undefined && more.start <= end ? more.end : end;
  }

  #lookAhead({ access, start, end }: Wanted): void {
    const next = this.#pattern.wanted(start, end, this.#streams.wanted > 0);
    // Who waits for parts of it is told when it fails.
    if (next === 'all') void this.stream(access, new AbortController().signal).catch(() => undefined);
    else if (next !== undefined) this.prefetch({ access, ...next });
  }

  /** Resolves when all of it is in the store, or `signal` says that it is not wanted any more. Throws as {@link want} does. */
  stream(access: RegistryAccess, signal: AbortSignal): Promise<void> {
    return this.#streams.join(access, signal);
  }

  /** Bytes that somebody has waited for. */
  get needed(): number {
    return this.#pattern.needed;
  }

  /**
   * Brings what is missing, piece by piece, when nobody has waited for anything for a while: `rate` bytes a second at most, or
   * as many as come. Throws what is no passing failure.
   */
  async complete(access: RegistryAccess, rate: number, signal: AbortSignal): Promise<void> {
    this.#completers++;
    try {
      await this.#complete(access, rate, signal);
    } finally {
      this.#completers--;
    }
  }

  async #complete(access: RegistryAccess, rate: number, signal: AbortSignal): Promise<void> {
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
      const failure = await this.#fly({ access, at: missing.start, end, begun: false }, 'background', signal);
      if (isGiven(signal)) return;
      if (failure !== undefined && !isTransient(failure)) throw failure;
      const took = performance.now() - began;
      await sleep(failure === undefined ? Math.max((1000 * (end - missing.start)) / rate - took, 0) : LATER_MS);
      at = end;
    }
  }

  /**
   * Starts transfers of what is not there and does not come soon from the same registry; `own`: for the same image, where
   * another's has failed.
   */
  #cover({ access, start, end }: Wanted, lane: keyof Lanes, own = false): void {
    const joined = (of: Flight): boolean => (own ? isSameAccess(of.access, access) : of.access.host === access.host);
    for (let run = this.#file.missing(start, end); run !== undefined; run = this.#file.missing(run.end, end)) {
      // What somebody waits for does not wait behind what nobody does; that passes over what is there when its turn comes.
      const flights = [...this.#flights].filter((f) => (f.begun || lane !== 'demand') && joined(f));
      for (let at = run.start; at < run.end;) {
        const coming = flights.find((f) => f.at <= at && at < f.end && at - f.at < AHEAD);
        if (coming !== undefined) {
          at = coming.end;
          continue;
        }
        const next = Math.min(run.end, ...flights.map((f) => f.at).filter((begin) => begin > at));
        void this.#fly({ access, at, end: next, begun: lane === 'demand' }, lane, undefined);
        at = next;
      }
    }
  }

  async #streamAll(access: RegistryAccess, signal: AbortSignal): Promise<void> {
    const { size } = this.#file;
    for (let at = 0; at < size && !signal.aborted;) {
      const missing = this.#file.missing(at, size);
      if (missing === undefined) return;
      let { end } = missing;
      for (let next = this.#file.missing(end, size); next !== undefined && next.start - end < GAP;) {
        ({ end } = next);
        next = this.#file.missing(end, size);
      }
      const failure = await this.#fly({ access, at: missing.start, end, begun: false }, 'stream', signal);
      if (signal.aborted) return;
      if (failure !== undefined) throw failure;
      at = end;
    }
  }

  /** What it failed with. Those who wait for its bytes are told; who would have asked otherwise, asks. */
  async #fly(flight: Flight, lane: keyof Lanes, signal: AbortSignal | undefined): Promise<LaminaError | undefined> {
    this.#flights.add(flight);
    let failure: LaminaError | undefined;
    try {
      await this.#options.lanesOf(flight.access.host)[lane].run(() => this.#transfer(flight, signal));
    } catch (e) {
      failure = toLaminaError(e, `Fetching ${this.#options.digest}`);
    }
    this.#flights.delete(flight);
    const given = isGiven(signal);
    for (const waiter of [...this.#waiters]) {
      if (this.#settle(waiter) || waiter.end <= flight.at || waiter.start >= flight.end) continue;
      if (failure === undefined || given) this.#cover(waiter, 'demand');
      else if (isSameAccess(waiter.access, flight.access)) this.#fail(waiter, failure);
      else this.#cover(waiter, 'demand', true);
    }
    return failure;
  }

  async #transfer(flight: Flight, given: AbortSignal | undefined): Promise<void> {
    const { recoverMs, digest } = this.#options;
    flight.begun = true;
    flight.at = this.#file.missing(flight.at, flight.end)?.start ?? flight.end;
    let lastByte = performance.now();
    for (let attempt = 0; flight.at < flight.end && !isGiven(given);) {
      const before = flight.at;
      const silence = new Silence(digest, flight.access.host);
      const end = lastByte + recoverMs;
      silence.allow(Math.min(recoverMs * UNANSWERED_PART, end - performance.now()));
      const signal = given === undefined ? silence.signal : AbortSignal.any([given, silence.signal]);
      try {
        await this.#request(flight, signal, {
          onAnswer: () => silence.allow(Math.min(recoverMs * SILENT_PART, end - performance.now())),
          onByte: () => silence.broken(recoverMs * SILENT_PART),
        });
      } catch (e) {
        if (isGiven(given)) return;
        if (flight.at > before) {
          attempt = 0;
          lastByte = silence.since;
        }
        // A registry that asks for no pause, or for one that is over, is not asked in a storm.
        const pause = Math.max(retryAfterOf(e) ?? 0, Math.min(PAUSE_MS * 2 ** attempt++, PAUSE_MAX_MS));
        if (!isTransient(e) || performance.now() + pause - lastByte > recoverMs) throw e;
        await sleep(pause);
      } finally {
        silence.end();
      }
    }
  }

  /** One request. Throws when it ends too early. */
  async #request(flight: Flight, signal: AbortSignal, { onAnswer, onByte }: Listener): Promise<void> {
    const { digest, clientFor } = this.#options;
    const { access } = flight;
    const { size } = this.#file;
    const client = clientFor(access);
    if (client === undefined) throw offline({ digest, access });
    const offset = Math.floor(flight.at / BLOCK) * BLOCK;
    const whole = offset === 0 && flight.end === size;
    const length = flight.end - offset;
    const range = whole ? {} : { offset, length };
    const asked = performance.now();
    const options = { ...range, size, signal, retry: { attempts: 1 } };
    const answer = await client.blob(access.repository, digest, options);
    onAnswer();
    this.#distance.answered(performance.now() - asked);
    if (answer.total !== undefined && answer.total !== size) {
      await answer.cancel();
      throw wrongSize({ digest, size }, answer.host, answer.total);
    }
    // A registry that knows no ranges sends all of it: then it is kept, from the beginning to where it is wanted.
    let at = answer.offset;
    let marked = at;
    for await (const bytes of answer.stream) {
      onByte();
      if (at + bytes.length > size) throw wrongSize({ digest, size }, answer.host, at + bytes.length);
      this.#file.write(at, bytes);
      at += bytes.length;
      this.#file.mark(marked, at);
      marked = Math.floor(at / BLOCK) * BLOCK;
      if (at <= flight.at) continue;
      flight.at = at;
      for (const waiter of [...this.#waiters]) this.#settle(waiter);
    }
    if (at < flight.end) throw cutOff(digest, answer.host);
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

function wrongSize({ digest, size }: Pick<RemoteBlobSpec, 'digest' | 'size'>, host: string, got: number): LaminaError {
  return new LaminaError('BLOB_SIZE_MISMATCH', `${host} has ${got} bytes of ${digest}, not ${size}`, {
    details: { digest, wanted: size, got, host },
  });
}

function cutOff(digest: Digest, host: string): LaminaError {
  return new LaminaError('REGISTRY_UNREACHABLE', `${host} has sent only a part of ${digest}`, {
    details: { digest, host, transient: true },
  });
}

export function offline({ digest, access }: Pick<RemoteBlobSpec, 'digest' | 'access'>): LaminaError {
  const message = `${digest} of ${access.host}/${access.repository} is not in the store as a whole`;
  return new LaminaError('BLOB_MISSING', `${message}, and the registry must not be asked (--offline)`, {
    hint: 'Mount it once without --offline.',
    details: { digest, host: access.host },
  });
}
