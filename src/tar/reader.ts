/**
 * Reads a tar stream front to back, as it comes, and reports each entry with the place of its data; the data itself is
 * passed over. Where readers of the world differ it does what Go's archive/tar does, because the tools that make and
 * unpack image layers are built on it: a reader that disagrees with them about where the next header is would show
 * another tree than they do.
 *
 *     header block | [x, g, L, K: body, padded to 512]* | header block | data, padded to 512 | .. | two zero blocks
 *
 * PAX sizes count for the next file only, never for a header between (the desynchronisation of CVE-2025-62518), and
 * always win over the header's own size.
 */
import { LaminaError } from '../errors.js';
import { entryOf, originOf, type Described } from './described.js';
import type { DataRun, EntryType, TarEntry } from './entry.js';
import { BLOCK, isZeroBlock, longText, parseHeader, parseNumber, type TarHeader } from './header.js';
import { Notes } from './notes.js';
import { META_LIMIT, PaxRecords } from './pax.js';
import {
  GNU_EXTENSION,
  GNU_SEGMENTS,
  MapReader,
  checked,
  parsePaxMap,
  paxSparseVersion,
  readGnuSegments,
  sparseRuns,
  tooManySegments,
} from './sparse.js';

/** Segments of all sparse files of one archive: what they take in memory stays below 100 MB. */
const SEGMENTS_MAX = 2_000_000;

const types: Readonly<Record<string, EntryType>> = {
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  D: 'directory',
  '6': 'fifo',
};

/** Types whose size field says nothing about data that follows. */
const headerOnly = new Set(['1', '2', '3', '4', '5', '6']);

/** What the next 512 bytes are. */
type Expected =
  | { readonly kind: 'header' }
  | { readonly kind: 'meta'; readonly flag: string; readonly body: Buffer; filled: number; readonly offset: number }
  | { readonly kind: 'extension'; readonly file: PendingFile }
  | { readonly kind: 'map'; readonly file: PendingFile; readonly reader: MapReader; used: number };

/** A sparse file whose map is not complete. */
interface PendingFile extends Described {
  readonly realSize: number;
  /** Bytes that the archive has for it. */
  readonly stored: number;
  readonly map: number[];
}

const HEADER: Expected = { kind: 'header' };

export class TarReader {
  readonly notes = new Notes();
  /** Bytes of the stream with the two zero blocks that end the archive, if it has them. Known at the end. */
  archiveSize = 0;
  readonly #onEntry: (entry: TarEntry) => void;
  readonly #origins: boolean;
  /** Bytes of the stream before what is looked at. */
  #position = 0;
  #expected: Expected = HEADER;
  /** Bytes to pass over, of which the last `#padding` need not be there at the end of the stream. */
  #skip = 0;
  #padding = 0;
  /** A block that came in pieces. */
  readonly #block = Buffer.alloc(BLOCK);
  #blockFilled = 0;
  #zeroBlocks = 0;
  #ended = false;
  #order = 0;
  #segments = 0;
  #records: PaxRecords | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;

  /** With `origins` each entry has its `origin`. */
  constructor(onEntry: (entry: TarEntry) => void, { origins = false } = {}) {
    this.#onEntry = onEntry;
    this.#origins = origins;
  }

  /** Takes the next bytes of the stream; keeps no reference to them. Throws TAR_*, SPARSE_INVALID, LIMIT_EXCEEDED. */
  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#ended) {
        this.#position += bytes.length - at;
        return;
      }
      if (this.#skip > 0) {
        const n = Math.min(this.#skip, bytes.length - at);
        this.#skip -= n;
        at += n;
        this.#position += n;
      } else if (this.#blockFilled === 0 && bytes.length - at >= BLOCK) {
        this.#take(bytes, at);
        at += BLOCK;
      } else {
        const n = Math.min(BLOCK - this.#blockFilled, bytes.length - at);
        bytes.copy(this.#block, this.#blockFilled, at, at + n);
        this.#blockFilled += n;
        at += n;
        if (this.#blockFilled === BLOCK) {
          this.#blockFilled = 0;
          this.#take(this.#block, 0);
        }
      }
    }
  }

  /** Call at the end of the stream. Throws TAR_TRUNCATED, TAR_INVALID. */
  end(): void {
    if (this.#ended) return;
    this.archiveSize = this.#position + this.#blockFilled;
    const inBlock = this.#blockFilled > 0;
    // The padding behind the last body may be missing.
    const metaComplete = this.#expected.kind === 'meta' && this.#finishShortMeta();
    if ((inBlock && !metaComplete) || this.#skip > this.#padding || this.#expected.kind !== 'header') {
      throw new LaminaError(
        'TAR_TRUNCATED',
        `The tar archive ends in the middle of an entry, at byte ${this.#position}`,
        {
          details: { offset: this.#position },
        },
      );
    }
    this.#leftover();
  }

  /** Archives may end without padding even behind a header's body; there is no file after it then. */
  #finishShortMeta(): boolean {
    const e = this.#expected;
    if (e.kind !== 'meta' || e.body.length - e.filled > this.#blockFilled) return false;
    this.#block.copy(e.body, e.filled, 0, e.body.length - e.filled);
    this.#expected = HEADER;
    this.#meta(e.flag, e.body, e.offset);
    return true;
  }

  /** There are records or long names for the next file. */
  get #pending(): boolean {
    return this.#records !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
  }

  #leftover(): void {
    if (this.#pending) {
      this.notes.add('an extended header at the end describes no file', this.#longName ?? '');
    }
  }

  /** One whole block. */
  #take(bytes: Buffer, at: number): void {
    const offset = this.#position;
    this.#position += BLOCK;
    const e = this.#expected;
    switch (e.kind) {
      case 'header':
        this.#header(bytes, at, offset);
        return;
      case 'meta':
        bytes.copy(e.body, e.filled, at, at + Math.min(BLOCK, e.body.length - e.filled));
        e.filled += BLOCK;
        if (e.filled >= e.body.length) {
          this.#expected = HEADER;
          this.#meta(e.flag, e.body, e.offset);
        }
        return;
      case 'extension':
        readGnuSegments(bytes, at, GNU_EXTENSION, e.file.map, e.file.offset);
        this.#countSegments(e.file.map.length / 2, e.file.offset, false);
        if (bytes[at + GNU_EXTENSION.extended] === 0) this.#sparse(e.file, e.file.map, e.file.stored);
        return;
      case 'map':
        e.used += BLOCK;
        if (e.used > e.file.stored) throw invalidMap(e.file.offset);
        if (e.reader.push(bytes, at)) this.#sparse(e.file, e.reader.map, e.file.stored - e.used);
    }
  }

  #header(bytes: Buffer, at: number, offset: number): void {
    if (isZeroBlock(bytes, at)) {
      if (++this.#zeroBlocks === 2) {
        this.#ended = true;
        this.archiveSize = this.#position;
        this.#leftover();
      }
      return;
    }
    if (this.#zeroBlocks > 0) {
      throw new LaminaError('TAR_INVALID', `There is a header after a zero block, at byte ${offset}`, {
        details: { offset },
      });
    }
    const header = parseHeader(bytes, at, offset);
    const flag = String.fromCharCode(header.flag);
    switch (flag) {
      case 'x':
      case 'X':
      case 'L':
      case 'K':
        this.#expectMeta(flag === 'X' ? 'x' : flag, header.size, offset);
        return;
      case 'g':
      case 'V':
        // A global header's records are ignored as the other image tools do, a volume label is no file.
        if (this.#pending) throw forNoFile(offset);
        this.#skipData(checkedSize(header.size, offset));
        return;
      default:
        this.#file(header, flag, bytes, at, offset);
    }
  }

  #expectMeta(flag: string, size: number, offset: number): void {
    const length = checkedSize(size, offset);
    if (length > META_LIMIT) {
      throw new LaminaError(
        'LIMIT_EXCEEDED',
        `The extended header at byte ${offset} is larger than ${META_LIMIT} bytes`,
        {
          details: { offset, size: length },
        },
      );
    }
    if (length === 0) this.#meta(flag, Buffer.alloc(0), offset);
    else this.#expected = { kind: 'meta', flag, body: Buffer.alloc(length), filled: 0, offset };
  }

  #meta(flag: string, body: Buffer, offset: number): void {
    if (flag === 'x') this.#records = new PaxRecords(body, offset + BLOCK, this.#origins);
    else if (flag === 'L') this.#longName = longText(body);
    else this.#longLink = longText(body);
  }

  #file(header: TarHeader, rawFlag: string, bytes: Buffer, at: number, offset: number): void {
    const records = this.#records;
    const longName = this.#longName;
    const longLink = this.#longLink;
    this.#records = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;

    const name = longName ?? records?.get('path') ?? header.name;
    const linkName = longLink ?? records?.get('linkpath') ?? header.linkName;
    // Archives from before ustar mark a directory by the slash alone, and give it a size that means nothing.
    const isOldDirectory = rawFlag === '\0' && name.endsWith('/');
    const hasData = !headerOnly.has(rawFlag) && !isOldDirectory;
    const size = hasData ? checkedSize(records?.integer('size', offset) ?? header.size, offset) : 0;
    const flag = rawFlag === '\0' || rawFlag === '0' ? (name.endsWith('/') && size === 0 ? '5' : '0') : rawFlag;
    const type = types[flag];
    if (type === undefined) {
      throw new LaminaError(
        'TAR_UNSUPPORTED',
        `Cannot read the tar entry at byte ${offset}: its type is ${JSON.stringify(flag)}`,
        {
          details: { offset },
        },
      );
    }
    if (records?.has('SUN.holesdata') === true) {
      throw new LaminaError(
        'SPARSE_INVALID',
        `Cannot read the sparse file at byte ${offset}: SUN.holesdata is not supported`,
        {
          details: { offset },
        },
      );
    }
    const origin = this.#origins ? originOf(bytes, at, records) : undefined;
    const pending = { header, records, name, linkName, stored: size, offset, origin };

    if (flag === 'S') {
      const map: number[] = [];
      readGnuSegments(bytes, at, GNU_SEGMENTS, map, offset);
      const realSize = checked(parseNumber(bytes, at + GNU_SEGMENTS.realSize, 12), offset);
      const file = { ...pending, realSize, map };
      if (bytes[at + GNU_SEGMENTS.extended] !== 0) this.#expected = { kind: 'extension', file };
      else this.#sparse(file, map, size);
      return;
    }
    const sparse = type === 'file' && records !== undefined ? paxSparseVersion(records) : undefined;
    if (sparse !== undefined && records !== undefined) {
      const realSize = records.integer('GNU.sparse.size', offset) ?? records.integer('GNU.sparse.realsize', offset);
      const file = {
        ...pending,
        name: records.get('GNU.sparse.name') ?? name,
        realSize: checked(realSize ?? size, offset),
        map: [],
      };
      if (sparse === '0.x') this.#sparse(file, parsePaxMap(records, offset), size);
      else
        this.#expected = { kind: 'map', file, reader: new MapReader(SEGMENTS_MAX - this.#segments, offset), used: 0 };
      return;
    }
    const isFile = type === 'file';
    const data = isFile && size > 0 ? [{ offset: 0, length: size, position: this.#position }] : [];
    this.#emit(type, pending, isFile ? size : 0, data);
    this.#skipData(size);
  }

  #sparse(file: PendingFile, map: readonly number[], stored: number): void {
    this.#countSegments(map.length / 2, file.offset, true);
    const runs = sparseRuns(map, file.realSize, stored, this.#position, file.offset);
    this.#expected = HEADER;
    this.#emit('file', file, file.realSize, runs);
    this.#skipData(stored);
  }

  #countSegments(count: number, offset: number, complete: boolean): void {
    if (this.#segments + count > SEGMENTS_MAX) throw tooManySegments(offset);
    if (complete) this.#segments += count;
  }

  #emit(type: EntryType, described: Described, size: number, data: readonly DataRun[]): void {
    const entry = entryOf(described, { type, size, data, order: ++this.#order }, this.notes);
    const { origin } = described;
    this.#onEntry(origin === undefined ? entry : { ...entry, origin: { ...origin, position: this.#position } });
  }

  #skipData(size: number): void {
    this.#padding = (BLOCK - (size % BLOCK)) % BLOCK;
    this.#skip = size + this.#padding;
  }
}

function checkedSize(size: number, offset: number): number {
  if (Number.isSafeInteger(size) && size >= 0) return size;
  throw new LaminaError(
    'TAR_INVALID',
    `Cannot read the tar header at byte ${offset}: its size is negative or too large`,
    {
      details: { offset },
    },
  );
}

/** Go forgets such records, GNU tar, bsdtar and Python keep them for the next file, and by a size disagree on where that ends. */
function forNoFile(offset: number): LaminaError {
  return new LaminaError(
    'TAR_INVALID',
    `Cannot read the tar header at byte ${offset}: it stands between a file and its extended header`,
    { details: { offset } },
  );
}

function invalidMap(offset: number): LaminaError {
  return new LaminaError(
    'SPARSE_INVALID',
    `Cannot read the sparse file at byte ${offset}: its map is longer than its data`,
    {
      details: { offset },
    },
  );
}
