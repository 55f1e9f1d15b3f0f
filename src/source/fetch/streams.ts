/**
 * Those who want all of a blob. Of one registry they share a transfer, which ends when the last of them has left; one that fails
 * for the access of another is begun again with one's own.
 */
import { isSameAccess, type RegistryAccess } from './access.js';

interface Stream {
  readonly access: RegistryAccess;
  readonly cancel: AbortController;
  readonly done: Promise<void>;
  wanted: number;
}

export class Streams {
  readonly #run: (access: RegistryAccess, signal: AbortSignal) => Promise<void>;
  /** By the registry's host. */
  readonly #running = new Map<string, Stream>();
  #wanted = 0;

  /** `run`: brings all of it, until `signal` says to leave it. */
  constructor(run: (access: RegistryAccess, signal: AbortSignal) => Promise<void>) {
    this.#run = run;
  }

  /** How many want it. */
  get wanted(): number {
    return this.#wanted;
  }

  /** Resolves when all of it is there, or `signal` says that it is not wanted any more. Throws what `run` throws. */
  async join(access: RegistryAccess, signal: AbortSignal): Promise<void> {
    const given = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    this.#wanted++;
    try {
      while (!signal.aborted) if (await this.#share(access, given)) return;
    } finally {
      this.#wanted--;
    }
  }

  /** False where it failed for the access of another. */
  async #share(access: RegistryAccess, given: Promise<void>): Promise<boolean> {
    const stream = this.#running.get(access.host) ?? this.#begin(access);
    stream.wanted++;
    try {
      await Promise.race([stream.done, given]);
      return true;
    } catch (e) {
      if (isSameAccess(stream.access, access)) throw e;
      return false;
    } finally {
      if (--stream.wanted === 0) {
        stream.cancel.abort();
        this.#forget(stream);
      }
    }
  }

  #begin(access: RegistryAccess): Stream {
    const cancel = new AbortController();
    const done = this.#run(access, cancel.signal).finally(() => this.#forget(stream));
    const stream: Stream = { access, cancel, done, wanted: 0 };
    this.#running.set(access.host, stream);
    return stream;
  }

  /** Whoever comes from now on does not join it. */
  #forget(stream: Stream): void {
    if (this.#running.get(stream.access.host) === stream) this.#running.delete(stream.access.host);
  }
}
