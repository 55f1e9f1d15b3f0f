/** Small, seedable randomness: the same seed gives the same numbers on every machine and version of Node. */

/** mulberry32, by Tommy Ettinger (public domain): 32 bits of state, which is plenty for choosing test cases. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to 2^32-1. */
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** `from` to `to`, both included. */
  int(from: number, to: number): number {
    return from + Math.floor((this.u32() / 2 ** 32) * (to - from + 1));
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.int(1, n) === 1;
  }

  /** Throws RangeError for an empty list. */
  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new RangeError('Nothing to pick from');
    return list[this.int(0, list.length - 1)] as T;
  }

  /** By weight. */
  weighted<T extends string>(weights: Readonly<Record<T, number>>): T {
    const all = Object.entries<number>(weights);
    let at = this.int(
      1,
      all.reduce((sum, [, weight]) => sum + weight, 0),
    );
    for (const [key, weight] of all) if ((at -= weight) <= 0) return key as T;
    throw new RangeError('Weights must be whole and positive');
  }
}

/** `size` bytes that depend on `seed` only. */
export function contentBytes(size: number, seed: number): Buffer {
  const random = new Random(seed);
  const bytes = Buffer.alloc(Math.ceil(size / 4) * 4);
  for (let at = 0; at < size; at += 4) bytes.writeUInt32LE(random.u32(), at);
  return bytes.subarray(0, size);
}
