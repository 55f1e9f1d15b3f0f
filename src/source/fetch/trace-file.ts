/**
 * What readers of a registry's blob have used first, in the order of their use, in a file beside the blob (`.trace`): a line
 * for each part, of milliseconds since 1970 and the bytes from and up to which. It is a hint for other machines on what a
 * container reads first (../trace), and only the beginning of it is kept.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import type { ByteRange } from './block-file.js';

/** Milliseconds from the first part on: containers have started then. */
export const RECORDED_MS = 30_000;
const PARTS_MAX = 2000;
/** Of a line, bytes. */
const LINE_MAX = 64;

export interface TracedPart extends ByteRange {
  /** Since 1970. */
  readonly ms: number;
}

export class TraceFile {
  readonly #path: string;
  readonly #parts: Set<string>;
  /** Milliseconds since 1970. */
  #until: number | undefined;
  #fails = false;

  constructor(blobPath: string) {
    this.#path = tracePath(blobPath);
    const before = readTraceFile(blobPath);
    this.#parts = new Set(before.map(keyOf));
    if (before[0] !== undefined) this.#until = before[0].ms + RECORDED_MS;
  }

  /** Nothing is lost where it cannot be kept. */
  add(part: ByteRange): void {
    if (part.end <= part.start) return;
    const now = Date.now();
    this.#until ??= now + RECORDED_MS;
    const key = keyOf(part);
    if (this.#fails || now > this.#until || this.#parts.size >= PARTS_MAX || this.#parts.has(key)) return;
    this.#parts.add(key);
    try {
      appendFileSync(this.#path, `${now} ${key}\n`, { mode: 0o600 });
    } catch {
      this.#fails = true;
    }
  }
}

function keyOf({ start, end }: ByteRange): string {
  return `${start} ${end}`;
}

/** Empty where nothing has been recorded, or it cannot be read. */
export function readTraceFile(blobPath: string): TracedPart[] {
  let text: string;
  try {
    text = readFileSync(tracePath(blobPath), 'latin1').slice(0, PARTS_MAX * LINE_MAX);
  } catch {
    return [];
  }
  return [...text.matchAll(/^(\d{1,15}) (\d{1,15}) (\d{1,15})$/gm)].map(([, ms, start, end]) => ({
    ms: Number(ms),
    start: Number(start),
    end: Number(end),
  }));
}

function tracePath(blobPath: string): string {
  return `${blobPath}.trace`;
}
