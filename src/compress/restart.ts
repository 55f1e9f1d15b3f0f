/** Decoding from a restart point: what a fill of the daemon does for each span, so native state and buffers are kept. */
import { GzipCodec } from './gzip.js';
import { MemberStream, type Sink } from './member-stream.js';
import { readPlain } from './plain.js';
import type { ByteSource, Compression, RestartPoint } from './types.js';
import { ZstdCodec } from './zstd.js';

/** Bytes of compressed data per read: on average half of one is read in vain. */
const PIECE = 64 * 1024;
/** Bytes of output per call of the sink. */
const OUTPUT = 256 * 1024;
/** A decoder that has grown beyond this many bytes (zstd windows reach 128 MiB) is freed rather than kept. */
const MAX_IDLE_MEMORY = 16 * 1024 * 1024;

interface Decoder {
  readonly stream: MemberStream;
  readonly piece: Uint8Array;
}

/** Decoders of this thread that are not in use: one of each kind, more when a sink itself decodes. */
const idle: Record<'gzip' | 'zstd', Decoder[]> = { gzip: [], zstd: [] };
const idleOutputs: Uint8Array[] = [];

/**
 * Decodes `length` bytes of output from `point.output` on, across members and frames; `sink` gets them in order, in a
 * buffer that is reused after it returns. Returns the bytes produced: fewer only where the stream ends.
 * Throws COMPRESSION_CORRUPT, COMPRESSION_TRUNCATED, LIMIT_EXCEEDED (as the whole pass does) and what `source` throws.
 */
export function decodeFrom(
  compression: Compression,
  point: RestartPoint,
  source: ByteSource,
  length: number,
  sink: Sink,
): number {
  if (compression === 'none') return decodePlain(point, source, length, sink);
  const decoder = idle[compression].pop() ?? createDecoder(compression);
  try {
    return decode(decoder, point, source, length, sink);
  } finally {
    if (decoder.stream.memory > MAX_IDLE_MEMORY) decoder.stream.close();
    else idle[compression].push(decoder);
  }
}

function decodePlain(point: RestartPoint, source: ByteSource, length: number, sink: Sink): number {
  const output = idleOutputs.pop() ?? new Uint8Array(OUTPUT);
  try {
    return readPlain(source, point.input, length, output, sink);
  } finally {
    idleOutputs.push(output);
  }
}

function createDecoder(compression: 'gzip' | 'zstd'): Decoder {
  const codec = compression === 'gzip' ? new GzipCodec(OUTPUT) : new ZstdCodec(OUTPUT);
  return { stream: new MemberStream(codec), piece: new Uint8Array(new ArrayBuffer(PIECE)) };
}

function decode(
  { stream, piece }: Decoder,
  point: RestartPoint,
  source: ByteSource,
  length: number,
  sink: Sink,
): number {
  // When the point is inside a byte, that byte comes with the first read.
  let skip = point.bits > 0 && point.input > 0 ? 1 : 0;
  let at = point.input - skip;
  let n = source.read(at, piece);
  stream.start(point, skip === 0 || n === 0 ? 0 : piece[0]!);
  while (n > 0) {
    stream.push(piece.subarray(skip, n), sink, length);
    if (stream.finished || stream.output >= length) return stream.output;
    skip = 0;
    at += n;
    n = source.read(at, piece);
  }
  stream.end();
  return stream.output;
}
