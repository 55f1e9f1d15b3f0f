/**
 * Compares two directory trees, entry by entry and byte by byte: names, types, modes, owners, sizes, times to the
 * nanosecond, device numbers, links (counts, and which names are one file), symlink targets, extended attributes, content.
 *
 *     node dist/scripts/compare-trees.js [--limit N] [--ignore FIELD:GLOB]... A B
 *
 * A is what is judged (a mount), B the oracle (what another tool extracted). Exits with 1 if they differ.
 *
 * Directories are walked through descriptors (/proc/self/fd), so paths may be of any depth, and names are bytes
 * throughout. Memory grows with the largest directory and the number of hard links.
 */
import type { BigIntStats } from 'node:fs';
import { constants } from 'node:fs';
import { lstat, open, readdir, readlink, type FileHandle } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { getXattr, listXattrs } from '../src/native/xattr.js';
import { isMain } from './main.js';

const fields = [
  'missing', // only in B
  'extra', // only in A
  'type',
  'mode',
  'uid',
  'gid',
  'size',
  'mtime',
  'rdev',
  'nlink',
  'hardlink',
  'target',
  'xattr',
  'content',
] as const;
export type Field = (typeof fields)[number];

export interface Difference {
  /** From the root on, "/" itself included; bytes that are not printable ASCII as \xNN. */
  readonly path: string;
  readonly field: Field;
  readonly a: string;
  readonly b: string;
}

/** Differences of one field below paths that match are not counted. */
export interface Ignore {
  readonly field: Field;
  /** On the path as it is printed: "*" within a name, "**" over any number of names, "?". */
  readonly glob: string;
}

export interface CompareOptions {
  readonly ignore?: readonly Ignore[];
  /** How many differences are kept (all are counted). Default 50. */
  readonly limit?: number;
}

export interface Comparison {
  /** Names in both trees. */
  readonly entries: number;
  /** Bytes of content compared. */
  readonly bytes: number;
  readonly total: number;
  readonly ignored: number;
  readonly differences: readonly Difference[];
}

/** Throws Node's system errors where a tree cannot be read. */
export async function compareTrees(a: string, b: string, options: CompareOptions = {}): Promise<Comparison> {
  const comparer = new Comparer(options);
  await comparer.roots(a, b);
  return comparer.result;
}

const CONTENT_STEP = 1 << 20;
const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const OPEN_FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

class Comparer {
  readonly #ignore: readonly { field: Field; pattern: RegExp }[];
  readonly #limit: number;
  readonly #differences: Difference[] = [];
  readonly #bufferA = Buffer.alloc(CONTENT_STEP);
  readonly #bufferB = Buffer.alloc(CONTENT_STEP);
  /** Files with several names: which file of the other tree each one is. */
  readonly #linksOfA = new Map<string, string>();
  readonly #linksOfB = new Map<string, string>();
  #entries = 0;
  #bytes = 0;
  #total = 0;
  #ignored = 0;

  constructor({ ignore = [], limit = 50 }: CompareOptions) {
    this.#ignore = ignore.map(({ field, glob }) => ({ field, pattern: globPattern(glob) }));
    this.#limit = limit;
  }

  get result(): Comparison {
    return {
      entries: this.#entries,
      bytes: this.#bytes,
      total: this.#total,
      ignored: this.#ignored,
      differences: this.#differences,
    };
  }

  async roots(a: string, b: string): Promise<void> {
    const [rootA, rootB] = await openBoth(a, b, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      const [statA, statB] = await Promise.all([rootA.stat({ bigint: true }), rootB.stat({ bigint: true })]);
      this.#entries++;
      this.#compareAttributes('/', statA, statB);
      this.#compareXattrs('/', fdPath(rootA), fdPath(rootB), true);
      await this.#compareDirectories('', rootA, rootB);
    } finally {
      await Promise.all([rootA.close(), rootB.close()]);
    }
  }

  async #compareDirectories(path: string, a: FileHandle, b: FileHandle): Promise<void> {
    const [namesA, namesB] = await Promise.all([sortedNames(a), sortedNames(b)]);
    let i = 0;
    let j = 0;
    while (i < namesA.length || j < namesB.length) {
      const nameA = namesA[i];
      const nameB = namesB[j];
      const order = nameA === undefined ? 1 : nameB === undefined ? -1 : Buffer.compare(nameA, nameB);
      if (order <= 0) i++;
      if (order >= 0) j++;
      const name = order <= 0 ? nameA : nameB;
      if (name === undefined) continue;
      const at = `${path}/${printable(name)}`;
      if (order < 0) this.#differs(at, 'extra', 'is there', 'is not');
      else if (order > 0) this.#differs(at, 'missing', 'is not', 'is there');
      else await this.#compareEntries(at, childPath(a, name), childPath(b, name));
    }
  }

  async #compareEntries(path: string, a: Buffer, b: Buffer): Promise<void> {
    const [statA, statB] = await Promise.all([lstat(a, { bigint: true }), lstat(b, { bigint: true })]);
    this.#entries++;
    this.#compareAttributes(path, statA, statB);
    this.#compareXattrs(path, a, b, false);
    if (typeOf(statA) !== typeOf(statB)) return;
    if (statA.isSymbolicLink()) {
      const [targetA, targetB] = await Promise.all([readlink(a, 'buffer'), readlink(b, 'buffer')]);
      this.#compareText(path, 'target', printable(targetA), printable(targetB));
    }
    if (!statA.isDirectory() && !this.#isNewLink(path, statA, statB)) return;
    if (statA.isDirectory()) {
      await this.#withBoth(a, b, OPEN_DIRECTORY, (dirA, dirB) => this.#compareDirectories(path, dirA, dirB));
    } else if (statA.isFile() && statA.size === statB.size) {
      await this.#withBoth(a, b, OPEN_FILE, (fileA, fileB) => this.#compareContent(path, fileA, fileB));
    }
  }

  async #withBoth(
    a: Buffer,
    b: Buffer,
    flags: number,
    use: (a: FileHandle, b: FileHandle) => Promise<void>,
  ): Promise<void> {
    const [handleA, handleB] = await openBoth(a, b, flags);
    try {
      await use(handleA, handleB);
    } finally {
      await Promise.all([handleA.close(), handleB.close()]);
    }
  }

  #compareAttributes(path: string, a: BigIntStats, b: BigIntStats): void {
    this.#compareText(path, 'type', typeOf(a), typeOf(b));
    this.#compareText(path, 'mode', octal(a.mode), octal(b.mode));
    this.#compareText(path, 'uid', String(a.uid), String(b.uid));
    this.#compareText(path, 'gid', String(a.gid), String(b.gid));
    this.#compareText(path, 'mtime', String(a.mtimeNs), String(b.mtimeNs));
    this.#compareText(path, 'nlink', String(a.nlink), String(b.nlink));
    // A directory's size is the file system's own affair.
    if (!a.isDirectory() && !b.isDirectory()) this.#compareText(path, 'size', String(a.size), String(b.size));
    if (isDevice(a) && isDevice(b)) this.#compareText(path, 'rdev', String(a.rdev), String(b.rdev));
  }

  /** `follow`: the path is a /proc/self/fd link, which has to be gone through. */
  #compareXattrs(path: string, a: Buffer, b: Buffer, follow: boolean): void {
    const through = (at: Buffer): Buffer => (follow ? Buffer.concat([at, Buffer.from('/.')]) : at);
    const [attributesA, attributesB] = [readXattrs(through(a)), readXattrs(through(b))];
    for (const name of new Set([...attributesA.keys(), ...attributesB.keys()])) {
      const [valueA, valueB] = [attributesA.get(name), attributesB.get(name)];
      if (valueA === valueB) continue;
      this.#differs(path, 'xattr', `${name}=${valueA ?? '(none)'}`, `${name}=${valueB ?? '(none)'}`);
    }
  }

  /** False for a further name of a file whose content has been compared. Names that are one file in one tree must be one in the other. */
  #isNewLink(path: string, a: BigIntStats, b: BigIntStats): boolean {
    if (a.nlink === 1n && b.nlink === 1n) return true;
    const [keyA, keyB] = [`${a.dev}:${a.ino}`, `${b.dev}:${b.ino}`];
    const [knownB, knownA] = [this.#linksOfA.get(keyA), this.#linksOfB.get(keyB)];
    if (knownB === keyB && knownA === keyA) return false;
    if (knownB !== undefined || knownA !== undefined) {
      this.#differs(path, 'hardlink', describeLink(knownB), describeLink(knownA));
    }
    this.#linksOfA.set(keyA, keyB);
    this.#linksOfB.set(keyB, keyA);
    return true;
  }

  async #compareContent(path: string, a: FileHandle, b: FileHandle): Promise<void> {
    for (let position = 0; ;) {
      const [readA, readB] = await Promise.all([fill(a, this.#bufferA, position), fill(b, this.#bufferB, position)]);
      const length = Math.min(readA, readB);
      this.#bytes += length;
      if (readA !== readB || this.#bufferA.compare(this.#bufferB, 0, length, 0, length) !== 0) {
        const at = firstDifference(this.#bufferA, this.#bufferB, length);
        const byte = (buffer: Buffer, read: number): string =>
          at < read ? `0x${buffer.readUInt8(at).toString(16)}` : 'the end';
        const where = `at byte ${position + at}`;
        this.#differs(
          path,
          'content',
          `${byte(this.#bufferA, readA)} ${where}`,
          `${byte(this.#bufferB, readB)} ${where}`,
        );
        return;
      }
      if (length < CONTENT_STEP) return;
      position += length;
    }
  }

  #compareText(path: string, field: Field, a: string, b: string): void {
    if (a !== b) this.#differs(path, field, a, b);
  }

  #differs(path: string, field: Field, a: string, b: string): void {
    if (this.#ignore.some((rule) => rule.field === field && rule.pattern.test(path))) {
      this.#ignored++;
      return;
    }
    this.#total++;
    if (this.#differences.length < this.#limit) this.#differences.push({ path, field, a, b });
  }
}

async function openBoth(a: Buffer | string, b: Buffer | string, flags: number): Promise<[FileHandle, FileHandle]> {
  const handleA = await open(a, flags);
  try {
    return [handleA, await open(b, flags)];
  } catch (e) {
    await handleA.close();
    throw e;
  }
}

function fdPath(handle: FileHandle): Buffer {
  return Buffer.from(`/proc/self/fd/${handle.fd}`);
}

function childPath(directory: FileHandle, name: Buffer): Buffer {
  return Buffer.concat([fdPath(directory), Buffer.from('/'), name]);
}

async function sortedNames(directory: FileHandle): Promise<Buffer[]> {
  const names = await readdir(fdPath(directory), { encoding: 'buffer' });
  return names.sort((x, y) => Buffer.compare(x, y));
}

async function fill(file: FileHandle, into: Buffer, position: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

function firstDifference(a: Buffer, b: Buffer, length: number): number {
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return length;
}

/** Values in hexadecimal: they are compared and shown, no more. */
function readXattrs(path: Buffer): Map<string, string> {
  return new Map(listXattrs(path).map((name) => [name, getXattr(path, name)?.toString('hex') ?? '(gone)']));
}

function typeOf(stat: BigIntStats): string {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isCharacterDevice()) return 'character device';
  if (stat.isBlockDevice()) return 'block device';
  return stat.isFIFO() ? 'fifo' : 'socket';
}

function isDevice(stat: BigIntStats): boolean {
  return stat.isCharacterDevice() || stat.isBlockDevice();
}

/** Permission bits, set-user-ID, set-group-ID and sticky; the type is a field of its own. */
function octal(mode: bigint): string {
  return (mode & 0o7777n).toString(8).padStart(4, '0');
}

function describeLink(known: string | undefined): string {
  return known === undefined ? 'a file not met before' : 'another name of a file met before';
}

function printable(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('latin1')
    .replace(/[^ -[\]-~]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

function globPattern(glob: string): RegExp {
  const source = glob.replace(/\*\*|[*?]|[^*?\w/]/g, (part) => {
    if (part === '**') return '.*';
    if (part === '*') return '[^/]*';
    return part === '?' ? '[^/]' : `\\${part}`;
  });
  return new RegExp(`^${source}$`);
}

function parseIgnore(rule: string): Ignore {
  const at = rule.indexOf(':');
  const field = fields.find((known) => known === rule.slice(0, at));
  if (field === undefined) throw new Error(`--ignore takes FIELD:GLOB, FIELD one of ${fields.join(', ')}`);
  return { field, glob: rule.slice(at + 1) };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      limit: { type: 'string', default: '50' },
      ignore: { type: 'string', multiple: true, default: [] },
    },
  });
  const [a, b] = positionals;
  if (a === undefined || b === undefined)
    throw new Error('usage: compare-trees [--limit N] [--ignore FIELD:GLOB]... A B');
  const ignore = values.ignore.map(parseIgnore);
  const result = await compareTrees(a, b, { ignore, limit: Number(values.limit) });
  for (const { path, field, a: inA, b: inB } of result.differences)
    console.log(`${path}: ${field}: A ${inA}, B ${inB}`);
  const { entries, bytes, total, ignored } = result;
  console.log(
    `${entries} entries and ${bytes} bytes compared: ${total} differences${ignored > 0 ? `, ${ignored} ignored` : ''}`,
  );
  process.exitCode = total === 0 ? 0 : 1;
}

if (isMain(import.meta.url)) await main();
