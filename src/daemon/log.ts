/** The daemon's log: JSON lines on stderr, which is RUN/log. Written at once, so that the last line before a death is there. */
import { pino, type Logger } from 'pino';

export type { Logger } from 'pino';

/** Bytes of lines that could not be written yet. */
const PENDING_MAX = 1024 * 1024;

/** A log that cannot be written (a full disk, a reader that has gone) must not end the mounts: its lines are lost. */
export function createLogger(part: string): Logger {
  const destination = pino.destination({ fd: 2, sync: true, maxLength: PENDING_MAX });
  destination.on('error', () => undefined);
  return pino(
    {
      base: { part, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    destination,
  );
}

const INTERVAL_MS = 30_000;
/** Classes of which one may speak in that time; the others are held back altogether. */
const KEYS_MAX = 100;

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
    if (seen === undefined && this.#seen.size >= KEYS_MAX) {
      for (const [other, { since }] of this.#seen) if (now - since >= INTERVAL_MS) this.#seen.delete(other);
      if (this.#seen.size >= KEYS_MAX) return undefined;
    }
    this.#seen.set(key, { since: now, suppressed: 0 });
    return seen?.suppressed ?? 0;
  }
}
