/** A ztoc for a layer as SOCI's own builder makes it: one pass over the blob, and a second for the digests of its spans. */
import { createDecoder, deflateStart } from '../../compress/index.js';
import type { ByteSource, Compression, RestartPoint } from '../../compress/types.js';
import { createHasher, type Digest } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import type { TarEntry } from '../../tar/entry.js';
import { printable } from '../../tar/notes.js';
import { TarReader } from '../../tar/reader.js';
import { WINDOW, decodeSpans, encodeGzipCheckpoints, encodeTarCheckpoints, type Span, type Spans } from './zinfo.js';
import { ZTOC_LIMIT, encodeZtoc, tooLarge, type ZtocFile } from './ztoc.js';

/** Bytes of output: what SOCI's builder does where nothing is said. */
export const SPAN_SIZE = 4 * 1024 * 1024;
/** Bytes of a blob: for smaller layers its builder makes no ztoc, and its snapshotter fetches them whole. */
export const LAYER_MIN = 10 * 1024 * 1024;
/** Bytes read at a time. */
const PIECE = 1024 * 1024;

export interface FileListJob {
  readonly blob: ByteSource;
  /** Of the blob. */
  readonly digest: Digest;
  readonly compression: Compression;
  /** Goes into the ztoc: "Lamina 1.2.3". */
  readonly tool: string;
}

export interface ZtocJob extends FileListJob {
  /** The format knows no other. */
  readonly compression: Exclude<Compression, 'zstd'>;
  readonly spanSize?: number;
}

/**
 * The bytes of the ztoc: those of SOCI's builder, where that takes the layer. Beyond that, global PAX headers and bytes behind
 * the last gzip member are passed over, and a size in the header of what has no data. A first deflate block that is empty
 * gets no span of its own.
 * Throws BLOB_DIGEST_MISMATCH, COMPRESSION_*, TAR_*, SPARSE_INVALID, METADATA_INVALID, LIMIT_EXCEEDED and what `blob` throws;
 * TAR_UNSUPPORTED for sparse files, which it has no words for.
 */
export function writeZtoc({ blob, digest, compression, tool, spanSize = SPAN_SIZE }: ZtocJob): Buffer {
  const { files, points, size } = readLayer(blob, digest, compression, spanSize);
  const isGzip = compression === 'gzip';
  const spans: Spans = {
    compressedSize: blob.size,
    uncompressedSize: size,
    algorithm: isGzip ? 'gzip' : 'uncompressed',
    maxSpanId: (isGzip ? points.length : Math.ceil(blob.size / spanSize)) - 1,
    checkpoints: isGzip ? encodeGzipCheckpoints(points, spanSize) : encodeTarCheckpoints(blob.size, spanSize),
  };
  const spanDigests = decodeSpans(spans).map((span) => digestOfSpan(blob, span));
  return encodeZtoc({ ...spans, tool, files, spanDigests });
}

/** A list of the layer's files only: a ztoc whose one span says nothing. Throws what {@link writeZtoc} throws. */
export function writeFileList({ blob, digest, compression, tool }: FileListJob): Buffer {
  const { files, size } = readLayer(blob, digest, compression, undefined);
  return encodeZtoc({
    ...{ tool, files, algorithm: 'uncompressed', compressedSize: blob.size, uncompressedSize: size },
    ...{ maxSpanId: 0, spanDigests: [digest], checkpoints: encodeTarCheckpoints(blob.size, blob.size) },
  });
}

interface Read {
  readonly files: readonly ZtocFile[];
  /** Where spans begin. */
  readonly points: readonly RestartPoint[];
  /** Bytes of the archive. */
  readonly size: number;
}

/** `spanSize`: bytes; undefined for no spans. */
function readLayer(blob: ByteSource, digest: Digest, compression: Compression, spanSize: number | undefined): Read {
  const files: ZtocFile[] = [];
  const points: RestartPoint[] = [];
  const tar = new TarReader((entry) => files.push(fileOf(entry)), { origins: true });
  const hasher = createHasher(digest);
  const last = Buffer.alloc(WINDOW);
  // A span is longer than its size, not as long.
  const spacing = (spanSize ?? Number.MAX_SAFE_INTEGER - 1) + 1;
  const onPoint = (point: RestartPoint): void => {
    if (spanSize === undefined) return;
    if (points.length * WINDOW > ZTOC_LIMIT) throw tooLarge(points.length * WINDOW);
    // What was before a member is of no use in it, but SOCI's builder has it there.
    points.push({ ...inMember(point, blob), window: Buffer.from(last) });
  };
  const decoder = createDecoder(compression, { spacing, memberSpacing: spacing, onPoint });
  const onOutput = (output: Uint8Array): void => {
    tar.push(Buffer.from(output.buffer, output.byteOffset, output.byteLength));
    last.copyWithin(0, output.length);
    last.set(output.subarray(-WINDOW), Math.max(WINDOW - output.length, 0));
  };
  try {
    for (const bytes of pieces(blob, 0, blob.size)) {
      hasher.update(bytes);
      decoder.push(bytes, onOutput);
    }
    decoder.end();
    tar.end();
  } finally {
    decoder.close();
  }
  const got = hasher.digest();
  const size = tar.archiveSize;
  // Behind the archive there are zeros at most, which nobody asks for: a span that begins in them would have no bytes.
  if (got === digest) return { files, points: points.filter(({ output }) => output === 0 || output < size), size };
  throw new LaminaError('BLOB_DIGEST_MISMATCH', `The layer does not match its digest (wanted ${digest}, got ${got})`, {
    details: { wanted: digest, got },
  });
}

function fileOf(entry: TarEntry): ZtocFile {
  const { type, name, linkName, size, uid, gid, mtime, mtimeNsec, devMajor, devMinor, data, origin } = entry;
  if (origin === undefined) throw new Error('the reader was asked for origins');
  const { position, mode, uname, gname, records } = origin;
  const [run] = data;
  if (size > 0 && (run?.length !== size || run.position !== position)) {
    throw new LaminaError('TAR_UNSUPPORTED', `Cannot describe ${printable(name)} in a ztoc: it is a sparse file`);
  }
  if (![mode, devMajor, devMinor].every(Number.isSafeInteger)) {
    throw new LaminaError('METADATA_INVALID', `The mode or device numbers of ${printable(name)} are out of range`);
  }
  return {
    ...{ type, name, linkName, offset: position, size, mode, uid, gid, uname, gname },
    ...{ mtime, mtimeNsec, devMajor, devMinor, records },
  };
}

/** The format enters a member behind its header. */
function inMember(point: RestartPoint, blob: ByteSource): RestartPoint {
  return point.kind === 'block' ? point : { ...point, kind: 'block', input: deflateStart(blob, point.input) };
}

function digestOfSpan(blob: ByteSource, { start, end }: Span): Digest {
  const hasher = createHasher();
  for (const bytes of pieces(blob, start, end)) hasher.update(bytes);
  return hasher.digest();
}

/** The blob's bytes in a buffer that is used again. */
function* pieces(blob: ByteSource, start: number, end: number): Generator<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.min(PIECE, end - start));
  for (let at = start; at < end;) {
    const n = blob.read(at, buffer.subarray(0, end - at));
    if (n === 0) throw new LaminaError('BLOB_MISSING', 'The layer became shorter while it was read');
    yield buffer.subarray(0, n);
    at += n;
  }
}
