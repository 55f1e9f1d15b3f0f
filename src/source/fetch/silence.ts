import { LaminaError } from '../../errors.js';
import type { RemoteBlobSpec } from './protocol.js';

/** Aborts a request that is silent for too long. */
export class Silence {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  /** Of performance.now(). */
  since = performance.now();

  constructor({ digest, access }: RemoteBlobSpec, limit: number) {
    const silent = new LaminaError('REGISTRY_UNREACHABLE', `${access.host} sends nothing of ${digest}`, {
      details: { digest, host: access.host, transient: true },
    });
    this.#timer = setTimeout(() => this.#controller.abort(silent), limit);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  broken(): void {
    this.since = performance.now();
    this.#timer.refresh();
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}
