/** How long a supervisor waits with the next server when one has died, and when it is not worth trying. */

/** Milliseconds, after a server that never served, which the next one will hardly do either. Clients wait a little longer (client.ts). */
const STILLBORN_MAX_MS = 8000;
/** After one that did: readers of all mounts wait for the next. */
const SERVED_MAX_MS = 1000;
/** A server that has served this long was well: the next restart is immediate again. */
const HEALTHY_AFTER_MS = 5000;
/** A server that dies so often in a row, without having served for long, will do so again. */
const HOPELESS_AFTER = 4;

export class RestartPause {
  #pause = 0;
  /** Servers in a row that died early. */
  #early = 0;

  get hopeless(): boolean {
    return this.#early >= HOPELESS_AFTER;
  }

  /** Milliseconds to wait now. `servedMs`: how long the server had served that has died; undefined where it never did. */
  died(servedMs: number | undefined): number {
    if ((servedMs ?? 0) > HEALTHY_AFTER_MS) this.#pause = this.#early = 0;
    this.#early++;
    const now = Math.min(this.#pause, servedMs === undefined ? STILLBORN_MAX_MS : SERVED_MAX_MS);
    this.#pause = now * 2 + 50;
    return now;
  }
}
