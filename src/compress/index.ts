/**
 * Decompression of layers, twice over: once front to back by a {@link StreamDecoder}, which notes restart points on the
 * way, and then any number of times from one of these points ({@link decodeFrom}).
 *
 * Gzip may consist of several members and zstd of several frames; both mean the concatenation of what they hold. A restart
 * point stands at the start of a member or frame, or (gzip) between two deflate blocks, where decoding needs the 32 KiB of
 * output before it. Output comes in pieces of bounded size whatever the ratio: how much is too much is for the
 * caller to say, who counts.
 *
 * gzip.ts, zstd.ts: one member or frame. member-stream.ts: their sequence, and what follows the last. restart.ts: the
 * fill path. points.ts: where points stand.
 */
import { GzipCodec } from './gzip.js';
import { MemberStream } from './member-stream.js';
import { PlainDecoder } from './plain.js';
import { PointCollector, type PointOptions } from './points.js';
import type { Compression, StreamDecoder } from './types.js';
import { ZstdCodec } from './zstd.js';

export { decodeFrom } from './restart.js';
export { deflateStart } from './gzip-header.js';
export { sniffCompression } from './sniff.js';
export type * from './types.js';

/** Bytes of output per call of the sink. */
const OUTPUT = 512 * 1024;

/**
 * A decoder for one pass over a whole layer, noting restart points where these are asked for. Input of 256 KiB or more
 * per push is best. Throws NATIVE_UNAVAILABLE.
 */
export function createDecoder(compression: Compression, points?: PointOptions): StreamDecoder {
  const collector = points === undefined ? undefined : new PointCollector(points);
  switch (compression) {
    case 'none':
      return new PlainDecoder();
    case 'gzip':
      return new MemberStream(new GzipCodec(OUTPUT), collector);
    case 'zstd':
      return new MemberStream(new ZstdCodec(OUTPUT), collector);
  }
}
