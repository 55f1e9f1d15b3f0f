/** Metadata as people and scripts read it: types, modes, device numbers and times. */
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '../erofs/tree.js';

export type FileType =
  'file' | 'directory' | 'symlink' | 'character-device' | 'block-device' | 'fifo' | 'socket' | 'unknown';

export function fileType(mode: number): FileType {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return 'file';
    case S_IFDIR:
      return 'directory';
    case S_IFLNK:
      return 'symlink';
    case S_IFCHR:
      return 'character-device';
    case S_IFBLK:
      return 'block-device';
    case S_IFIFO:
      return 'fifo';
    case S_IFSOCK:
      return 'socket';
    default:
      return 'unknown';
  }
}

const TYPE_LETTERS: Readonly<Record<FileType, string>> = {
  file: '-',
  directory: 'd',
  symlink: 'l',
  'character-device': 'c',
  'block-device': 'b',
  fifo: 'p',
  socket: 's',
  unknown: '?',
};

const S_ISUID = 0o4000;
const S_ISGID = 0o2000;
const S_ISVTX = 0o1000;

/** "drwxr-xr-x", as ls(1). */
export function modeString(mode: number): string {
  const bits = (shift: number, special: number, letter: string): string => {
    const r = (mode >> shift) & 4 ? 'r' : '-';
    const w = (mode >> shift) & 2 ? 'w' : '-';
    const x = ((mode >> shift) & 1) === 1;
    if ((mode & special) === 0) return `${r}${w}${x ? 'x' : '-'}`;
    return `${r}${w}${x ? letter : letter.toUpperCase()}`;
  };
  return TYPE_LETTERS[fileType(mode)] + bits(6, S_ISUID, 's') + bits(3, S_ISGID, 's') + bits(0, S_ISVTX, 't');
}

/** "0755". */
export function octalMode(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}

export interface DeviceNumber {
  readonly major: number;
  readonly minor: number;
}

/** Of the encoding in which Linux file systems keep it (include/linux/kdev_t.h, new_decode_dev). */
export function deviceNumber(rdev: number): DeviceNumber {
  return { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00) };
}

/** Milliseconds that a Date can hold. */
const DATE_MAX = 8.64e15;

/** "2024-02-29T12:00:00.000000001Z"; a time that no calendar here reaches is "@SECONDS.NANOSECONDS". */
export function isoTime(seconds: number, nanoseconds: number): string {
  const fraction = String(nanoseconds).padStart(9, '0');
  if (Math.abs(seconds * 1000) > DATE_MAX) return `@${seconds}.${fraction}`;
  return `${new Date(seconds * 1000).toISOString().slice(0, -5)}.${fraction}Z`;
}

/** "2024-02-29 12:00", in UTC, so that a listing is the same everywhere. */
export function shortTime(seconds: number): string {
  const iso = isoTime(seconds, 0);
  return iso.startsWith('@') ? `@${seconds}` : iso.slice(0, -14).replace('T', ' ');
}
