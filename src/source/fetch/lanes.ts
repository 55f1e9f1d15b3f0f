/** How much work of a kind runs at once; the rest waits in its order. */
export class Lane {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(width: number) {
    this.#free = width;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}

/** Of what somebody waits for, of what somebody will want next, and of whole blobs. */
export interface Lanes {
  readonly demand: Lane;
  readonly ahead: Lane;
  readonly stream: Lane;
  /** Of what nobody has wanted yet. */
  readonly background: Lane;
}
