/**
 * How the preparation of an image is shown, on stderr: `tty` a bar for each layer at work, `plain` a line for each change
 * of state, `json` the events as they are, one a line, `none` nothing. What is known already is not shown.
 */
import type { ProgressEvent } from '../image/progress.js';
import type { Output } from './output.js';
import { escapeControls, formatBytes, formatDuration, formatRate, plural, shortDigest } from './text.js';

export const progressModes = ['auto', 'plain', 'tty', 'json', 'none'] as const;
export type ProgressMode = (typeof progressModes)[number];

/** Preparing an image, or verifying one. */
export type ShownEvent =
  | ProgressEvent
  | (Omit<Extract<ProgressEvent, { type: 'layer' }>, 'state'> & { readonly state: 'verifying' | 'verified' });

export interface Progress {
  readonly onProgress: (event: ShownEvent) => void;
  /** Takes away what moves; call it when the preparation has ended, well or not. */
  end(): void;
}

export interface ProgressOptions {
  readonly mode: ProgressMode;
  readonly output: Output;
  readonly env: NodeJS.ProcessEnv;
  /** Milliseconds, of any origin. */
  readonly now?: () => number;
}

/** With -q, `auto` is `none`. */
export function createProgress({ mode, output, env, now = () => performance.now() }: ProgressOptions): Progress {
  switch (mode === 'auto' ? chooseMode(output, env) : mode) {
    case 'none':
      return { onProgress: () => undefined, end: () => undefined };
    case 'json':
      return { onProgress: (event) => void output.stderr.write(`${JSON.stringify(event)}\n`), end: () => undefined };
    case 'tty':
      return new BarProgress(output, now);
    case 'plain':
      return new LineProgress(output, now);
  }
}

function chooseMode(output: Output, env: NodeJS.ProcessEnv): Exclude<ProgressMode, 'auto'> {
  if (output.quiet) return 'none';
  return output.stderr.isTTY === true && env['TERM'] !== 'dumb' ? 'tty' : 'plain';
}

type LayerEvent = Extract<ShownEvent, { type: 'layer' }>;

function isWorking(state: LayerEvent['state']): boolean {
  return state === 'indexing' || state === 'verifying';
}

class LineProgress implements Progress {
  readonly #stderr: NodeJS.WriteStream;
  readonly #now: () => number;
  readonly #started = new Map<number, number>();
  #heading = '';
  #layers = 0;

  constructor(output: Output, now: () => number) {
    this.#stderr = output.stderr;
    this.#now = now;
  }

  readonly onProgress = (event: ShownEvent): void => {
    switch (event.type) {
      case 'waiting':
        this.#print(`${event.reference}: waiting for the registry`);
        return;
      case 'resolved':
        this.#layers = event.layers;
        this.#heading = `${event.reference}: ${plural(event.layers, 'layer')}, ${formatBytes(event.bytes)}`;
        return;
      case 'layer':
        this.#layer(event);
        return;
      case 'tree':
        if (event.state === 'merged') this.#print('tree merged');
    }
  };

  end(): void {
    this.#started.clear();
  }

  #layer({ layer, diffId, state, total }: LayerEvent): void {
    const what = `layer ${layer + 1}/${this.#layers} ${shortDigest(diffId)}`;
    const started = this.#started.get(layer);
    if (state === 'cached') return;
    if (state === 'lazy') {
      this.#print(`${what}: known by its table of contents; ${formatBytes(total)} come when they are read`);
      return;
    }
    const working = isWorking(state);
    if (working && started === undefined) {
      this.#started.set(layer, this.#now());
      this.#print(`${what}: ${state} ${formatBytes(total)}`);
    } else if (!working) {
      this.#print(`${what}: ${state}${started === undefined ? '' : took(total, (this.#now() - started) / 1000)}`);
    }
  }

  #print(line: string): void {
    if (this.#heading !== '') this.#stderr.write(`${escapeControls(this.#heading)}\n`);
    this.#heading = '';
    this.#stderr.write(`${escapeControls(line)}\n`);
  }
}

/** Bytes. Of less the time says nothing. */
const RATE_MIN = 1e6;

function took(bytes: number, seconds: number): string {
  const rate = bytes < RATE_MIN ? undefined : formatRate(bytes, seconds);
  return ` in ${formatDuration(seconds)}${rate === undefined ? '' : ` (${rate})`}`;
}

const REDRAW_MS = 100;
const BAR_WIDTH = 24;
/** Of what is not a terminal after all. */
const COLUMNS = 80;
/** More bars than this scroll away on a small terminal. */
const BARS_MAX = 8;
const CLEAR_BELOW = '\x1b[J';

interface Bar {
  readonly diffId: string;
  readonly started: number;
  done: number;
  total: number;
}

class BarProgress implements Progress {
  readonly #output: Output;
  readonly #now: () => number;
  readonly #bars = new Map<number, Bar>();
  #layers = 0;
  #finished = 0;
  #waiting = false;
  #merging = false;
  #drawn = 0;
  #drawnAt = -Infinity;

  constructor(output: Output, now: () => number) {
    this.#output = output;
    this.#now = now;
    output.beforeNote = () => this.#clear();
  }

  readonly onProgress = (event: ShownEvent): void => {
    switch (event.type) {
      case 'waiting':
        this.#waiting = true;
        break;
      case 'resolved':
        this.#waiting = false;
        this.#layers = event.layers;
        return;
      case 'tree':
        this.#merging = event.state === 'merging';
        break;
      case 'layer':
        this.#layer(event);
    }
    if (this.#now() - this.#drawnAt >= REDRAW_MS) this.#draw();
  };

  end(): void {
    this.#clear();
    this.#output.beforeNote = () => undefined;
  }

  #layer({ layer, diffId, state, done, total }: LayerEvent): void {
    if (!isWorking(state)) {
      this.#finished++;
      this.#bars.delete(layer);
      return;
    }
    const bar = this.#bars.get(layer) ?? { diffId, started: this.#now(), done, total };
    bar.done = done;
    bar.total = total;
    this.#bars.set(layer, bar);
  }

  #draw(): void {
    const lines = [...this.#bars]
      .slice(0, BARS_MAX)
      .map(([layer, bar]) =>
        barLine(`layer ${layer + 1}/${this.#layers} ${shortDigest(bar.diffId)}`, bar, this.#now()),
      );
    if (this.#waiting) lines.push('waiting for the registry');
    if (this.#bars.size > 0) lines.push(`${this.#finished} of ${plural(this.#layers, 'layer')} ready`);
    if (this.#merging) lines.push('merging the tree');
    const { columns = COLUMNS } = this.#output.stderr;
    this.#clear();
    this.#output.stderr.write(lines.map((line) => `${line.slice(0, Math.max(columns - 1, 1))}\n`).join(''));
    this.#drawn = lines.length;
    this.#drawnAt = this.#now();
  }

  #clear(): void {
    if (this.#drawn > 0) this.#output.stderr.write(`\x1b[${this.#drawn}A\r${CLEAR_BELOW}`);
    this.#drawn = 0;
    this.#drawnAt = -Infinity;
  }
}

function barLine(what: string, { started, done, total }: Bar, now: number): string {
  const part = total === 0 ? 1 : Math.min(done / total, 1);
  const full = Math.round(part * BAR_WIDTH);
  const bar = `${'='.repeat(full)}${' '.repeat(BAR_WIDTH - full)}`;
  const rate = formatRate(done, (now - started) / 1000) ?? '';
  const percent = String(Math.floor(part * 100)).padStart(3);
  return `${what} [${bar}] ${percent}% of ${formatBytes(total)}  ${rate}`;
}
