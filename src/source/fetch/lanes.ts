/** How much work of a kind runs at once; the rest waits in its order. */
export class Lane {
  readonly #width: number;
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(width: number) {
    this.#width = width;
    this.#free = width;
  }

  /** Throws what `work` throws, and the reason of `signal` where that comes before its turn. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await this.#turn(signal);
    try {
      signal?.throwIfAborted();
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }

  /** Nothing runs, and nothing waits. */
  get idle(): boolean {
    return this.#free === this.#width;
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const take = (): void => {
        signal?.removeEventListener('abort', giveUp);
        resolve();
      };
      const giveUp = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1);
        reject(signal?.reason as Error);
      };
      this.#waiting.push(take);
      signal?.addEventListener('abort', giveUp, { once: true });
      if (signal?.aborted === true) giveUp();
    });
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
