/** A table of contents out of its blob, verified. Two reads for an eStargz (footer and table), one for zstd:chunked. */
import { gunzipSync } from 'node:zlib';
import { decodeFrom } from '../../compress/index.js';
import type { Compression } from '../../compress/types.js';
import { sha256 } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import type { TarEntry } from '../../tar/entry.js';
import { TarReader } from '../../tar/reader.js';
import type { RandomAccessBlob } from '../blob.js';
import { externalFooter, findFooter } from '../estargz.js';
import { TOC_LIMIT } from './document.js';
import type { TocPlace } from './place.js';

export interface TocBytes {
  readonly json: Buffer;
  /** Byte of the blob where the last content ends. */
  readonly dataEnd: number;
  readonly compression: Compression;
}

const TOC_NAME = 'stargz.index.json';
/** Of a skippable frame of zstd (RFC 8878). */
const FRAME_HEADER = 8;

/**
 * `external`: the blob that has the table of an eStargz which brings none. Throws MANIFEST_INVALID, BLOB_DIGEST_MISMATCH,
 * COMPRESSION_*, LIMIT_EXCEEDED, TAR_* and what reading the blobs throws.
 */
export function readToc(blob: RandomAccessBlob, place: TocPlace, external?: RandomAccessBlob): TocBytes {
  if (place.format === 'zstd-chunked') return readChunked(blob, place);
  return external === undefined ? readEstargz(blob, place) : readExternal(blob, place, external);
}

function readExternal(blob: RandomAccessBlob, { digest }: TocPlace, external: RandomAccessBlob): TocBytes {
  const dataEnd = externalFooter(blob);
  if (dataEnd === undefined) throw invalid('the blob has no footer that says it is elsewhere');
  if (external.size > TOC_LIMIT) throw tooLarge(external.size);
  return { json: unpacked(readRange(external, 0, external.size), digest), dataEnd, compression: 'gzip' };
}

function readEstargz(blob: RandomAccessBlob, { digest }: TocPlace): TocBytes {
  const footer = findFooter(blob);
  if (footer === undefined) throw invalid('the blob has no footer that says where it is');
  const { tocOffset, start } = footer;
  if (tocOffset >= start) throw invalid('the footer names a place behind it');
  if (start - tocOffset > TOC_LIMIT) throw tooLarge(start - tocOffset);
  const json = unpacked(readRange(blob, tocOffset, start - tocOffset), digest);
  return { json, dataEnd: tocOffset, compression: 'gzip' };
}

/** Out of the tar that has it as its first entry, compressed with gzip. */
function unpacked(packed: Buffer, digest: string): Buffer {
  let tar: Buffer;
  try {
    tar = gunzipSync(packed, { maxOutputLength: TOC_LIMIT });
  } catch (e) {
    throw invalid('it cannot be decompressed', e);
  }
  let found: TarEntry | undefined;
  const reader = new TarReader((entry) => (found ??= entry));
  reader.push(tar);
  const run = found?.name === TOC_NAME ? found.data[0] : undefined;
  if (run === undefined) throw invalid('it is not where it should be');
  const json = tar.subarray(run.position, run.position + run.length);
  check(json, digest);
  return json;
}

function readChunked(blob: RandomAccessBlob, place: Extract<TocPlace, { format: 'zstd-chunked' }>): TocBytes {
  const { offset, length, rawLength, digest } = place;
  if (offset < FRAME_HEADER || offset + length > blob.size) throw invalid('it is said to be outside of the blob');
  if (Math.max(length, rawLength) > TOC_LIMIT) throw tooLarge(Math.max(length, rawLength));
  const packed = readRange(blob, offset, length);
  check(packed, digest);
  const json = Buffer.alloc(rawLength);
  const source = { size: length, read: (from: number, into: Uint8Array) => packed.copy(into, 0, from) };
  const start = { input: 0, output: 0, bits: 0, kind: 'member' as const, window: Buffer.alloc(0) };
  let done = 0;
  decodeFrom('zstd', start, source, rawLength, (output) => {
    json.set(output.subarray(0, rawLength - done), done);
    done += output.length;
  });
  if (done !== rawLength) throw invalid('it has not the size that is said');
  return { json, dataEnd: offset - FRAME_HEADER, compression: 'zstd' };
}

/** All of a part of a blob. Throws MANIFEST_INVALID where the blob ends before, and what reading it throws. */
export function readRange(blob: RandomAccessBlob, offset: number, length: number): Buffer {
  blob.need(offset, length);
  const bytes = Buffer.alloc(length);
  for (let done = 0; done < length;) {
    const n = blob.read(offset + done, bytes.subarray(done));
    if (n === 0) throw invalid('the blob ends too early');
    done += n;
  }
  return bytes;
}

function tooLarge(bytes: number): LaminaError {
  return new LaminaError('LIMIT_EXCEEDED', `The layer's table of contents has ${bytes} bytes, more than ${TOC_LIMIT}`);
}

function check(bytes: Buffer, wanted: string): void {
  const got = `sha256:${sha256(bytes).toString('hex')}`;
  if (got === wanted) return;
  throw new LaminaError(
    'BLOB_DIGEST_MISMATCH',
    `The layer's table of contents does not match its digest (wanted ${wanted}, got ${got})`,
    { details: { wanted, got } },
  );
}

function invalid(why: string, cause?: unknown): LaminaError {
  return new LaminaError('MANIFEST_INVALID', `The layer's table of contents cannot be used: ${why}`, { cause });
}
