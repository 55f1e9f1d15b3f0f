/** Layers that are not compressed. */
import type { ByteSource, StreamDecoder } from './types.js';

/** Passes everything through. It notes no restart points: every place is one. */
export class PlainDecoder implements StreamDecoder {
  readonly diagnostics: readonly string[] = [];

  push(input: Uint8Array, sink: (output: Uint8Array) => void): void {
    if (input.length > 0) sink(input);
  }

  end(): void {
    return;
  }

  close(): void {
    return;
  }
}

/** Gives the `length` bytes of `source` from `from` on to `sink`, `piece.length` at a time; returns how many there were. */
export function readPlain(
  source: ByteSource,
  from: number,
  length: number,
  piece: Uint8Array,
  sink: (output: Uint8Array) => void,
): number {
  let done = 0;
  while (done < length) {
    const n = source.read(from + done, piece.subarray(0, Math.min(piece.length, length - done)));
    if (n === 0) break;
    done += n;
    sink(piece.subarray(0, n));
  }
  return done;
}
