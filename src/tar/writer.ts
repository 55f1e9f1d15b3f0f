/**
 * Writes tar entries: ustar headers, with a PAX header before each that ustar cannot say in full (POSIX.1-2017 pax). Names
 * and values are bytes: where a name is no UTF-8, `hdrcharset=BINARY` says so, as libarchive writes and reads it.
 *
 * A sparse file is in GNU format 1.0: its body is the map, in decimal lines padded to a block, then the data:
 *
 *     GNU.sparse.major=1 minor=0 name=NAME realsize=SIZE
 *     | count \n offset \n length \n ... 0 | data of the 1st run | data of the 2nd run | ...
 */
import { isUtf8 } from 'node:buffer';
import type { EntryType, TarEntry } from './entry.js';
import { BLOCK } from './header.js';

/** What {@link TarEntry} says of an entry that is read, for one that is written. Names are bytes in latin1 strings. */
export interface TarMember extends Omit<TarEntry, 'xattrs' | 'data' | 'order'> {
  /** Relative; a directory's without its slash. */
  readonly name: string;
  readonly xattrs: readonly (readonly [name: string, value: Buffer])[];
  /** The runs of a sparse file that have data, ascending; undefined: all of it. Every run but one at the end has whole blocks. */
  readonly runs?: readonly SparseRun[] | undefined;
}

export interface SparseRun {
  /** Bytes from the start of the file. */
  readonly offset: number;
  readonly length: number;
}

export interface MemberHead {
  /** What stands before the data. */
  readonly bytes: Buffer;
  /** Bytes of data that follow it, without {@link paddingOf}. */
  readonly dataSize: number;
}

const FLAGS: Readonly<Record<EntryType, string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

const NAME_MAX = 100;
const PREFIX_MAX = 155;
const OCTAL_7 = 0o7777777;
const OCTAL_11 = 0o77777777777;

/** The two blocks of zeros at the end of an archive. */
export const END_OF_ARCHIVE = Buffer.alloc(2 * BLOCK);

/** Zeros up to a whole block after `size` bytes. */
export function paddingOf(size: number): Buffer {
  return END_OF_ARCHIVE.subarray(0, (BLOCK - (size % BLOCK)) % BLOCK);
}

/** The headers of a member, and the map of a sparse file. */
export function encodeMember(member: TarMember): MemberHead {
  const { runs, size } = member;
  const map = runs === undefined ? undefined : sparseMap(runs, size);
  const dataSize = runs === undefined ? size : runs.reduce((n, { length }) => n + length, 0);
  const bodySize = dataSize + (map?.length ?? 0);
  const name = member.type === 'directory' ? `${member.name}/` : member.name;
  const shownName = map === undefined ? name : `GNUSparseFile.0/${lastPart(name)}`;
  const records = paxRecords(member, name, bodySize, map !== undefined);
  const parts: Buffer[] = [];
  if (records.length > 0) {
    const body = Buffer.concat(records);
    const paxName = `PaxHeaders/${lastPart(name).slice(0, 80)}`;
    parts.push(encodeHeader(PAX_MEMBER, paxName, 'x', body.length), body, paddingOf(body.length));
  }
  parts.push(encodeHeader(member, shownName, FLAGS[member.type], bodySize));
  if (map !== undefined) parts.push(map);
  return { bytes: Buffer.concat(parts), dataSize };
}

const PAX_MEMBER = { linkName: '', mode: 0o644, uid: 0, gid: 0, mtime: 0, devMajor: 0, devMinor: 0 } as const;

/** As GNU tar does, a file that ends in a hole gets an empty run at its end. */
function sparseMap(runs: readonly SparseRun[], size: number): Buffer {
  const last = runs.at(-1);
  const all = last === undefined || last.offset + last.length < size ? [...runs, { offset: size, length: 0 }] : runs;
  const lines = [all.length, ...all.flatMap(({ offset, length }) => [offset, length])];
  const text = Buffer.from(`${lines.join('\n')}\n`, 'latin1');
  return Buffer.concat([text, paddingOf(text.length)]);
}

function paxRecords(member: TarMember, name: string, bodySize: number, sparse: boolean): Buffer[] {
  const { linkName, uid, gid, mtime, mtimeNsec, size, xattrs } = member;
  const records: Buffer[] = [];
  const add = (key: string, value: Buffer | string): void => void records.push(paxRecord(key, value));
  const longName = !sparse && splitName(name) === undefined;
  const longLink = linkName.length > NAME_MAX;
  const texts = [...(longName || sparse ? [name] : []), ...(longLink ? [linkName] : [])];
  if (texts.some((text) => !isUtf8(Buffer.from(text, 'latin1')))) add('hdrcharset', 'BINARY');
  if (longName) add('path', name);
  if (longLink) add('linkpath', linkName);
  if (uid > OCTAL_7) add('uid', String(uid));
  if (gid > OCTAL_7) add('gid', String(gid));
  if (bodySize > OCTAL_11) add('size', String(bodySize));
  if (mtimeNsec !== 0 || mtime < 0 || mtime > OCTAL_11) add('mtime', paxTime(mtime, mtimeNsec));
  if (sparse) {
    add('GNU.sparse.major', '1');
    add('GNU.sparse.minor', '0');
    add('GNU.sparse.name', name);
    add('GNU.sparse.realsize', String(size));
  }
  for (const [key, value] of xattrs) add(`SCHILY.xattr.${key}`, value);
  return records;
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts its own digits. */
function paxRecord(key: string, value: Buffer | string): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const rest = key.length + bytes.length + 3;
  let length = rest + String(rest).length;
  if (String(length).length !== String(rest).length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), bytes, Buffer.from('\n')]);
}

/** -2 s and 750,000,000 ns are "-1.25". */
function paxTime(seconds: number, nsec: number): string {
  const negative = seconds < 0 && nsec > 0;
  const whole = negative ? seconds + 1 : seconds;
  const fraction = negative ? 1_000_000_000 - nsec : nsec;
  const sign = negative && whole === 0 ? '-' : '';
  return fraction === 0 ? String(whole) : `${sign}${whole}.${String(fraction).padStart(9, '0').replace(/0+$/, '')}`;
}

function encodeHeader(
  {
    linkName,
    mode,
    uid,
    gid,
    mtime,
    devMajor,
    devMinor,
  }: Omit<TarMember, 'type' | 'name' | 'mtimeNsec' | 'size' | 'xattrs'>,
  name: string,
  flag: string,
  size: number,
): Buffer {
  const block = Buffer.alloc(BLOCK);
  const [prefix, base] = splitName(name) ?? ['', name.slice(-NAME_MAX)];
  block.write(base, 0, NAME_MAX, 'latin1');
  writeOctal(block, 100, 8, mode);
  writeOctal(block, 108, 8, uid);
  writeOctal(block, 116, 8, gid);
  writeOctal(block, 124, 12, size);
  writeOctal(block, 136, 12, mtime);
  block.write(flag, 156, 'latin1');
  block.write(linkName, 157, NAME_MAX, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  writeOctal(block, 329, 8, devMajor);
  writeOctal(block, 337, 8, devMinor);
  block.write(prefix, 345, PREFIX_MAX, 'latin1');
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** What the field cannot hold is in the PAX header. */
function writeOctal(block: Buffer, at: number, width: number, value: number): void {
  const fits = value >= 0 && value < 8 ** (width - 1);
  block.write((fits ? value : 0).toString(8).padStart(width - 1, '0'), at, 'latin1');
}

/** Prefix and name as ustar splits them, at a slash; undefined where they do not fit. */
function splitName(name: string): [prefix: string, base: string] | undefined {
  if (name.length <= NAME_MAX) return ['', name];
  const slash = name.indexOf('/', name.length - NAME_MAX - 1);
  if (slash <= 0 || slash > PREFIX_MAX || slash === name.length - 1) return undefined;
  return [name.slice(0, slash), name.slice(slash + 1)];
}

function lastPart(name: string): string {
  return name.slice(name.lastIndexOf('/', name.length - 2) + 1);
}
