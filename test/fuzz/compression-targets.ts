/** Decompression: a whole stream with its restart points, decoding from these, and from points that a stranger made up. */
import { decodeFrom } from '../../src/compress/index.js';
import type { ByteSource, Compression, RestartPoint } from '../../src/compress/index.js';
import { createDecoder, sniffCompression } from '../../src/compress/index.js';
import { LaminaError } from '../../src/errors.js';
import type { Target } from './targets.js';
import { sum, words } from './words.js';

/** Bytes of output at which a bomb is left alone; where that is a test of its own says so. */
const ENOUGH = 512 * 1024;

class Enough extends Error {}

interface Decoded {
  readonly output: Buffer;
  readonly points: readonly RestartPoint[];
  /** The code of the error that ended it; "none" at the end, "enough" for a bomb. */
  readonly end: string;
}

function decodeAll(kind: Compression, bytes: Buffer, step: number): Decoded {
  const points: RestartPoint[] = [];
  const pieces: Buffer[] = [];
  let length = 0;
  const decoder = createDecoder(kind, { spacing: 4096, onPoint: (point) => points.push(point) });
  const sink = (output: Uint8Array): void => {
    pieces.push(Buffer.from(output));
    length += output.length;
    if (length > ENOUGH) throw new Enough();
  };
  let end = 'none';
  try {
    for (let at = 0; at < bytes.length; at += step) decoder.push(bytes.subarray(at, at + step), sink);
    decoder.end();
  } catch (e) {
    if (e instanceof LaminaError) end = e.code;
    else if (e instanceof Enough) end = 'enough';
    else throw e;
  } finally {
    decoder.close();
  }
  return { output: Buffer.concat(pieces).subarray(0, ENOUGH), points, end };
}

function sourceOf(bytes: Buffer): ByteSource {
  return {
    size: bytes.length,
    read(offset, into) {
      const piece = bytes.subarray(Math.min(offset, bytes.length), offset + into.length);
      into.set(piece);
      return piece.length;
    },
  };
}

function decodeRange(kind: Compression, point: RestartPoint, bytes: Buffer, length: number): Buffer {
  const pieces: Buffer[] = [];
  decodeFrom(kind, point, sourceOf(bytes), length, (output) => pieces.push(Buffer.from(output)));
  return Buffer.concat(pieces);
}

function stream(kind: 'gzip' | 'zstd', dictionary: readonly Uint8Array[]): Target {
  return {
    name: kind,
    runs: 1000,
    dictionary,
    run(bytes) {
      const whole = decodeAll(kind, bytes, Infinity);
      const cut = decodeAll(kind, bytes, 61);
      // What a decoder gives before it finds damage is its own affair.
      const same = whole.end !== 'none' || (cut.output.equals(whole.output) && sameJson(cut.points, whole.points));
      if (cut.end !== whole.end || !same) throw new Error(`cut: ${cut.end}, whole: ${whole.end}`);
      if (whole.end === 'none') {
        for (const point of whole.points.slice(0, 6)) {
          const wanted = whole.output.subarray(point.output, point.output + 5000);
          if (!decodeRange(kind, point, bytes, wanted.length).equals(wanted))
            throw new Error('restart gives other bytes');
        }
      }
      if (whole.end !== 'none' && whole.end !== 'enough') throw new LaminaError(whole.end as 'COMPRESSION_CORRUPT', '');
      return `${whole.end}-${Math.min(whole.points.length, 4)} ${sum(whole.output)}`;
    },
  };
}

const sameJson = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** u8 kind, u8 bits, u16 input, u16 window; the window's bytes; the compressed bytes. */
function restart(kind: 'gzip' | 'zstd', dictionary: readonly Uint8Array[]): Target {
  return {
    name: `${kind}-restart`,
    runs: 4000,
    dictionary,
    run(bytes) {
      const head = Buffer.alloc(6);
      bytes.copy(head);
      const windowEnd = 6 + (head.readUInt16LE(4) & 0x7fff);
      const point: RestartPoint = {
        kind: (head.readUInt8(0) & 1) === 0 ? 'member' : 'block',
        bits: head.readUInt8(1) & 7,
        input: head.readUInt16LE(2),
        output: 1000,
        window: bytes.subarray(6, windowEnd),
      };
      const output = decodeRange(kind, point, bytes.subarray(windowEnd), 100_000);
      if (output.length > 100_000) throw new Error('more than was asked for');
      return `${point.kind} ${sum(output)}`;
    },
  };
}

const sniff: Target = {
  name: 'sniff',
  runs: 20_000,
  most: 600,
  dictionary: words('\x1f\x8b', '\x28\xb5\x2f\xfd', '\x50\x2a\x4d\x18', 'BZh91AY&SY', '\xfd7zXZ\0', '\x5d\0\0\x80'),
  run: (bytes) => `${sniffCompression(bytes)} `,
};

const gzipWords = words(
  '\x1f\x8b\x08\0',
  '\x1f\x8b\x08\x1f',
  '\x03\0\0\0\0\0\0\0\0\0',
  '\x01\0\0\xff\xff',
  '\0\0\0\xff\xff',
  'BC\x02\0',
);
const zstdWords = words(
  '\x28\xb5\x2f\xfd',
  '\x50\x2a\x4d\x18\x04\0\0\0',
  '\x5f\x2a\x4d\x18',
  '\x01\0\0',
  '\x28\xb5\x2f\xfd\x24\0\x01\0\0',
);

export const compressionTargets: readonly Target[] = [
  stream('gzip', gzipWords),
  restart('gzip', gzipWords),
  stream('zstd', zstdWords),
  restart('zstd', zstdWords),
  sniff,
];
