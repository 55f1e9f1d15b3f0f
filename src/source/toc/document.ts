/**
 * Tables of contents of eStargz (stargz-snapshotter, docs/estargz.md) and zstd:chunked (containers/storage, pkg/chunked), which
 * are of one form: JSON with an entry for each entry of the tar, and where in the blob the chunks of its content are.
 *
 * They name no places in the uncompressed stream. So a layer that is known by its table has an address space of its own:
 *
 *     file, padded to 512 | file, padded to 512 | ..      in the order of the table
 *
 * What is read is verified in pieces of 64 KiB, so files that are larger begin and end on the border of one: nobody who reads
 * a small file has to have a large one decompressed that shares a piece with it. And the kernel, which reads ahead in the address
 * space, finds nothing behind the end of such a file: what happens to lie there may be large, and has nothing to do with it.
 */
import { LaminaError } from '../../errors.js';
import type { EntryType, TarEntry } from '../../tar/entry.js';
import { BLOCK } from '../../tar/header.js';

/** Content that is compressed, or left out, as a whole, and has a digest. */
export interface TocChunk {
  /** Bytes from the start of the address space. */
  readonly address: number;
  /** Bytes uncompressed, at least 1. */
  readonly size: number;
  /** Where a gzip member or zstd frame begins in the blob, and where the next one does. Both 0 for zeros. */
  readonly offset: number;
  readonly end: number;
  /** Bytes of the uncompressed member before the content. */
  readonly inner: number;
  /** SHA-256; undefined for zeros, which are nowhere in the blob. */
  readonly digest: Buffer | undefined;
}

export interface TocDocument {
  /** In their order; a file's data in the address space. */
  readonly entries: readonly TarEntry[];
  /** By ascending addresses. */
  readonly chunks: readonly TocChunk[];
  /** Bytes. */
  readonly addressSpace: number;
  /** Bytes of all files. */
  readonly content: number;
}

/** Bytes of JSON. The tools stop at 150 MiB of it and less. */
export const TOC_LIMIT = 128 * 1024 * 1024;

const types: ReadonlyMap<string, EntryType> = new Map([
  ['dir', 'directory'],
  ['reg', 'file'],
  ['symlink', 'symlink'],
  ['hardlink', 'hardlink'],
  ['char', 'char'],
  ['block', 'block'],
  ['fifo', 'fifo'],
]);

/** Bytes: see `CHUNK` of src/layer/chunks.ts. */
const PIECE = 65536;
/** Bytes that are empty behind a large file: the kernel reads twice VM_READAHEAD_PAGES (mm.h) ahead at most. */
const READ_AHEAD = 256 * 1024;

/** The address space's form: 1 had nothing empty. */
export const LAYOUT = 2;

function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}

type Raw = Readonly<Record<string, unknown>>;

/** `dataEnd`: byte of the blob where the last content ends. Throws MANIFEST_INVALID, LIMIT_EXCEEDED. */
export function parseToc(json: Buffer, dataEnd: number): TocDocument {
  const raw = rawEntries(json);
  const starts = memberStarts(raw, dataEnd);
  const entries: TarEntry[] = [];
  const chunks: TocChunk[] = [];
  const times: Times = new Map();
  let end = 0;
  let content = 0;
  let afterLarge = false;
  for (let i = 0; i < raw.length;) {
    const entry = raw[i++]!;
    const first = i;
    while (raw[i]?.['type'] === 'chunk') i++;
    const size = naturalOf(entry, 'size');
    const address = afterLarge ? roundUp(end + READ_AHEAD, PIECE) : roundUp(end, size >= PIECE ? PIECE : BLOCK);
    if (!Number.isSafeInteger(address + size)) throw invalid('its files have too many bytes');
    const parsed = parseEntry(entry, { order: entries.length + 1, address, times });
    entries.push(parsed);
    if (parsed.type !== 'file') {
      if (i > first) throw invalid('it has chunks of what is no file');
      continue;
    }
    if (parsed.size === 0) continue;
    addChunks(chunks, i === first ? [entry] : [entry, ...raw.slice(first, i)], parsed.size, address, starts);
    end = address + parsed.size;
    content += parsed.size;
    afterLarge = parsed.size >= PIECE;
  }
  return { entries, chunks, addressSpace: roundUp(end, BLOCK), content };
}

function rawEntries(json: Buffer): Raw[] {
  if (json.length > TOC_LIMIT) {
    throw new LaminaError('LIMIT_EXCEEDED', `The table of contents has ${json.length} bytes, more than ${TOC_LIMIT}`);
  }
  let document: unknown;
  try {
    document = JSON.parse(json.toString('utf8'));
  } catch {
    throw invalid('it is no JSON');
  }
  const { version, entries } = isRecord(document) ? document : {};
  if (version !== 1) throw invalid('it is not of version 1');
  if (!Array.isArray(entries) || !entries.every(isRecord)) throw invalid('it has no entries');
  return entries;
}

/** Where members begin, ascending, and where the last one ends. */
function memberStarts(raw: readonly Raw[], dataEnd: number): Float64Array {
  const starts = new Set<number>([dataEnd]);
  for (const entry of raw) {
    const offset = naturalOf(entry, 'offset');
    if (offset > dataEnd) throw invalid('it names places behind the end');
    const isContent = entry['type'] === 'reg' || entry['type'] === 'chunk';
    if (isContent && entry['chunkType'] !== 'zeros') starts.add(offset);
  }
  return Float64Array.from(starts).sort();
}

function addChunks(
  chunks: TocChunk[],
  parts: readonly Raw[],
  size: number,
  address: number,
  starts: Float64Array,
): void {
  let at = 0;
  parts.forEach((part, i) => {
    const next = parts[i + 1];
    if (naturalOf(part, 'chunkOffset') !== at) throw invalid('its chunks do not follow each other');
    const end = next === undefined ? size : naturalOf(next, 'chunkOffset');
    const said = naturalOf(part, 'chunkSize');
    if (end <= at || end > size || (said !== 0 && said !== end - at)) throw invalid('its chunks have wrong sizes');
    chunks.push({ address: address + at, size: end - at, ...contentOf(part, parts.length, starts) });
    at = end;
  });
}

function contentOf(part: Raw, count: number, starts: Float64Array): Omit<TocChunk, 'address' | 'size'> {
  if (part['chunkType'] === 'zeros') return { offset: 0, end: 0, inner: 0, digest: undefined };
  if (textOf(part, 'chunkType') !== '') throw invalid('it has chunks of an unknown kind');
  const offset = naturalOf(part, 'offset');
  const text = textOf(part, 'chunkDigest') || (count === 1 ? textOf(part, 'digest') : '');
  if (!/^sha256:[0-9a-f]{64}$/.test(text)) throw invalid('it has content without a SHA-256');
  return {
    offset,
    end: nextStart(starts, offset),
    inner: naturalOf(part, 'innerOffset'),
    digest: Buffer.from(text.slice(7), 'hex'),
  };
}

/** The first start behind `offset`, which is one itself, or the end. */
function nextStart(starts: Float64Array, offset: number): number {
  let low = 0;
  for (let high = starts.length; low < high;) {
    const middle = (low + high) >>> 1;
    if ((starts[middle] ?? Infinity) <= offset) low = middle + 1;
    else high = middle;
  }
  const next = starts[low];
  if (next === undefined) throw invalid('it names places behind the end');
  return next;
}

interface Time {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** By their texts: files of one package have the same. */
type Times = Map<string, Time>;

interface EntryPlace {
  readonly order: number;
  readonly address: number;
  readonly times: Times;
}

function parseEntry(raw: Raw, { order, address, times }: EntryPlace): TarEntry {
  const type = types.get(textOf(raw, 'type'));
  if (type === undefined) throw invalid('it has entries of an unknown type');
  const size = type === 'file' ? naturalOf(raw, 'size') : 0;
  const text = textOf(raw, 'modtime');
  const time = times.get(text) ?? timeOf(text);
  times.set(text, time);
  return {
    type,
    name: bytesOf(raw, 'name'),
    linkName: bytesOf(raw, 'linkName'),
    mode: naturalOf(raw, 'mode') & 0o7777,
    uid: naturalOf(raw, 'uid'),
    gid: naturalOf(raw, 'gid'),
    mtime: time.seconds,
    mtimeNsec: time.nanoseconds,
    size,
    devMajor: naturalOf(raw, 'devMajor'),
    devMinor: naturalOf(raw, 'devMinor'),
    xattrs: xattrsOf(raw['xattrs']),
    data: size === 0 ? [] : [{ offset: 0, length: size, position: address }],
    order,
  };
}

/** Of most entries. */
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

function xattrsOf(value: unknown): ReadonlyMap<string, Buffer> {
  if (value === undefined || value === null) return NO_XATTRS;
  const xattrs = new Map<string, Buffer>();
  if (!isRecord(value)) throw invalid('it has attributes of an unknown form');
  for (const [name, encoded] of Object.entries(value)) {
    if (typeof encoded !== 'string') throw invalid('it has attributes of an unknown form');
    xattrs.set(latin1(name), Buffer.from(encoded, 'base64'));
  }
  return xattrs;
}

/** RFC 3339, with up to nine digits of a second. */
function timeOf(text: string): Time {
  if (text === '') return { seconds: 0, nanoseconds: 0 };
  const [, time, fraction = '', zone] =
    /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text) ?? [];
  const milliseconds = time === undefined ? NaN : Date.parse(`${time}${zone ?? ''}`);
  if (Number.isNaN(milliseconds)) throw invalid('it has times of an unknown form');
  return { seconds: milliseconds / 1000, nanoseconds: Number(fraction.padEnd(9, '0')) };
}

function textOf(raw: Raw, key: string): string {
  const value = raw[key] ?? '';
  if (typeof value !== 'string') throw invalid(`it has a ${key} that is no text`);
  return value;
}

function naturalOf(raw: Raw, key: string): number {
  const value = raw[key] ?? 0;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalid(`it has a ${key} that is no natural number`);
}

/** A name: bytes in latin1. JSON cannot hold bytes that are no UTF-8; what the tools put instead says that some are lost. */
function bytesOf(raw: Raw, key: string): string {
  const text = textOf(raw, key);
  if (isAscii(text)) return text;
  if (text.includes('\ufffd')) throw invalid('it has lost bytes of names that are no UTF-8');
  return latin1(text);
}

function latin1(text: string): string {
  return isAscii(text) ? text : Buffer.from(text, 'utf8').toString('latin1');
}

function isAscii(text: string): boolean {
  return /^[\0-\x7f]*$/.test(text);
}

function isRecord(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(why: string): LaminaError {
  return new LaminaError('MANIFEST_INVALID', `The layer's table of contents cannot be used: ${why}`);
}
