/** What is being made for clients, which a stop of the daemon cancels. */
import { setTimeout as delay } from 'node:timers/promises';
import { LaminaError } from '../errors.js';

/** What is cancelled gets this long to notice that it is not wanted any more. */
const CANCEL_TIMEOUT_MS = 10_000;

export class UnderWay {
  readonly #pending = new Map<Promise<unknown>, AbortController>();
  #refuses = false;

  /** The signal that `act` gets is aborted by {@link cancel}, and by `signal`. Throws DAEMON_UNREACHABLE where nothing is begun any more. */
  async run<T>(signal: AbortSignal, act: (both: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#refuses) throw aboutToEnd();
    const controller = new AbortController();
    const done = act(AbortSignal.any([signal, controller.signal]));
    this.#pending.set(done, controller);
    try {
      return await done;
    } finally {
      this.#pending.delete(done);
    }
  }

  /** Nothing is begun from now on, or it is again. */
  refuse(refuses: boolean): void {
    this.#refuses = refuses;
  }

  /** Resolves when all of it has ended, or has had its time. */
  async cancel(): Promise<void> {
    for (const controller of this.#pending.values()) controller.abort(aboutToEnd());
    const ended = Promise.allSettled(this.#pending.keys());
    await Promise.race([ended, delay(CANCEL_TIMEOUT_MS, undefined, { ref: false })]);
  }
}

function aboutToEnd(): LaminaError {
  return new LaminaError('DAEMON_UNREACHABLE', 'The daemon is about to end');
}
