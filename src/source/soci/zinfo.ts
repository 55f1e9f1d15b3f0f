/**
 * The checkpoints of a ztoc: where decompression of each span can start. Of a gzip layer (ztoc/compression/gzip_zinfo.c),
 * little-endian:
 *
 *     0   i32 spans, n    4   i64 least bytes of output of a span
 *     12  n records, 32,785 bytes each:
 *         i64 input  i64 output  u8 bits  32,768 bytes of output before it, with zeros in front where there are fewer
 *
 * The first version leaves the first record out: it is taken to be behind a header of 10 bytes. Only the length tells.
 * A span goes to the next one's input; the byte in which a span begins may belong to the one before too. Of a layer that is
 * not compressed (a flatbuffer: i32 version 2, i64 span size, i64 size) all spans but the last are equally long.
 */
import type { RestartPoint } from '../../compress/types.js';
import { sociInvalid } from './errors.js';
import { FlatReader, FlatWriter } from './flatbuffer.js';
import type { Ztoc } from './ztoc.js';

const HEADER = 12;
/** Bytes of output before a point. */
export const WINDOW = 32_768;
const RECORD = 17 + WINDOW;
/** Of gzip without any of its optional fields. */
const GZIP_HEADER = 10;
const TAR_VERSION = 2;

const NO_WINDOW = new Uint8Array(0);

/** What a ztoc says of its spans. */
export type Spans = Pick<Ztoc, 'compressedSize' | 'uncompressedSize' | 'algorithm' | 'maxSpanId' | 'checkpoints'>;

export interface Span {
  /** Bytes of the blob: what the span's digest is of, and all that decoding it needs but for a gzip header before `start`. */
  readonly start: number;
  readonly end: number;
  /** Bytes of the stream: `point.output` to here. */
  readonly outputEnd: number;
  /** Its window is a view of the checkpoints. */
  readonly point: RestartPoint;
}

/** All spans, in order, without a gap between them. Throws SOCI_INVALID. */
export function decodeSpans(ztoc: Spans): Span[] {
  const points = ztoc.algorithm === 'gzip' ? gzipPoints(ztoc) : tarPoints(ztoc);
  // The size of the stream ends with the archive; of spans in the zeros behind it nothing is known.
  const size = ztoc.algorithm === 'gzip' ? ztoc.uncompressedSize : ztoc.compressedSize;
  return points.map((point, i): Span => {
    const next = points[i + 1];
    const isOld = ztoc.algorithm === 'gzip' && point.kind === 'member';
    const start = isOld ? GZIP_HEADER : point.input - (point.bits > 0 ? 1 : 0);
    const end = next?.input ?? ztoc.compressedSize;
    const outputEnd = next?.output ?? Math.max(size, point.output);
    if (end <= start || outputEnd < point.output) throw invalid(`span ${i} ends before it begins`);
    return { start, end, outputEnd, point };
  });
}

function gzipPoints({ checkpoints, maxSpanId }: Spans): RestartPoint[] {
  if (checkpoints.length < HEADER) throw invalid('they are cut off');
  const count = checkpoints.readInt32LE(0);
  const records = (checkpoints.length - HEADER) / RECORD;
  if (count < 1 || (records !== count && records !== count - 1)) {
    throw invalid(`they have ${checkpoints.length} bytes, which are not ${count} records`);
  }
  if (count !== maxSpanId + 1) throw wrongCount(count, maxSpanId);
  // From the header on: one with a file name in it is longer than the first version thinks.
  const points: RestartPoint[] =
    records === count ? [] : [{ input: 0, bits: 0, output: 0, kind: 'member', window: NO_WINDOW }];
  for (let at = HEADER; at < checkpoints.length; at += RECORD) points.push(gzipPoint(checkpoints, at));
  if (points[0]?.output !== 0) throw invalid('the first span is not at the start');
  return points;
}

function gzipPoint(bytes: Buffer, at: number): RestartPoint {
  const input = Number(bytes.readBigInt64LE(at));
  const output = Number(bytes.readBigInt64LE(at + 8));
  const bits = bytes.readUInt8(at + 16);
  if (!Number.isSafeInteger(input) || !Number.isSafeInteger(output) || input < 1 || output < 0 || bits > 7) {
    throw invalid(`there is no restart point at byte ${at}`);
  }
  const end = at + RECORD;
  return { input, bits, output, kind: 'block', window: bytes.subarray(end - Math.min(output, WINDOW), end) };
}

function tarPoints({ checkpoints, compressedSize, maxSpanId }: Spans): RestartPoint[] {
  const reader = new FlatReader(checkpoints, 'the checkpoints of the ztoc');
  const root = reader.root();
  const version = reader.int(root, 0);
  const spanSize = reader.long(root, 1);
  const size = reader.long(root, 2);
  if (version !== TAR_VERSION) throw invalid(`their version is ${version}, not ${TAR_VERSION}`);
  if (size !== compressedSize) throw invalid(`they are for ${size} bytes, not ${compressedSize}`);
  const count = spanSize > 0 ? Math.ceil(size / spanSize) : 0;
  // Checked before there are so many of anything: the digests have been counted.
  if (count !== maxSpanId + 1) throw wrongCount(count, maxSpanId);
  return Array.from({ length: count }, (_, i) => {
    const at = i * spanSize;
    return { input: at, bits: 0, output: at, kind: 'member', window: NO_WINDOW };
  });
}

/** A point for each span, all of kind "block": the format enters a member behind its header. Windows may be shorter. */
export function encodeGzipCheckpoints(points: readonly RestartPoint[], spanSize: number): Buffer {
  const bytes = Buffer.alloc(HEADER + points.length * RECORD);
  bytes.writeInt32LE(points.length, 0);
  bytes.writeBigInt64LE(BigInt(spanSize), 4);
  points.forEach(({ input, output, bits, window }, i) => {
    const at = HEADER + i * RECORD;
    bytes.writeBigInt64LE(BigInt(input), at);
    bytes.writeBigInt64LE(BigInt(output), at + 8);
    bytes.writeUInt8(bits, at + 16);
    bytes.set(window, at + RECORD - window.length);
  });
  return bytes;
}

export function encodeTarCheckpoints(size: number, spanSize: number): Buffer {
  const writer = new FlatWriter();
  const root = writer.table(3, [
    { slot: 0, type: 'i32', value: TAR_VERSION },
    { slot: 1, type: 'i64', value: spanSize },
    { slot: 2, type: 'i64', value: size },
  ]);
  return writer.finish(root);
}

function wrongCount(count: number, maxSpanId: number): Error {
  return invalid(`they are for ${count} spans, and the last is ${maxSpanId}`);
}

function invalid(why: string): Error {
  return sociInvalid('the checkpoints of the ztoc', why);
}
