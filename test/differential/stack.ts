/**
 * A stack of layers as data: what the generator makes, the shrinker cuts and a fixture holds; and its way into an OCI
 * layout, by raw header blocks. JSON-safe: bytes of names are latin1 strings, values of attributes hexadecimal.
 */
import { makeLayout, type LayerCompression, type MadeImage } from '../support/images.js';
import { END, base256, gnuLong, paxEntry, padded, rawHeader } from '../support/tar.js';
import { contentBytes } from './random.js';

/** "spec": judged by umoci, symlinked parents followed. "overlay": judged by containerd on overlayfs. */
export const worlds = ['spec', 'overlay'] as const;
export type World = (typeof worlds)[number];

export interface StackEntry {
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo';
  /** As it stands in the archive: with "./", "/", ".." and all. */
  readonly name: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** "SECONDS" or "SECONDS.NNNNNNNNN". */
  readonly mtime?: string;
  /** Of symlinks and hard links. */
  readonly link?: string;
  readonly size?: number;
  readonly seed?: number;
  /** Segments with data, [offset, length], of a file of `size` bytes; the rest is a hole. */
  readonly sparse?: readonly (readonly [number, number])[];
  readonly device?: readonly [number, number];
  readonly xattrs?: Readonly<Record<string, string>>;
  /** How long names and large numbers are written. Default pax. */
  readonly form?: 'pax' | 'gnu';
}

export interface Stack {
  readonly world: World;
  /** Base first. */
  readonly layers: readonly (readonly StackEntry[])[];
}

const typeFlags = { file: '0', hardlink: '1', symlink: '2', char: '3', block: '4', directory: '5', fifo: '6' } as const;
const NAME_FIELD = 100;
const SMALL_ID = 0o7777777;
const OCTAL_TIME = 8 ** 11;

/** A tar of entries, with its end of archive. */
export function layerTar(entries: readonly StackEntry[]): Buffer {
  return Buffer.concat([...entries.flatMap(encode), END]);
}

export function writeStack(directory: string, { layers }: Stack): Promise<MadeImage> {
  const compressions: LayerCompression[] = ['gzip', 'none', 'gzip', 'gzip', 'none'];
  return makeLayout(directory, {
    layers: layers.map((entries, i) => ({
      tar: layerTar(entries),
      compression: compressions[i % compressions.length] ?? 'none',
    })),
  });
}

function encode(entry: StackEntry): Buffer[] {
  const { name, mode = 0o644, uid = 0, gid = 0, mtime = '1', link = '', size = 0, seed = 0, form = 'pax' } = entry;
  const before: Buffer[] = [];
  const pax: Record<string, Uint8Array> = {};
  const record = (key: string, value: string): void => void (pax[key] = Buffer.from(value, 'latin1'));
  let content = entry.type === 'file' ? contentBytes(size, seed) : Buffer.alloc(0);

  const [seconds = '0', fraction] = mtime.split('.');
  const whole = Number(seconds);
  const gnuTime = form === 'gnu' && fraction === undefined;
  if (!gnuTime && (fraction !== undefined || whole < 0 || whole >= OCTAL_TIME)) record('mtime', mtime);
  for (const [key, hex] of Object.entries(entry.xattrs ?? {})) pax[`SCHILY.xattr.${key}`] = Buffer.from(hex, 'hex');

  const id = (key: 'uid' | 'gid', value: number): number | Buffer => {
    if (value <= SMALL_ID) return value;
    if (form === 'gnu') return base256(BigInt(value), 8);
    record(key, String(value));
    return 0;
  };
  const text = (key: 'path' | 'linkpath', type: 'L' | 'K', value: string): string => {
    if (value.length <= NAME_FIELD) return value;
    if (form === 'gnu') before.push(gnuLong(type, value));
    else record(key, value);
    return value.slice(0, NAME_FIELD);
  };
  let nameField = text('path', 'L', name);
  if (entry.sparse !== undefined) {
    // PAX sparse 1.0 (GNU tar's manual, "PAX Format, Version 1.0"): the map stands before the data.
    record('GNU.sparse.major', '1');
    record('GNU.sparse.minor', '0');
    record('GNU.sparse.name', name);
    record('GNU.sparse.realsize', String(size));
    nameField = 'GNUSparseFile.0/file';
    const numbers = [entry.sparse.length, ...entry.sparse.flat()];
    const map = padded(Buffer.from(numbers.map((n) => `${n}\n`).join('')));
    content = Buffer.concat([map, ...entry.sparse.map(([at, length]) => content.subarray(at, at + length))]);
  }
  const header = rawHeader({
    name: nameField,
    mode,
    uid: id('uid', uid),
    gid: id('gid', gid),
    mtime: whole >= 0 && whole < OCTAL_TIME ? whole : gnuTime ? negativeOrLarge(whole) : 0,
    type: typeFlags[entry.type],
    linkname: text('linkpath', 'K', link),
    size: content.length,
    ...(form === 'gnu' ? { magic: 'ustar  \0' } : {}),
    ...(entry.device === undefined ? {} : { devmajor: entry.device[0], devminor: entry.device[1] }),
  });
  if (Object.keys(pax).length > 0) before.push(paxEntry(pax));
  return [...before, header, padded(content)];
}

/** Base-256 in two's complement over the 12 bytes of the time field. */
function negativeOrLarge(seconds: number): Buffer {
  const bytes = base256(BigInt.asUintN(96, BigInt(seconds)), 12);
  if (seconds < 0) bytes.writeUInt8(0xff, 0);
  return bytes;
}

/** One line an entry, so that a fixture is read and cut by hand easily. */
export function formatStack({ world, layers }: Stack): string {
  const layer = (entries: readonly StackEntry[]): string =>
    `    [\n${entries.map((entry) => `      ${asciiJson(entry)}`).join(',\n')}\n    ]`;
  return `{\n  "world": "${world}",\n  "layers": [\n${layers.map(layer).join(',\n')}\n  ]\n}`;
}

function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(/[\x7f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
