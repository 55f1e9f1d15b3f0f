/**
 * A ring of slots in shared memory from one thread to one other: bytes are copied in once, and both sides only wait
 * when the ring is full or empty. It carries an indexing pass from the thread that inflates to the one that hashes.
 *
 *     control (i32):  0 slots published   1 slots released   2 passes whose result was sent
 *     slot heads (2 x i32 per slot):  kind, bytes            slots: SLOT bytes each
 */

import type { MessagePort } from 'node:worker_threads';
import type { Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import type { PackedPoint } from './map.js';

export interface HashWorkerData {
  readonly memory: SharedArrayBuffer;
  readonly port: MessagePort;
}

/** The head of a `start` slot: which algorithms to use. */
export interface PassStart {
  readonly blob: Digest | undefined;
  readonly diffId: Digest;
}

export interface PassEnd {
  readonly blob: Digest;
  readonly diffId: Digest;
  readonly chunks: Uint8Array;
  readonly points: readonly PackedPoint[];
}

/** The layout of a `point` slot: u64 input, u64 output, u8 bits, u8 is a block, then the window at 24. */
export const POINT_WINDOW = 24;

/** Bytes of a slot: a multiple of the chunk size, so that full slots are hashed in place. */
export const SLOT = 1024 * 1024;
const SLOTS = 8;
const CONTROL = 4;

export const slotKind = { blob: 0, stream: 1, point: 2, end: 3, start: 4 } as const;

const PUBLISHED = 0;
const RELEASED = 1;
const RESULTS = 2;

/** A slot takes milliseconds: a thread that has done nothing for so long is dead. */
const STALL_MS = 60_000;

export class Ring {
  readonly memory: SharedArrayBuffer;
  readonly #control: Int32Array;
  readonly #slots: Buffer[];

  constructor(memory = new SharedArrayBuffer((CONTROL + 2 * SLOTS) * 4 + SLOTS * SLOT)) {
    this.memory = memory;
    this.#control = new Int32Array(memory, 0, CONTROL + 2 * SLOTS);
    const base = (CONTROL + 2 * SLOTS) * 4;
    this.#slots = Array.from({ length: SLOTS }, (_, i) => Buffer.from(memory, base + i * SLOT, SLOT));
  }

  /** Producer: the next free slot; waits for one. Only {@link publish} gives it away. */
  acquire(): Buffer {
    const c = this.#control;
    const published = Atomics.load(c, PUBLISHED);
    for (;;) {
      const released = Atomics.load(c, RELEASED);
      if (published - released < SLOTS) break;
      this.#wait(RELEASED, released);
    }
    return this.#slot(published);
  }

  publish(kind: number, length: number): void {
    const c = this.#control;
    const published = Atomics.load(c, PUBLISHED);
    const head = CONTROL + 2 * (published % SLOTS);
    c[head] = kind;
    c[head + 1] = length;
    Atomics.store(c, PUBLISHED, published + 1);
    Atomics.notify(c, PUBLISHED);
  }

  /** Consumer: the next slot's kind and bytes, valid until {@link release}; waits for one. */
  take(): { kind: number; bytes: Buffer } {
    const c = this.#control;
    const released = Atomics.load(c, RELEASED);
    for (;;) {
      const published = Atomics.load(c, PUBLISHED);
      if (published > released) break;
      Atomics.wait(c, PUBLISHED, published);
    }
    const head = CONTROL + 2 * (released % SLOTS);
    return { kind: c[head] ?? 0, bytes: this.#slot(released).subarray(0, c[head + 1] ?? 0) };
  }

  release(): void {
    Atomics.add(this.#control, RELEASED, 1);
    Atomics.notify(this.#control, RELEASED);
  }

  /** Consumer: a result was posted on the port beside the ring. */
  announceResult(): void {
    Atomics.add(this.#control, RESULTS, 1);
    Atomics.notify(this.#control, RESULTS);
  }

  /** Producer: waits for the `n`th result. */
  awaitResult(n: number): void {
    for (;;) {
      const results = Atomics.load(this.#control, RESULTS);
      if (results >= n) return;
      this.#wait(RESULTS, results);
    }
  }

  /** Waits until a counter is not `value` any more. Throws INTERNAL when the consumer is dead. */
  #wait(counter: number, value: number): void {
    const released = Atomics.load(this.#control, RELEASED);
    if (Atomics.wait(this.#control, counter, value, STALL_MS) !== 'timed-out') return;
    if (Atomics.load(this.#control, RELEASED) === released) {
      throw new LaminaError('INTERNAL', `The hashing thread has done nothing for ${STALL_MS / 1000} s`);
    }
  }

  #slot(n: number): Buffer {
    const slot = this.#slots[n % SLOTS];
    if (slot === undefined) throw new RangeError(`No slot ${n}`);
    return slot;
  }
}
