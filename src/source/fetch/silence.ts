import { LaminaError } from '../../errors.js';
import type { Digest } from '../../digest/index.js';

/**
 * Aborts a request that is silent for too long. The reason is a transient REGISTRY_UNREACHABLE, which says that whoever was
 * asked is silent; that nobody wants the answer any more has another.
 */
export class Silence {
  readonly #controller = new AbortController();
  readonly #silent: LaminaError;
  #timer: NodeJS.Timeout | undefined;
  /** When something was heard last, of performance.now(). */
  since = performance.now();

  constructor(digest: Digest, host: string) {
    this.#silent = new LaminaError('REGISTRY_UNREACHABLE', `${host} sends nothing of ${digest}`, {
      details: { digest, host, transient: true },
    });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** From now on it may last for so many milliseconds. */
  allow(limit: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(this.#silent), limit);
  }

  broken(limit: number): void {
    this.since = performance.now();
    this.allow(limit);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}
