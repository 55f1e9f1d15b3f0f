/** What is worth fetching beyond what is waited for, by what of a blob has been read, and by how far its registry is. */
import type { ByteRange } from './block-file.js';

/** Bytes between two parts that are wanted one after the other, for them to count as following each other. */
const STRIDE = 256 * 1024;
/** Bytes that were wanted in order before more is fetched ahead: half of what a program loads is read as far as that. */
const IN_ORDER_MIN = 2 * 1024 * 1024;
/** Bytes that are fetched ahead of a reader: as many as it has read in order, up to this. */
export const AHEAD_MAX = 2 * 1024 * 1024;
/** A blob of which this part has been wanted is fetched as a whole. */
const MOST = 1 / 3;
/** A registry that takes more milliseconds to begin an answer is far: then more is asked for at once, if there is less to ask for. */
const FAR_MS = 20;
/** Bytes: about what comes in the time that a request takes. With more, few requests are saved (PERFORMANCE.md). */
const FAR_PART = 96 * 1024;
/** Bytes: what else is asked for costs a registry that is near as much as this. */
const NEAR_PART = 64 * 1024;
/** By how much an answer is expected to take longer than the quickest of the last: one that is near may be slow now and then. */
const SLOWER = 1.2;

export class ReadPattern {
  readonly #size: number;
  /** Where the part that was wanted last ends, and how many bytes were wanted in order up to there. */
  #frontier = 0;
  #inOrder = 0;
  #needed = 0;
  /** Of performance.now(). */
  #awaitedAt = performance.now();

  /** `size`: bytes of the blob. */
  constructor(size: number) {
    this.#size = size;
  }

  /** Bytes that somebody has waited for. */
  get needed(): number {
    return this.#needed;
  }

  /** Milliseconds since something was asked for. */
  get quietMs(): number {
    return performance.now() - this.#awaitedAt;
  }

  /** Something is asked for, though nobody may wait for it. */
  awaited(): void {
    this.#awaitedAt = performance.now();
  }

  /**
   * A part that had to be fetched is waited for; what to fetch ahead now, `all` where that is the whole blob. `streamed`: it is
   * fetched as a whole already.
   */
  wanted(start: number, end: number, streamed: boolean): ByteRange | 'all' | undefined {
    this.awaited();
    const follows = start >= this.#frontier - STRIDE && start <= this.#frontier + STRIDE;
    this.#inOrder = follows ? this.#inOrder + end - start : 0;
    this.#frontier = end;
    this.#needed += end - start;
    const isAll = start === 0 && end === this.#size;
    if (this.#needed > this.#size * MOST && !streamed && !isAll) return 'all';
    if (this.#inOrder <= IN_ORDER_MIN) return undefined;
    return { start: end, end: Math.min(end + Math.min(this.#inOrder, AHEAD_MAX), this.#size) };
  }
}

export class Distance {
  /** Milliseconds until an answer begins, by the quickest of the last. */
  #answerMs: number | undefined;

  answered(ms: number): void {
    this.#answerMs = Math.min(ms, (this.#answerMs ?? ms) * SLOWER);
  }

  /** Bytes that a request had best be for. */
  get part(): number {
    return (this.#answerMs ?? 0) > FAR_MS ? FAR_PART : NEAR_PART;
  }
}
