/** What was odd but not wrong in an archive: one line per class of oddity, not per entry. */

/** A name (latin1, one character a byte) for people: UTF-8 where it is, quoted, control characters escaped, cut to 200. */
export function printable(name: string): string {
  return JSON.stringify(Buffer.from(name.slice(0, 200), 'latin1').toString('utf8')) + (name.length > 200 ? '..' : '');
}

export class Notes {
  readonly #seen = new Map<string, { first: string; count: number }>();

  /** `what` is the class and must come from a fixed set of texts; `name` is a raw name that shows where. */
  add(what: string, name: string): void {
    const seen = this.#seen.get(what);
    if (seen === undefined) this.#seen.set(what, { first: printable(name), count: 1 });
    else seen.count++;
  }

  /** In the order of first appearance: `what: "name" (3 times)`. */
  list(): string[] {
    return [...this.#seen].map(
      ([what, { first, count }]) => `${what}: ${first}${count > 1 ? ` (${count} times)` : ''}`,
    );
  }
}
