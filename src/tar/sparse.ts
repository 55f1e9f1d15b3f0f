/**
 * Sparse files, in the four forms that GNU tar has written (GNU tar manual, "Storing Sparse Files"):
 *
 *     old GNU   typeflag 'S', 4 segments in the header, 21 in each extension block that follows it
 *     PAX 0.0   GNU.sparse.offset / GNU.sparse.numbytes records, repeated
 *     PAX 0.1   GNU.sparse.map "offset,length,.."
 *     PAX 1.0   the map in front of the data: decimal lines "count", then offset and length by turns, padded to 512
 *
 * A map is a flat list of numbers here: offset, length, offset, length, ..
 */
import { LaminaError } from '../errors.js';
import type { DataRun } from './entry.js';
import { BLOCK, parseNumber } from './header.js';
import { parseInteger, type PaxRecords } from './pax.js';

/** Where the segments of a 'S' header start, how many there are, and the byte that says that a block follows. */
export const GNU_SEGMENTS = { at: 386, count: 4, extended: 482, realSize: 483 } as const;
/** The same for an extension block. */
export const GNU_EXTENSION = { at: 0, count: 21, extended: 504 } as const;

/** Appends the segments of a header or extension block at `at` to `map`. Throws SPARSE_INVALID. */
export function readGnuSegments(
  bytes: Buffer,
  at: number,
  where: typeof GNU_SEGMENTS | typeof GNU_EXTENSION,
  map: number[],
  offset: number,
): void {
  for (let i = 0; i < where.count; i++) {
    const segment = at + where.at + i * 24;
    if (bytes[segment] === 0) return;
    map.push(checked(parseNumber(bytes, segment, 12), offset), checked(parseNumber(bytes, segment + 12, 12), offset));
  }
}

/** The version of a PAX sparse file; undefined for a plain file, and for a version that nobody has defined. */
export function paxSparseVersion(records: PaxRecords): '0.x' | '1.0' | undefined {
  const major = records.get('GNU.sparse.major');
  const minor = records.get('GNU.sparse.minor');
  if (major === undefined && minor === undefined) {
    return records.get('GNU.sparse.map') === undefined ? undefined : '0.x';
  }
  if (major === '0' && (minor === '0' || minor === '1')) return '0.x';
  return major === '1' && minor === '0' ? '1.0' : undefined;
}

/** The map of a PAX 0.0 or 0.1 header. Throws SPARSE_INVALID. */
export function parsePaxMap(records: PaxRecords, offset: number): number[] {
  const text = records.get('GNU.sparse.map');
  const map = text === undefined ? [] : text.split(',').map((number) => checked(parseInteger(number), offset));
  const count = records.get('GNU.sparse.numblocks');
  if (map.length % 2 !== 0 || (count !== undefined && parseInteger(count) !== map.length / 2)) {
    throw invalid(offset, 'its map has not as many numbers as it says');
  }
  return map;
}

/** Reads a PAX 1.0 map block by block. */
export class MapReader {
  readonly map: number[] = [];
  readonly #limit: number;
  readonly #offset: number;
  /** Numbers the map will have; -1 until its first line is read. */
  #wanted = -1;
  #number = 0;
  #digits = 0;

  /** `limit` bounds the segments, `offset` is the header's place in the stream. */
  constructor(limit: number, offset: number) {
    this.#limit = limit;
    this.#offset = offset;
  }

  /** Takes one 512-byte block at `at`; true when the map is complete. Throws SPARSE_INVALID, LIMIT_EXCEEDED. */
  push(bytes: Buffer, at: number): boolean {
    for (let i = at; i < at + BLOCK; i++) {
      const b = bytes[i]!;
      if (b >= 0x30 && b <= 0x39 && this.#digits < 16) {
        this.#number = this.#number * 10 + (b - 0x30);
        this.#digits++;
      } else if (b === 0x0a && this.#digits > 0) {
        if (this.#line(checked(this.#number, this.#offset))) return true;
        this.#number = 0;
        this.#digits = 0;
      } else {
        throw invalid(this.#offset, 'its map holds something else than numbers');
      }
    }
    return false;
  }

  #line(number: number): boolean {
    if (this.#wanted < 0) {
      if (number > this.#limit) throw tooManySegments(this.#offset);
      this.#wanted = 2 * number;
    } else {
      this.map.push(number);
    }
    return this.map.length === this.#wanted;
  }
}

/**
 * The runs of data that `map` describes: segments ascend, do not overlap and end within `size`, and together they
 * are the `stored` bytes that the archive has at `position`, one after the other without padding. Empty segments
 * carry nothing. Throws SPARSE_INVALID.
 */
export function sparseRuns(
  map: readonly number[],
  size: number,
  stored: number,
  position: number,
  offset: number,
): DataRun[] {
  const runs: DataRun[] = [];
  let end = 0;
  let used = 0;
  for (let i = 0; i < map.length; i += 2) {
    const start = map[i]!;
    const length = map[i + 1]!;
    if (start < end) throw invalid(offset, 'its segments overlap');
    end = start + length;
    if (end > size) throw invalid(offset, 'a segment ends after the file does');
    if (length > 0) runs.push({ offset: start, length, position: position + used });
    used += length;
  }
  if (used !== stored)
    throw invalid(offset, `its segments do not add up (wanted ${stored} bytes of data, got ${used})`);
  return runs;
}

/** Sizes and offsets of sparse files: whole, not negative, exact. Throws SPARSE_INVALID. */
export function checked(number: number, offset: number): number {
  if (Number.isSafeInteger(number) && number >= 0) return number;
  throw invalid(offset, 'a size or offset in it is no number, negative or too large');
}

export function invalid(offset: number, why: string): LaminaError {
  return new LaminaError('SPARSE_INVALID', `Cannot read the sparse file at byte ${offset}: ${why}`, {
    details: { offset },
  });
}

export function tooManySegments(offset: number): LaminaError {
  return new LaminaError(
    'LIMIT_EXCEEDED',
    `Cannot read the sparse file at byte ${offset}: too many segments in this archive`,
    {
      details: { offset },
    },
  );
}
