/** Attempts of one request: back-off with jitter, the registry's own Retry-After, an end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isTransient, retryAfterOf } from './failures.js';

export interface RetryOptions {
  /** In all. */
  readonly attempts: number;
  /** Milliseconds in which the last attempt must have begun. */
  readonly totalMs: number;
  /** Milliseconds before the second attempt, at most; it doubles from one to the next. */
  readonly baseMs: number;
  /** Milliseconds between two attempts, at most, where the registry does not say how long. */
  readonly capMs: number;
}

export const defaultRetry: RetryOptions = { attempts: 5, totalMs: 60_000, baseMs: 250, capMs: 8000 };

/** Calls `attempt` until it works, fails for good ({@link isTransient}), or the attempts or the time are used up. */
export async function retrying<T>(
  attempt: () => Promise<T>,
  { attempts, totalMs, baseMs, capMs }: RetryOptions,
  signal: AbortSignal | undefined,
): Promise<T> {
  const end = performance.now() + totalMs;
  for (let n = 1; ; n++) {
    try {
      return await attempt();
    } catch (e) {
      if (n >= attempts || !isTransient(e)) throw e;
      const backOff = Math.min(capMs, baseMs * 2 ** (n - 1));
      // At least half of it, so that a crowd spreads out and nobody comes back at once, whatever the registry says.
      const wait = Math.max(retryAfterOf(e) ?? 0, backOff * (0.5 + Math.random() / 2));
      if (performance.now() + wait > end) throw e;
      await sleep(wait, undefined, signal === undefined ? {} : { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}
