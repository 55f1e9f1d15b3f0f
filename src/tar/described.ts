/** The entry that a header and the records before it describe: records win over the header. */
import { LaminaError } from '../errors.js';
import type { EntryOrigin, TarEntry } from './entry.js';
import { parseOwner, type TarHeader } from './header.js';
import type { Notes } from './notes.js';
import type { PaxRecords } from './pax.js';

/** 2^32 - 1 means "leave it" to chown(2). */
const ID_MAX = 0xffff_fffe;

/** What is said of a file, but for its data. */
export interface Described {
  readonly header: TarHeader;
  readonly records: PaxRecords | undefined;
  readonly name: string;
  readonly linkName: string;
  /** Byte of the stream where the header is. */
  readonly offset: number;
  readonly origin: Omit<EntryOrigin, 'position'> | undefined;
}

const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();
const NO_RECORDS: ReadonlyMap<string, string> = new Map();

/** Throws METADATA_INVALID. */
export function entryOf(
  { header, records, name, linkName, offset }: Described,
  { type, size, data, order }: Pick<TarEntry, 'type' | 'size' | 'data' | 'order'>,
  notes: Notes,
): TarEntry {
  const time = records?.time('mtime', offset);
  const seconds = time?.seconds ?? header.mtime;
  const mtime = Math.max(Math.min(seconds, Number.MAX_SAFE_INTEGER), Number.MIN_SAFE_INTEGER);
  if (mtime !== seconds) notes.add('a modification time is out of range', name);
  const device = type === 'char' || type === 'block';
  return {
    type,
    name,
    linkName: type === 'hardlink' || type === 'symlink' ? linkName : '',
    mode: header.mode,
    uid: checkedId(records?.integer('uid', offset) ?? header.uid, 'user', name, offset),
    gid: checkedId(records?.integer('gid', offset) ?? header.gid, 'group', name, offset),
    mtime,
    mtimeNsec: mtime === seconds ? (time?.nsec ?? 0) : 0,
    size,
    devMajor: device ? header.devMajor : 0,
    devMinor: device ? header.devMinor : 0,
    xattrs: records?.xattrs ?? NO_XATTRS,
    data,
    order,
  };
}

/** Of the header that is at `at` of `bytes`. */
export function originOf(bytes: Buffer, at: number, records: PaxRecords | undefined): Omit<EntryOrigin, 'position'> {
  const { uname, gname, mode } = parseOwner(bytes, at);
  return {
    mode,
    uname: records?.get('uname') ?? uname,
    gname: records?.get('gname') ?? gname,
    records: records?.all ?? NO_RECORDS,
  };
}

function checkedId(id: number, what: string, name: string, offset: number): number {
  if (Number.isInteger(id) && id >= 0 && id <= ID_MAX) return id;
  throw new LaminaError('METADATA_INVALID', `The ${what} ID of the tar entry at byte ${offset} is out of range`, {
    details: { offset, name: Buffer.from(name.slice(0, 200), 'latin1').toString('utf8') },
  });
}
