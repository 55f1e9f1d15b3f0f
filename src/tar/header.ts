/**
 * The 512-byte tar header in its four dialects, told apart as by the POSIX and GNU magic:
 *
 *     0 name[100]  100 mode[8]  108 uid[8]  116 gid[8]  124 size[12]  136 mtime[12]  148 checksum[8]  156 type  157 link[100]
 *     257 magic[6]  263 version[2]  265 uname[32]  297 gname[32]  329 major[8]  337 minor[8]
 *     ustar  345 prefix[155]
 *     STAR   345 prefix[131]  476 atime[12]  488 ctime[12]  508 "tar\0"
 *     GNU    345 atime[12]  357 ctime[12]  386 sparse[4 x 24]  482 extended  483 realsize[12]
 *
 * Sources: POSIX.1-2017 pax "ustar Interchange Format", GNU tar manual "Basic Tar Format".
 */
import { LaminaError } from '../errors.js';

export const BLOCK = 512;

export type HeaderFormat = 'v7' | 'ustar' | 'star' | 'gnu';

/** The header's fields as they are, before PAX records and GNU long names are applied. */
export interface TarHeader {
  readonly format: HeaderFormat;
  /** The typeflag byte. */
  readonly flag: number;
  /** With the ustar or STAR prefix. Bytes as latin1, as all names. */
  readonly name: string;
  readonly linkName: string;
  /** 07777. */
  readonly mode: number;
  /** Numbers may be negative; where base-256 says more than a double holds exactly they are infinite. */
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** Seconds. */
  readonly mtime: number;
  readonly devMajor: number;
  readonly devMinor: number;
}

export function isZeroBlock(bytes: Buffer, at: number): boolean {
  for (let i = at; i < at + BLOCK; i++) if (bytes[i] !== 0) return false;
  return true;
}

/**
 * Parses the header in `bytes` at `at`; `offset` is its place in the stream, for errors.
 * Throws TAR_INVALID for a wrong checksum or a field that is no number: there is no way to find the next header then.
 */
export function parseHeader(bytes: Buffer, at: number, offset: number): TarHeader {
  if (!checksumMatches(bytes, at)) {
    throw new LaminaError('TAR_INVALID', `Cannot read the tar header at byte ${offset}: its checksum does not match`, {
      hint: 'The layer is not a tar archive, or it is damaged.',
      details: { offset },
    });
  }
  const field = (name: string, from: number, length: number): number => {
    const value = parseNumber(bytes, at + from, length);
    if (!Number.isNaN(value)) return value;
    throw new LaminaError('TAR_INVALID', `Cannot read the tar header at byte ${offset}: its ${name} is not a number`, {
      details: { offset },
    });
  };
  const format = formatOf(bytes, at);
  const isV7 = format === 'v7';
  const prefix = prefixOf(bytes, at, format);
  const name = cString(bytes, at, 100);
  return {
    format,
    flag: bytes[at + 156]!,
    name: prefix === '' ? name : `${prefix}/${name}`,
    linkName: cString(bytes, at + 157, 100),
    mode: field('mode', 100, 8) & 0o7777,
    uid: field('uid', 108, 8),
    gid: field('gid', 116, 8),
    size: field('size', 124, 12),
    mtime: field('mtime', 136, 12),
    devMajor: isV7 ? 0 : field('device major number', 329, 8),
    devMinor: isV7 ? 0 : field('device minor number', 337, 8),
  };
}

/** POSIX sums unsigned bytes; some old tars summed signed ones. The checksum field itself counts as spaces. */
function checksumMatches(bytes: Buffer, at: number): boolean {
  const wanted = parseOctal(bytes, at + 148, 8);
  let unsigned = 8 * 0x20;
  let high = 0;
  for (let i = at; i < at + BLOCK; i++) {
    const b = bytes[i]!;
    unsigned += b;
    high += b >> 7;
  }
  for (let i = at + 148; i < at + 156; i++) {
    const b = bytes[i]!;
    unsigned -= b;
    high -= b >> 7;
  }
  return wanted === unsigned || wanted === unsigned - 256 * high;
}

function formatOf(bytes: Buffer, at: number): HeaderFormat {
  const magic = bytes.toString('latin1', at + 257, at + 265);
  if (magic === 'ustar  \0') return 'gnu';
  if (!magic.startsWith('ustar\0')) return 'v7';
  return bytes.toString('latin1', at + 508, at + 512) === 'tar\0' ? 'star' : 'ustar';
}

/** The owner's names in the header in `bytes` at `at`, and all bits of its mode. */
export function parseOwner(bytes: Buffer, at: number): { uname: string; gname: string; mode: number } {
  const isV7 = formatOf(bytes, at) === 'v7';
  return {
    uname: isV7 ? '' : cString(bytes, at + 265, 32),
    gname: isV7 ? '' : cString(bytes, at + 297, 32),
    mode: parseNumber(bytes, at + 100, 8),
  };
}

function prefixOf(bytes: Buffer, at: number, format: HeaderFormat): string {
  switch (format) {
    case 'v7':
      return '';
    case 'ustar':
      return bytes[at + 345] === 0 ? '' : cString(bytes, at + 345, 155);
    case 'star':
      return bytes[at + 345] === 0 ? '' : cString(bytes, at + 345, 131);
    case 'gnu':
      return misplacedPrefix(bytes, at);
  }
}

/**
 * Go before 1.8 wrote a ustar prefix into GNU headers, over the atime and ctime fields, and such images exist. It is
 * one when those fields hold no numbers and it is ASCII.
 */
function misplacedPrefix(bytes: Buffer, at: number): string {
  const isTime = (from: number): boolean => bytes[from] === 0 || Number.isFinite(parseNumber(bytes, from, 12));
  if (isTime(at + 345) && isTime(at + 357)) return '';
  const prefix = cString(bytes, at + 345, 155);
  for (let i = 0; i < prefix.length; i++) if (prefix.charCodeAt(i) >= 0x80) return '';
  return prefix;
}

/** The bytes up to the first NUL, or all of them. */
function cString(bytes: Buffer, at: number, length: number): string {
  const end = at + length;
  let to = at;
  while (to < end && bytes[to] !== 0) to++;
  return bytes.toString('latin1', at, to);
}

/** What the body of a GNU 'L' or 'K' entry says; undefined where it is empty, which means: as the header says. */
export function longText(body: Buffer): string | undefined {
  return cString(body, 0, body.length) || undefined;
}

/**
 * A number field: base-256 (two's complement, big-endian) when its top bit is set, else octal. NaN when it is neither,
 * infinite when base-256 exceeds 2^53 - 1.
 */
export function parseNumber(bytes: Buffer, at: number, length: number): number {
  const first = bytes[at]!;
  if ((first & 0x80) === 0) return parseOctal(bytes, at, length);
  const negative = (first & 0x40) !== 0;
  const invert = negative ? 0xff : 0;
  let value = (first ^ invert) & 0x7f;
  for (let i = at + 1; i < at + length; i++) value = value * 256 + (bytes[i]! ^ invert);
  if (value > Number.MAX_SAFE_INTEGER - 1) value = Infinity;
  return negative ? -value - 1 : value;
}

/** Octal digits between spaces and NULs; an empty field is 0, anything else NaN. What follows a NUL does not count. */
function parseOctal(bytes: Buffer, at: number, length: number): number {
  const end = at + length;
  let i = at;
  while (i < end && (bytes[i] === 0x20 || bytes[i] === 0)) i++;
  let value = 0;
  for (; i < end; i++) {
    const digit = bytes[i]! - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  if (i < end && bytes[i] === 0) return value;
  for (; i < end; i++) if (bytes[i] !== 0x20 && bytes[i] !== 0) return NaN;
  return value;
}
