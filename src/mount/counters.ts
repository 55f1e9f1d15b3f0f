/**
 * How many bytes the layers' readers have handled, by slot. Serve workers sit in a system call and cannot be asked, so
 * each thread counts in shared memory of its own, which the main thread only reads. A plain aligned store of 64 bits is
 * one instruction on every platform of ours.
 */

export interface ByteCounts {
  /** Given to readers. */
  readonly served: number;
  /** Hashed. */
  readonly verified: number;
  /** Decompressed from the source. */
  readonly filled: number;
}

const FIELDS = 3;
/** Pages of the memory that are not touched cost nothing. Slots beyond share counters: the numbers are for people. */
const SLOTS = 1 << 15;

export function createCounterMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(SLOTS * FIELDS * Float64Array.BYTES_PER_ELEMENT);
}

/** One thread's counters. */
export class Counters {
  readonly #counts: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.#counts = new Float64Array(memory);
  }

  add(slot: number, served: number, verified: number, filled: number): void {
    const at = (slot & (SLOTS - 1)) * FIELDS;
    const counts = this.#counts;
    counts[at] = (counts[at] ?? 0) + served;
    counts[at + 1] = (counts[at + 1] ?? 0) + verified;
    counts[at + 2] = (counts[at + 2] ?? 0) + filled;
  }

  get(slot: number): ByteCounts {
    const at = (slot & (SLOTS - 1)) * FIELDS;
    const counts = this.#counts;
    return { served: counts[at] ?? 0, verified: counts[at + 1] ?? 0, filled: counts[at + 2] ?? 0 };
  }
}
