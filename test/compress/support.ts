import { spawnSync } from 'node:child_process';
import { LaminaError } from '../../src/errors.js';
import { createDecoder, decodeFrom } from '../../src/compress/index.js';
import type { ByteSource, Compression, RestartPoint } from '../../src/compress/index.js';

/** Deterministic data as a layer has it: text, machine code (half random), zeros, copies of what came before. */
export function layerLike(length: number): Buffer {
  const out = Buffer.alloc(length);
  let state = 0x9e3779b9;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  let at = 0;
  while (at < length) {
    const run = Math.min(length - at, 500 + (next() % 40_000));
    const kind = next() % 5;
    for (let i = at; i < at + run; i++) {
      if (kind === 0) out[i] = next();
      else if (kind === 1) out[i] = 0;
      else if (kind === 2) out[i] = 97 + (next() % 7) * (next() % 3);
      else if (kind === 3) out[i] = i > 30_000 ? out[i - 30_000 + (run % 7)]! : 1;
      else out[i] = next() % 2 === 0 ? 0x48 : next();
    }
    at += run;
  }
  return out;
}

export interface Decoded {
  readonly output: Buffer;
  readonly points: readonly RestartPoint[];
  readonly diagnostics: readonly string[];
  readonly largest: number;
}

/** One pass; the input is cut after every `cut` bytes, or at the places in it. */
export function decodeAll(
  kind: Compression,
  bytes: Uint8Array,
  cut: number | readonly number[],
  spacing: number,
): Decoded {
  const points: RestartPoint[] = [];
  const decoder = createDecoder(kind, { spacing, onPoint: (point) => points.push(point) });
  const pieces: Buffer[] = [];
  let largest = 0;
  try {
    let at = 0;
    const cuts = typeof cut === 'number' ? everyOf(cut, bytes.length) : [...cut, bytes.length];
    for (const to of cuts) {
      decoder.push(bytes.subarray(at, to), (o) => {
        largest = Math.max(largest, o.length);
        pieces.push(Buffer.from(o));
      });
      at = to;
    }
    decoder.end();
    return { output: Buffer.concat(pieces), points, diagnostics: decoder.diagnostics, largest };
  } finally {
    decoder.close();
  }
}

function* everyOf(step: number, end: number): Generator<number> {
  for (let at = step; at < end; at += step) yield at;
  yield end;
}

export interface CountingSource extends ByteSource {
  bytesRead: number;
}

export function sourceOf(bytes: Uint8Array): CountingSource {
  return {
    size: bytes.length,
    bytesRead: 0,
    read(offset, into) {
      const piece = bytes.subarray(offset, offset + into.length);
      into.set(piece);
      this.bytesRead += piece.length;
      return piece.length;
    },
  };
}

export function decodeRange(kind: Compression, point: RestartPoint, source: ByteSource, length: number): Buffer {
  const pieces: Buffer[] = [];
  const n = decodeFrom(kind, point, source, length, (o) => pieces.push(Buffer.from(o)));
  const all = Buffer.concat(pieces);
  if (all.length !== n) throw new Error(`${n} returned, ${all.length} given to the sink`);
  return all;
}

/** The error code that `run` fails with, or "none". */
export function codeOf(run: () => unknown): string {
  try {
    run();
    return 'none';
  } catch (e) {
    if (e instanceof LaminaError) return e.code;
    throw e;
  }
}

/** The output of a command fed with `input`, or undefined where the command is not installed. */
export function pipe(command: string, args: string[], input: Uint8Array): Buffer | undefined {
  const { error, status, stdout } = spawnSync(command, args, { input, maxBuffer: 2 ** 28 });
  if (error !== undefined || status !== 0) return undefined;
  return stdout;
}
