/** The daemon's log: JSON lines on stderr, which is RUN/log. Written at once, so that the last line before a death is there. */
import { pino, type Logger } from 'pino';

export type { Logger } from 'pino';

export function createLogger(part: string): Logger {
  return pino(
    {
      base: { part, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    pino.destination({ fd: 2, sync: true }),
  );
}

const INTERVAL_MS = 30_000;
const KEYS_MAX = 1000;

/** One line per class of event and half minute: a broken layer under a busy reader must not fill the disk with its log. */
export class Repetitions {
  readonly #seen = new Map<string, { since: number; suppressed: number }>();

  /** How often the event was passed over since it was last reported; undefined when this one is to be passed over too. */
  report(key: string, now = Date.now()): number | undefined {
    const seen = this.#seen.get(key);
    if (seen !== undefined && now - seen.since < INTERVAL_MS) {
      seen.suppressed++;
      return undefined;
    }
    if (this.#seen.size >= KEYS_MAX) this.#seen.clear();
    this.#seen.set(key, { since: now, suppressed: 0 });
    return seen?.suppressed ?? 0;
  }
}
