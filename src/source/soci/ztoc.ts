/**
 * Ztocs: what SOCI (awslabs/soci-snapshotter) keeps of a layer beside it. A list of the tar's entries, and for each span of
 * the layer its digest and where decompression can start. A flatbuffer without an identifier; slots of its tables, after
 * ztoc/fbs/ztoc.fbs:
 *
 *     Ztoc             0 version "0.9"  1 tool  2 i64 compressed size  3 i64 uncompressed size  4 TOC  5 CompressionInfo
 *     TOC              0 [FileMetadata]
 *     FileMetadata     0 name  1 type  2 i64 offset  3 i64 size  4 link name  5 i64 mode  6 u32 uid  7 u32 gid  8 user
 *                      9 group  10 mtime, RFC 3339  11 i64 major  12 i64 minor  13 [Xattr]
 *     Xattr            0 key  1 value; all PAX records of the entry, in spite of the name
 *     CompressionInfo  0 i8 algorithm, 1 gzip (also when absent), 2 none  1 i32 last span  2 [digest]  3 checkpoints
 *
 * A ztoc is somebody's claim about a layer. What it says of spans is proven by their digests only as far as the ztoc's own
 * digest is trusted, what it says of files by nothing but the tar headers.
 */
import { parseDigest, type Digest } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import { BLOCK } from '../../tar/header.js';
import type { EntryType } from '../../tar/entry.js';
import { sociInvalid } from './errors.js';
import { FlatReader, FlatWriter, type Written } from './flatbuffer.js';
import { formatTime, parseTime } from './time.js';

/** Bytes: 32 KiB of it for each span of 4 MiB, and some 200 for each file. */
export const ZTOC_LIMIT = 256 * 1024 * 1024;
const VERSION = '0.9';

export interface ZtocFile {
  readonly type: EntryType;
  /** As the tar has it, bytes as latin1; so are all texts here. */
  readonly name: string;
  readonly linkName: string;
  /** Of the first byte of data in the tar, or where it would be: behind the header. */
  readonly offset: number;
  readonly size: number;
  /** As the tar has it, possibly with bits of the file type. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly uname: string;
  readonly gname: string;
  /** Seconds. 0 where the ztoc has none, as of years beyond 9999. */
  readonly mtime: number;
  readonly mtimeNsec: number;
  readonly devMajor: number;
  readonly devMinor: number;
  /** All PAX records of the entry, with `SCHILY.xattr.NAME` for xattrs. */
  readonly records: ReadonlyMap<string, string>;
}

export interface Ztoc {
  /** What made it. */
  readonly tool: string;
  /** Bytes of the layer's blob. */
  readonly compressedSize: number;
  /** Bytes of the tar up to the end of its end-of-archive blocks; there may be more zeros behind. */
  readonly uncompressedSize: number;
  readonly algorithm: 'gzip' | 'uncompressed';
  /** Ascending by offset. */
  readonly files: readonly ZtocFile[];
  readonly maxSpanId: number;
  readonly spanDigests: readonly Digest[];
  /** See zinfo.ts. */
  readonly checkpoints: Buffer;
}

const typeNames: Readonly<Record<EntryType, string>> = {
  file: 'reg',
  hardlink: 'hardlink',
  symlink: 'symlink',
  char: 'char',
  block: 'block',
  directory: 'dir',
  fifo: 'fifo',
};
const types = new Map(Object.entries(typeNames).map(([type, name]) => [name, type as EntryType]));

const algorithms = ['gzip', 'uncompressed'] as const;

/** Of most files. */
const NO_RECORDS: ReadonlyMap<string, string> = new Map();

/**
 * `checkpoints` is a view of `bytes`. That they fit the sizes and the digests is for `decodeSpans`.
 * Throws SOCI_INVALID, LIMIT_EXCEEDED, DIGEST_INVALID, DIGEST_UNSUPPORTED.
 */
export function decodeZtoc(bytes: Buffer): Ztoc {
  if (bytes.length > ZTOC_LIMIT) throw tooLarge(bytes.length);
  const reader = new FlatReader(bytes, 'the ztoc');
  const root = reader.root();
  const version = reader.text(root, 0);
  if (version !== VERSION) throw invalid(`its version is ${JSON.stringify(version.slice(0, 20))}, not "${VERSION}"`);
  const toc = reader.table(root, 4);
  const info = reader.table(root, 5);
  if (toc === undefined || info === undefined) throw invalid('it lacks its files or its spans');
  const algorithm = algorithms[reader.byte(info, 0, 1) - 1];
  if (algorithm === undefined) throw invalid('its compression is not known');
  // Files of one package have the same.
  const times = new Map<string, ReturnType<typeof parseTime>>();
  const files = reader.tables(toc, 0, (table): ZtocFile => {
    const type = types.get(reader.text(table, 1));
    if (type === undefined) throw invalid('the type of a file is not known');
    const records = reader.tables(table, 13, (record) => [reader.text(record, 0), reader.text(record, 1)] as const);
    const when = reader.text(table, 10);
    const { mtime, mtimeNsec } = times.get(when) ?? parseTime(when);
    times.set(when, { mtime, mtimeNsec });
    return {
      type,
      name: reader.text(table, 0),
      linkName: reader.text(table, 4),
      offset: reader.long(table, 2),
      size: reader.long(table, 3),
      mode: reader.long(table, 5),
      uid: reader.uint(table, 6),
      gid: reader.uint(table, 7),
      uname: reader.text(table, 8),
      gname: reader.text(table, 9),
      mtime,
      mtimeNsec,
      devMajor: reader.long(table, 11),
      devMinor: reader.long(table, 12),
      records: records.length === 0 ? NO_RECORDS : new Map(records),
    };
  });
  const ztoc = {
    tool: reader.text(root, 1),
    compressedSize: reader.long(root, 2),
    uncompressedSize: reader.long(root, 3),
    algorithm,
    files: files.sort((a, b) => a.offset - b.offset),
    maxSpanId: reader.int(info, 1),
    spanDigests: reader.texts(info, 2).map(parseDigest),
    checkpoints: reader.byteVector(info, 3),
  };
  check(ztoc);
  return ztoc;
}

/** Entries stand one after the other with a header before each, as nothing else says where the headers are. */
function check({ compressedSize, uncompressedSize, files, maxSpanId, spanDigests }: Ztoc): void {
  if (compressedSize < 0 || uncompressedSize < 0) throw invalid('a size is negative');
  if (spanDigests.length === 0 || maxSpanId !== spanDigests.length - 1) {
    throw invalid(`it has ${spanDigests.length} digests, and says that the last span is ${maxSpanId}`);
  }
  let end = 0;
  for (const { offset, size } of files) {
    if (size < 0 || offset < end + BLOCK || size > uncompressedSize - offset) {
      throw invalid(`there is no place for a file of ${size} bytes at byte ${offset}`);
    }
    end = Math.ceil((offset + size) / BLOCK) * BLOCK;
  }
}

/** Given the same, SOCI's own builder writes the same bytes. Throws LIMIT_EXCEEDED. */
export function encodeZtoc(ztoc: Ztoc): Buffer {
  const writer = new FlatWriter();
  const version = writer.text(VERSION);
  const tool = writer.text(ztoc.tool);
  const files = ztoc.files.map(() => 0 as Written);
  for (let i = files.length - 1; i >= 0; i--) files[i] = writeFile(writer, ztoc.files[i]!);
  const metadata = writer.vector(files);
  const toc = writer.table(1, [{ slot: 0, type: 'reference', value: metadata }]);
  const checkpoints = writer.byteVector(ztoc.checkpoints);
  const digests = writer.vector(ztoc.spanDigests.map((digest) => writer.text(digest)));
  const info = writer.table(4, [
    { slot: 1, type: 'i32', value: ztoc.maxSpanId },
    { slot: 2, type: 'reference', value: digests },
    { slot: 3, type: 'reference', value: checkpoints },
    { slot: 0, type: 'i8', value: algorithms.indexOf(ztoc.algorithm) + 1, absent: 1 },
  ]);
  const root = writer.table(6, [
    { slot: 0, type: 'reference', value: version },
    { slot: 1, type: 'reference', value: tool },
    { slot: 4, type: 'reference', value: toc },
    { slot: 2, type: 'i64', value: ztoc.compressedSize },
    { slot: 3, type: 'i64', value: ztoc.uncompressedSize },
    { slot: 5, type: 'reference', value: info },
  ]);
  const bytes = writer.finish(root);
  if (bytes.length > ZTOC_LIMIT) throw tooLarge(bytes.length);
  return bytes;
}

function writeFile(writer: FlatWriter, file: ZtocFile): Written {
  const name = writer.text(file.name);
  const type = writer.text(typeNames[file.type]);
  const linkName = writer.text(file.linkName);
  const uname = writer.text(file.uname);
  const gname = writer.text(file.gname);
  const mtime = writer.text(formatTime(file.mtime, file.mtimeNsec));
  // Texts are bytes in latin1, so this is the order of their bytes.
  const records = [...file.records].sort(([a], [b]) => (a < b ? -1 : 1));
  const xattrs = writer.vector(
    records.map(([key, value]) => {
      const texts = [writer.text(key), writer.text(value)];
      return writer.table(
        2,
        texts.map((text, slot) => ({ slot, type: 'reference', value: text })),
      );
    }),
  );
  return writer.table(14, [
    { slot: 0, type: 'reference', value: name },
    { slot: 1, type: 'reference', value: type },
    { slot: 2, type: 'i64', value: file.offset },
    { slot: 3, type: 'i64', value: file.size },
    { slot: 4, type: 'reference', value: linkName },
    { slot: 5, type: 'i64', value: file.mode },
    { slot: 6, type: 'u32', value: file.uid },
    { slot: 7, type: 'u32', value: file.gid },
    { slot: 8, type: 'reference', value: uname },
    { slot: 9, type: 'reference', value: gname },
    { slot: 10, type: 'reference', value: mtime },
    { slot: 11, type: 'i64', value: file.devMajor },
    { slot: 12, type: 'i64', value: file.devMinor },
    { slot: 13, type: 'reference', value: xattrs },
  ]);
}

function invalid(why: string): LaminaError {
  return sociInvalid('the ztoc', why);
}

export function tooLarge(size: number): LaminaError {
  return new LaminaError('LIMIT_EXCEEDED', `The ztoc has ${size} bytes; at most ${ZTOC_LIMIT} are used`, {
    hint: 'Larger spans make a smaller ztoc.',
    details: { size, limit: ZTOC_LIMIT },
  });
}
