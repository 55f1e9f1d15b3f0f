/**
 * PAX extended headers (POSIX.1-2017 pax "Extended Header File Format"): records `LENGTH KEY=VALUE\n`. Keys and values are
 * bytes, whatever POSIX says about UTF-8: xattr values are binary and names are in the encoding of whoever packed them.
 */
import { LaminaError } from '../errors.js';

/** Bytes in the body of one PAX header or GNU long name; the limit of Go's archive/tar, which all image tools share. */
export const META_LIMIT = 1024 * 1024;

const XATTR = 'SCHILY.xattr.';

/** Keys whose values are used; of all others only the form is checked. */
const USED = new Set([
  'path',
  'linkpath',
  'size',
  'uid',
  'gid',
  'mtime',
  'uname',
  'gname',
  'GNU.sparse.major',
  'GNU.sparse.minor',
  'GNU.sparse.name',
  'GNU.sparse.size',
  'GNU.sparse.realsize',
  'GNU.sparse.numblocks',
  'GNU.sparse.map',
  'SUN.holesdata',
]);

/** Keys whose values may hold no NUL: it would cut a name short in one reader and not in another. */
const TEXT = new Set(['path', 'linkpath', 'uname', 'gname', 'GNU.sparse.name']);

const SPACE = 0x20;
const NEWLINE = 0x0a;
const EQUALS = 0x3d;

export class PaxRecords {
  /** Of a key that comes twice, the last value counts; an empty one means: as the tar header says. */
  readonly #values = new Map<string, string>();
  /** Full names ("user.x") to raw values, which may be empty. */
  readonly xattrs = new Map<string, Buffer>();
  /** Every record as it is, where they were asked for. */
  readonly all: Map<string, string> | undefined;

  /**
   * `body` is the whole body of an 'x' header, `offset` its place in the stream. Nothing keeps a reference to `body`.
   * Throws TAR_INVALID.
   */
  constructor(body: Buffer, offset: number, keepAll = false) {
    if (keepAll) this.all = new Map();
    const sparse: string[] = [];
    for (let at = 0; at < body.length;) {
      const end = recordEnd(body, at);
      const space = body.indexOf(SPACE, at);
      const equals = end < 0 ? -1 : body.indexOf(EQUALS, space);
      if (end < 0 || equals < 0 || equals >= end - 1 || body[end - 1] !== NEWLINE) throw malformed(offset + at);
      this.#add(body, space + 1, equals, end - 1, sparse, offset + at);
      at = end;
    }
    // Format 0.0 repeats GNU.sparse.offset and GNU.sparse.numbytes; 0.1 has the same numbers in one map.
    if (sparse.length > 0) this.#values.set('GNU.sparse.map', sparse.join(','));
  }

  #add(body: Buffer, keyAt: number, equals: number, end: number, sparse: string[], offset: number): void {
    const key = body.toString('latin1', keyAt, equals);
    if (key === '' || key.includes('\0')) throw malformed(offset);
    this.all?.set(key, body.toString('latin1', equals + 1, end));
    if (key.startsWith(XATTR)) {
      this.xattrs.set(key.slice(XATTR.length), Buffer.from(body.subarray(equals + 1, end)));
    } else if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      const wanted = sparse.length % 2 === 0 ? 'GNU.sparse.offset' : 'GNU.sparse.numbytes';
      const value = body.toString('latin1', equals + 1, end);
      if (key !== wanted || value.includes(',')) throw malformed(offset);
      sparse.push(value);
    } else if (USED.has(key)) {
      const value = body.toString('latin1', equals + 1, end);
      if (TEXT.has(key) && value.includes('\0')) throw malformed(offset);
      this.#values.set(key, value);
    }
  }

  /** The value, or undefined when it is absent or empty. Bytes as latin1. */
  get(key: string): string | undefined {
    return this.#values.get(key) || undefined;
  }

  /** Present, if only with an empty value. */
  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** A decimal integer, infinite when a double does not hold it exactly. Throws TAR_INVALID. */
  integer(key: string, offset: number): number | undefined {
    const text = this.get(key);
    if (text === undefined) return undefined;
    const value = parseInteger(text);
    if (Number.isNaN(value)) throw badValue(key, offset);
    return value;
  }

  /** `[-]SECONDS[.FRACTION]`; the fraction is cut to nanoseconds. Throws TAR_INVALID. */
  time(key: string, offset: number): { seconds: number; nsec: number } | undefined {
    const text = this.get(key);
    if (text === undefined) return undefined;
    const [, whole = '', fraction = ''] = /^([+-]?\d+)(?:\.(\d*))?$/.exec(text) ?? [];
    if (whole === '') throw badValue(key, offset);
    const seconds = parseInteger(whole);
    const nsec = Number(fraction.slice(0, 9).padEnd(9, '0'));
    // -1.25 is a quarter of a second before -1.
    if (whole.startsWith('-') && nsec > 0) return { seconds: seconds - 1, nsec: 1_000_000_000 - nsec };
    return { seconds: seconds + 0, nsec };
  }
}

/** The end of the record at `at` (after its newline), or -1 when there is no such record. */
function recordEnd(body: Buffer, at: number): number {
  let length = 0;
  let i = at;
  for (; i < body.length && i - at < 9; i++) {
    const digit = body[i]! - 0x30;
    if (digit < 0 || digit > 9) break;
    length = length * 10 + digit;
  }
  const end = at + length;
  // The shortest record after its space is "k=\n".
  return i > at && body[i] === SPACE && end >= i + 4 && end <= body.length ? end : -1;
}

/** A decimal integer; NaN when it is none, infinite when a double does not hold it exactly. */
export function parseInteger(text: string): number {
  if (!/^[+-]?\d+$/.test(text)) return NaN;
  const value = Number(text);
  if (Number.isSafeInteger(value)) return value;
  return value > 0 ? Infinity : -Infinity;
}

function malformed(offset: number): LaminaError {
  return new LaminaError('TAR_INVALID', `Cannot read the PAX record at byte ${offset}: it is malformed`, {
    details: { offset },
  });
}

function badValue(key: string, offset: number): LaminaError {
  return new LaminaError('TAR_INVALID', `Cannot read the PAX header at byte ${offset}: its ${key} is not a number`, {
    details: { offset },
  });
}
