/**
 * What a command prints: data to stdout, everything else to stderr. Lines are bytes in latin1 strings (see text.ts).
 */
import { LaminaError, errnoOf } from '../errors.js';
import { escapeBytes, escapeControls, toBytes, toText } from './text.js';

/** Whoever read our output has gone (EPIPE): the command ends, and nobody is told. */
export class OutputClosed extends Error {
  override readonly name = 'OutputClosed';
}

export type Color = 'red' | 'green' | 'yellow' | 'bold' | 'dim';

const SGR: Readonly<Record<Color, readonly [number, number]>> = {
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  bold: [1, 22],
  dim: [2, 22],
};

/** NO_COLOR (https://no-color.org), a terminal that can do nothing, or no terminal at all: no colour. */
export function wantsColor(stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv): boolean {
  const { NO_COLOR, TERM } = env;
  return stream.isTTY === true && (NO_COLOR === undefined || NO_COLOR === '') && TERM !== 'dumb';
}

export function paint(enabled: boolean, color: Color, text: string): string {
  if (!enabled) return text;
  const [on, off] = SGR[color];
  return `\x1b[${on}m${text}\x1b[${off}m`;
}

export interface OutputOptions {
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  readonly json: boolean;
  /** Only ids and paths on stdout, only warnings and errors on stderr. */
  readonly quiet: boolean;
  readonly env: NodeJS.ProcessEnv;
}

const BATCH = 65_536;

export class Output {
  readonly json: boolean;
  readonly quiet: boolean;
  /** Whether stdout is a terminal. */
  readonly tty: boolean;
  readonly stderr: NodeJS.WriteStream;
  /** Called before a line goes to stderr, to take away what moves there. */
  beforeNote: () => void = () => undefined;
  readonly #stdout: NodeJS.WriteStream;
  readonly #colors: { readonly stdout: boolean; readonly stderr: boolean };

  constructor({ stdout, stderr, json, quiet, env }: OutputOptions) {
    this.json = json;
    this.quiet = quiet;
    this.tty = stdout.isTTY === true;
    this.stderr = stderr;
    this.#stdout = stdout;
    this.#colors = { stdout: wantsColor(stdout, env), stderr: wantsColor(stderr, env) };
    // Failures are found out by the writes below; without a listener the event would end the process.
    for (const stream of [stdout, stderr]) stream.on('error', () => undefined);
  }

  /** Resolves when there is room for more. Throws OutputClosed, and IO where the output cannot be written. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#check();
    if (!this.#stdout.write(chunk) && !this.#failed()) await this.#drained();
    this.#check();
  }

  /** Each with a newline after it. */
  async lines(lines: Iterable<string>): Promise<void> {
    let batch = '';
    for (const line of lines) {
      batch += `${line}\n`;
      if (batch.length < BATCH) continue;
      await this.write(Buffer.from(batch, 'latin1'));
      batch = '';
    }
    if (batch !== '') await this.write(Buffer.from(batch, 'latin1'));
  }

  /** One JSON document. */
  async document(value: unknown): Promise<void> {
    await this.write(Buffer.from(`${JSON.stringify(value, undefined, 2)}\n`, 'utf8'));
  }

  /** One JSON document, an array, whose elements are made while it is written. */
  async array(values: Iterable<unknown>): Promise<void> {
    await this.lines(arrayLines(values));
  }

  /** A name out of an image, for a line on stdout. */
  name(bytes: string): string {
    return this.tty ? escapeBytes(bytes) : bytes;
  }

  /** Text of ours or out of an image's documents, for a line on stdout. */
  text(text: string): string {
    return this.name(toBytes(text));
  }

  /** Colours a part of a line on stdout. */
  paint(color: Color, text: string): string {
    return paint(this.#colors.stdout, color, text);
  }

  /** What was done, for people; not with -q, and not with --json, where the document says it. */
  note(text: string): void {
    if (!this.quiet && !this.json) this.#note(escapeControls(text));
  }

  warn(text: string): void {
    this.#note(`lamina: ${paint(this.#colors.stderr, 'yellow', 'warning:')} ${escapeControls(text)}`);
  }

  /** Resolves when all of it has left the process. */
  async flush(): Promise<void> {
    if (this.#failed()) return;
    await new Promise<void>((resolve) => this.#stdout.write('', () => resolve()));
  }

  #note(line: string): void {
    this.beforeNote();
    this.stderr.write(`${line}\n`);
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        for (const event of ['drain', 'error', 'close']) this.#stdout.off(event, done);
        resolve();
      };
      for (const event of ['drain', 'error', 'close']) this.#stdout.on(event, done);
    });
  }

  #failed(): boolean {
    return this.#stdout.errored !== null || this.#stdout.destroyed;
  }

  #check(): void {
    if (!this.#failed()) return;
    const { errored } = this.#stdout;
    if (errored === null || errnoOf(errored) === 'EPIPE') throw new OutputClosed();
    throw new LaminaError(
      errnoOf(errored) === 'ENOSPC' ? 'DISK_FULL' : 'IO',
      `Cannot write the output: ${errored.message}`,
      {
        cause: errored,
      },
    );
  }
}

function* arrayLines(values: Iterable<unknown>): Generator<string> {
  let before = '';
  for (const value of values) {
    if (before !== '') yield `${before},`;
    else yield '[';
    before = `  ${toBytes(JSON.stringify(value))}`;
  }
  if (before === '') yield '[]';
  else {
    yield before;
    yield ']';
  }
}

/** Rows as aligned columns, two spaces apart. `right`: the numbers of columns aligned to the right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, width(cell))));
  return rows.map((row) =>
    row
      .map((cell, i) => {
        const padding = ' '.repeat((widths[i] ?? 0) - width(cell));
        return right.includes(i) ? padding + cell : cell + padding;
      })
      .join('  ')
      .trimEnd(),
  );
}

const COLOR_SEQUENCE = new RegExp(`${String.fromCharCode(27)}\\[\\d+m`, 'g');

/** Columns that the bytes of a cell take: one for each character, none for a colour. */
function width(cell: string): number {
  return [...toText(cell.replace(COLOR_SEQUENCE, ''))].length;
}

/** Two columns, names to the left. An entry without a value is left out. */
export function keyValues(entries: readonly (readonly [string, string | undefined])[]): string[] {
  return table(entries.flatMap(([key, value]) => (value === undefined ? [] : [[`${key}:`, value]])));
}
