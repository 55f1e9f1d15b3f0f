/**
 * An image's tree as real files. The tree is hostile: nothing is made by a path that could lead elsewhere. Each name is
 * made in a directory that is open (/proc/self/fd/N/NAME), exclusively and without following links, and directories
 * are gone through one component at a time (O_NOFOLLOW). Until it is done the root is mode 0700, so that nobody
 * else can change what is half made.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeSync,
  type BigIntStats,
} from 'node:fs';
import { S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../erofs/tree.js';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';
import { O_PATH, mknod, setTimes, setXattr } from '../native/files.js';
import { Notes } from '../tar/notes.js';
import { openEmpty } from './empty-directory.js';
import { dataRuns } from './export.js';
import type { ImageTree } from './tree.js';

export interface ExtractOptions {
  /** Without owners, devices, set-user-ID bits and privileged attributes: what an ordinary user can make. */
  readonly rootless: boolean;
  /** Between two entries, so that a signal is heard. */
  readonly breathe: () => Promise<void>;
}

export interface Extracted {
  /** Names made, the root apart. */
  readonly entries: number;
  /** Bytes of content written. */
  readonly bytes: number;
  /** What could not be as in the image. */
  readonly notes: readonly string[];
}

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_WRONLY, O_CREAT, O_EXCL } = constants;
const OPEN_DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
const PIECE = 1 << 20;
/** Entries between two breaths. */
const BREATH = 64;
const SET_IDS = 0o6000;
const ACL = 'system.posix_acl_';
/** An attribute is not for this file system, not for this kind of file (a default ACL of a file), or has no valid value. */
const REFUSED = new Set(['ENOTSUP', 'EOPNOTSUPP', 'EACCES', 'EINVAL']);

/**
 * Extracts the directory `start` as `directory`, which is made, or is there and empty; what is no directory, as `name`
 * in it. Throws OUTPUT_EXISTS, PERMISSION_DENIED, DISK_FULL, IO and what reading throws; what was made until then stays.
 */
export async function extractTree(
  tree: ImageTree,
  start: number,
  name: string,
  directory: string,
  options: ExtractOptions,
): Promise<Extracted> {
  const root = openEmpty(directory);
  const extractor = new Extractor(tree, root, options);
  try {
    await extractor.run(start, name);
    return extractor.result;
  } catch (e) {
    throw toLaminaError(e, `Cannot extract into ${directory}`);
  } finally {
    extractor.close();
  }
}

/** Where something is; the root has none. */
interface Place {
  readonly parent: Place | undefined;
  readonly name: string;
  /** Names from the root to here. */
  readonly depth: number;
}

/** A directory of the image that is being made, and what of it is still to come, last first. */
interface Level {
  readonly nid: number;
  readonly name: string;
  readonly place: Place | undefined;
  readonly todo: { readonly nid: number; readonly name: string }[];
  /** Of the directory on disk: found again by "..", it must be the same. */
  readonly identity: string;
}

class Extractor {
  readonly #tree: ImageTree;
  readonly #root: number;
  readonly #options: ExtractOptions;
  readonly #notes = new Notes();
  readonly #levels: Level[] = [];
  /** Where a file with several names has the one that is nearest to the root. */
  readonly #links = new Map<number, Place>();
  /** Of the directory that is being filled. Only this and the root are open: an image nests deeper than descriptors go. */
  #here: number;
  #entries = 0;
  #bytes = 0;

  constructor(tree: ImageTree, root: number, options: ExtractOptions) {
    this.#tree = tree;
    this.#root = root;
    this.#here = root;
    this.#options = options;
  }

  get result(): Extracted {
    return { entries: this.#entries, bytes: this.#bytes, notes: this.#notes.list() };
  }

  close(): void {
    if (this.#here !== this.#root) closeSync(this.#here);
    closeSync(this.#root);
  }

  async run(start: number, name: string): Promise<void> {
    const whole = this.#type(start) === S_IFDIR;
    const identity = identityOf(this.#root);
    if (whole)
      this.#levels.push({
        nid: start,
        name: '',
        place: undefined,
        todo: this.#tree.entries(start).reverse(),
        identity,
      });
    else this.#levels.push({ nid: 0, name: '', place: undefined, todo: [{ nid: start, name }], identity });
    let steps = 0;
    for (let level = this.#levels.at(-1); level !== undefined; level = this.#levels.at(-1)) {
      if (++steps % BREATH === 0) await this.#options.breathe();
      const entry = level.todo.pop();
      if (entry === undefined) this.#leave();
      else await this.#make(entry.nid, entry.name);
    }
    if (!whole) fchmodSync(this.#root, 0o755);
  }

  async #make(nid: number, name: string): Promise<void> {
    const at = child(this.#here, name);
    const type = this.#type(nid);
    this.#entries++;
    if (type === S_IFDIR) {
      mkdirSync(at, { mode: 0o700 });
      this.#enter(nid, name, at);
      return;
    }
    const known = this.#links.get(nid);
    if (known !== undefined && this.#link(known, at, name)) {
      if (known.depth > this.#levels.length) this.#links.set(nid, this.#placeOf(name));
      return;
    }
    if (type === S_IFREG) await this.#file(nid, at, name);
    else if (type === S_IFLNK) this.#symlink(nid, at, name);
    else if (!this.#node(nid, at, name)) return;
    if (this.#tree.reader.nlink(nid) > 1) this.#links.set(nid, this.#placeOf(name));
  }

  /** Of a name in the directory that is being filled. */
  #placeOf(name: string): Place {
    return { parent: this.#levels.at(-1)?.place, name, depth: this.#levels.length };
  }

  #enter(nid: number, name: string, at: Buffer): void {
    const fd = openSync(at, OPEN_DIRECTORY);
    if (this.#here !== this.#root) closeSync(this.#here);
    this.#here = fd;
    const todo = this.#tree.entries(nid).reverse();
    this.#levels.push({ nid, name, place: this.#placeOf(name), todo, identity: identityOf(fd) });
  }

  /** The directory's own attributes come last: what is made in it changes its time, and its mode may forbid it. */
  #leave(): void {
    const { nid, name } = this.#levels.pop() ?? { nid: 0, name: '' };
    const above = this.#levels.at(-1);
    const here = this.#here;
    if (above === undefined) {
      if (nid !== 0) this.#attributes(nid, here, '/');
      return;
    }
    let parent = this.#root;
    if (this.#levels.length > 1) {
      parent = openSync(child(here, '..'), OPEN_DIRECTORY);
      this.#here = parent;
      if (identityOf(parent) !== above.identity) {
        closeSync(here);
        throw new LaminaError('IO', 'Somebody else moves directories of the tree that is being extracted');
      }
    } else this.#here = parent;
    try {
      this.#attributes(nid, here, name);
    } finally {
      closeSync(here);
    }
  }

  async #file(nid: number, at: Buffer, name: string): Promise<void> {
    const tree = this.#tree;
    const fd = openSync(at, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      const buffer = Buffer.allocUnsafe(PIECE);
      for (const { offset, length } of dataRuns(tree, nid)) {
        for (let done = 0; done < length;) {
          const n = tree.readRange(nid, offset + done, Math.min(PIECE, length - done), buffer);
          for (let written = 0; written < n;) {
            written += writeSync(fd, buffer, written, n - written, offset + done + written);
          }
          done += n;
          this.#bytes += n;
          if (length > PIECE) await this.#options.breathe();
        }
      }
      ftruncateSync(fd, tree.reader.size(nid));
      this.#attributes(nid, fd, name);
    } finally {
      closeSync(fd);
    }
  }

  #symlink(nid: number, at: Buffer, name: string): void {
    const { reader } = this.#tree;
    symlinkSync(reader.readlink(nid), at);
    if (!this.#options.rootless) lchownSync(at, reader.uid(nid), reader.gid(nid));
    this.#xattrs(nid, at, name, { follow: false, acls: false });
    setTimes(at, reader.mtime(nid), reader.mtimeNsec(nid));
  }

  /** False where an ordinary user cannot make it. */
  #node(nid: number, at: Buffer, name: string): boolean {
    const { reader } = this.#tree;
    const mode = reader.mode(nid);
    const device = reader.rdev(nid);
    if (this.#options.rootless && (mode & S_IFMT) !== S_IFIFO) {
      this.#note('a device is left out', name);
      this.#entries--;
      return false;
    }
    mknod(at, (mode & S_IFMT) | 0o600, device);
    const fd = openSync(at, O_PATH | O_NOFOLLOW);
    try {
      this.#attributes(nid, fd, name);
    } finally {
      closeSync(fd);
    }
    return true;
  }

  /**
   * Owner first: a change of it takes set-user-ID bits and capabilities away. Then attributes: the mode may forbid its owner to
   * set them. ACLs after the mode, which would change them (acl(5), "Correspondence between ACL entries and file permission bits").
   */
  #attributes(nid: number, fd: number, name: string): void {
    const { reader } = this.#tree;
    const { rootless } = this.#options;
    const at = Buffer.from(`/proc/self/fd/${fd}`);
    let mode = reader.mode(nid) & 0o7777;
    if (rootless && (mode & SET_IDS) !== 0 && this.#type(nid) !== S_IFDIR) {
      this.#note('a set-user-ID or set-group-ID bit is left out', name);
      mode &= ~SET_IDS;
    }
    if (!rootless) chownSync(at, reader.uid(nid), reader.gid(nid));
    this.#xattrs(nid, at, name, { follow: true, acls: false });
    chmodSync(at, mode);
    if (!rootless) this.#xattrs(nid, at, name, { follow: true, acls: true });
    setTimes(at, reader.mtime(nid), reader.mtimeNsec(nid), { follow: true });
  }

  /** POSIX ACLs, or all others. */
  #xattrs(nid: number, at: Buffer, name: string, { follow, acls }: { follow: boolean; acls: boolean }): void {
    this.#tree.reader.eachXattr(nid, (key, value) => {
      if (this.#options.rootless && !key.startsWith('user.')) {
        this.#note('a system or security attribute is left out', name);
        return;
      }
      if (key.startsWith(ACL) !== acls) return;
      try {
        setXattr(at, key, value, { follow });
      } catch (e) {
        if (!REFUSED.has(errnoOf(e) ?? '')) throw e;
        this.#note('the file system does not take an attribute', name);
      }
    });
  }

  /** A further name for a file, found from the root again. False where it has to be a file of its own. */
  #link(known: Place, at: Buffer, name: string): boolean {
    let directory = this.#root;
    try {
      for (const part of namesOf(known.parent)) {
        const next = openSync(child(directory, part), O_PATH | O_DIRECTORY | O_NOFOLLOW);
        if (directory !== this.#root) closeSync(directory);
        directory = next;
      }
      linkSync(child(directory, known.name), at);
      return true;
    } catch (e) {
      // A directory on the way has its own mode already; or the file system has a limit.
      if (errnoOf(e) !== 'EACCES' && errnoOf(e) !== 'EMLINK') throw e;
      this.#note('a hard link becomes a copy', name);
      return false;
    } finally {
      if (directory !== this.#root) closeSync(directory);
    }
  }

  #note(what: string, name: string): void {
    this.#notes.add(what, ['', ...namesOf(this.#levels.at(-1)?.place), name].join('/'));
  }

  #type(nid: number): number {
    return this.#tree.reader.mode(nid) & S_IFMT;
  }
}

function namesOf(place: Place | undefined): string[] {
  const names: string[] = [];
  for (let p = place; p !== undefined; p = p.parent) names.push(p.name);
  return names.reverse();
}

function child(directory: number, name: string): Buffer {
  return Buffer.from(`/proc/self/fd/${directory}/${name}`, 'latin1');
}

function identityOf(fd: number): string {
  const { dev, ino }: BigIntStats = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}
