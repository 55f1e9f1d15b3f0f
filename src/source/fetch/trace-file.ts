/**
 * What readers of a registry's blob have waited for, in the order of their waiting, in a file beside the blob (`.trace`): a line
 * for each part, of milliseconds since 1970 and the bytes from and up to which. It is a hint for other machines on what a
 * container reads first (../trace), and only the beginning of it is kept.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import type { ByteRange } from './block-file.js';

/** Milliseconds from the first part on: containers have started then. */
const RECORDED_MS = 30_000;
const PARTS_MAX = 2000;
/** Of a line, bytes. */
const LINE_MAX = 64;

export interface TracedPart extends ByteRange {
  /** Since 1970. */
  readonly ms: number;
}

export class TraceFile {
  readonly #path: string;
  #parts: number;
  readonly #until: number;

  constructor(blobPath: string) {
    this.#path = tracePath(blobPath);
    const before = readTraceFile(blobPath);
    this.#parts = before.length;
    this.#until = (before[0]?.ms ?? Date.now()) + RECORDED_MS;
  }

  /** Nothing is lost where it cannot be kept. */
  add({ start, end }: ByteRange): void {
    const now = Date.now();
    if (now > this.#until || this.#parts >= PARTS_MAX) return;
    this.#parts++;
    try {
      appendFileSync(this.#path, `${now} ${start} ${end}\n`, { mode: 0o600 });
    } catch {
      this.#parts = PARTS_MAX;
    }
  }
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
