/** A password or token, which shows itself only where it is asked to: never in errors, JSON, logs or `util.inspect`. */
import { inspect } from 'node:util';

const SHOWN = '[redacted]';

export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  /** The text itself: for a request, a credential helper, or a file of mode 0600. */
  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return SHOWN;
  }

  toJSON(): string {
    return SHOWN;
  }

  [inspect.custom](): string {
    return SHOWN;
  }
}
