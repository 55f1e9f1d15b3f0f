/**
 * STORE: what Lamina knows about layers and images, by content. Nothing in it changes once it has its final name, apart
 * from the layers' `data` files and the `blobs`, whose bytes prove themselves, and `refs`; so readers need no locks, and two
 * writers of the same thing write the same bytes.
 *
 *     layers/sha256-DIFFID/   tree.erofs, chunks, data; with -VIEW behind the name, of another tree of the same tar
 *     layers/toc-sha256-BLOB-BY/ of a layer known by its table of contents alone: tree.erofs, toc, data, digests
 *     layers/soci[-provisional]-sha256-BLOB-BY/   of one known by a ztoc of SOCI: tree.erofs, ztoc, data, digests
 *     layers/lamina-provisional-sha256-BLOB-BY/   of one known by a Lamina index: tree.erofs, chunks, map, data
 *     maps/sha256-BLOB        how a blob yields its layer
 *     images/HEX.erofs        merged trees
 *     blobs/ALGORITHM/HEX     what registries have given as a whole: documents, appc archives
 *     blobs/ALGORITHM/HEX-SIZE   layers as far as they were fetched, with HEX-SIZE.blocks beside
 *     refs/HEX.json           what a reference to a registry was last
 *     derived/sha256-HEX      what a manifest does not say and its layers were read for: their sizes and diffIDs
 *     tmp/PROCESS-RANDOM      what is being made; of dead processes it is removed
 */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writevSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { dirname, join, relative } from 'node:path';
import { digestFileName, sha256, type Digest } from '../digest/index.js';
import { errnoOf, toLaminaError } from '../errors.js';

export class Store {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Makes what is missing and clears what dead processes left half done. Throws PERMISSION_DENIED, DISK_FULL, IO. */
  static open(path: string): Store {
    const store = new Store(path);
    try {
      for (const dir of ['layers', 'maps', 'images', 'blobs', 'refs', 'derived', 'tmp'])
        mkdirSync(join(path, dir), { recursive: true, mode: 0o700 });
      store.#clearTemporaries();
    } catch (e) {
      throw toLaminaError(e, `Cannot use the store ${path}`);
    }
    return store;
  }

  /** `view`: which tree of the layer, when it is not the whole of its own. */
  layerDirectory(diffId: Digest, view?: string): string {
    const name = digestFileName(diffId);
    return join(this.path, 'layers', view === undefined ? name : `${name}-${view}`);
  }

  /** Of a layer that is known by its table of contents: the one that `by` says. */
  tocDirectory(blob: Digest, by: string, view?: string): string {
    const name = `toc-${digestFileName(blob)}-${claimant(by)}`;
    return join(this.path, 'layers', view === undefined ? name : `${name}-${view}`);
  }

  /** Of a layer that is known by a ztoc of SOCI; `bound`: `by` the image's manifest, else by its repository. */
  sociDirectory(blob: Digest, bound: boolean, by: string): string {
    return join(this.path, 'layers', `${bound ? 'soci' : 'soci-provisional'}-${digestFileName(blob)}-${claimant(by)}`);
  }

  /** Of a layer that is known by what another machine has put beside its image, in the repository that `by` says. */
  shippedDirectory(blob: Digest, by: string): string {
    return join(this.path, 'layers', `lamina-provisional-${digestFileName(blob)}-${claimant(by)}`);
  }

  mapPath(blob: Digest): string {
    return join(this.path, 'maps', digestFileName(blob));
  }

  /** `key`: lower-case hex. */
  treePath(key: string): string {
    return join(this.path, 'images', `${key}.erofs`);
  }

  /** Of a blob that is there as a whole. */
  blobPath(blob: Digest): string {
    return join(this.path, 'blobs', blob.replace(':', '/'));
  }

  /** Of a blob as far as it was fetched. Its size is part of the name: an image that lies about it meets no other's bytes. */
  partialPath(blob: Digest, size: number): string {
    return `${this.blobPath(blob)}-${size}`;
  }

  /** `key`: lower-case hex. */
  refPath(key: string): string {
    return join(this.path, 'refs', `${key}.json`);
  }

  /** Whether images of registries were used here. */
  hasReferences(): boolean {
    return readdirSync(join(this.path, 'refs')).length > 0;
  }

  derivedPath(manifest: Digest): string {
    return join(this.path, 'derived', digestFileName(manifest));
  }

  /** A path that nobody else uses, on the store's file system. */
  temporary(): string {
    return join(this.path, 'tmp', `${processName()}-${randomBytes(8).toString('hex')}`);
  }

  /**
   * Writes a file of the store, synced soon ({@link publishSoon}); what fails leaves nothing. Throws PERMISSION_DENIED, DISK_FULL,
   * IO.
   */
  keep(path: string, parts: readonly Uint8Array[]): void {
    const temporary = this.temporary();
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      writeNew(temporary, parts);
      publishSoon(temporary, path);
    } catch (e) {
      rmSync(temporary, { force: true });
      throw toLaminaError(e, `Cannot keep ${path}`);
    }
  }

  /**
   * Takes away what holds a damaged index: a layer's directory, or a map. Who has its files open goes on with them. Undefined
   * where `path` is of no index.
   */
  removeIndex(path: string): string | undefined {
    const [kind, name] = relative(this.path, path).split('/');
    if ((kind !== 'layers' && kind !== 'maps') || name === undefined) return undefined;
    const index = join(this.path, kind, name);
    const temporary = this.temporary();
    try {
      renameSync(index, temporary);
    } catch (e) {
      // Another that uses the layer was faster.
      if (errnoOf(e) !== 'ENOENT') throw toLaminaError(e, `Cannot remove ${index}`);
    }
    rmSync(temporary, { recursive: true, force: true });
    return index;
  }

  #clearTemporaries(): void {
    const tmp = join(this.path, 'tmp');
    for (const name of readdirSync(tmp)) {
      const path = join(tmp, name);
      if (!mayBeInUse(name, path)) rmSync(path, { recursive: true, force: true });
    }
  }
}

/** How long what was made in another PID namespace, where nothing can be seen of its maker, is left alone. */
const FOREIGN_MS = 24 * 60 * 60 * 1000;

/**
 * PID namespace, PID and start time: a PID alone comes again, in a container that is started anew even at once, and
 * containers that share a store have the same ones.
 */
function processName(): string {
  return `${pidNamespace()}-${process.pid}-${startTime(process.pid) ?? 0}`;
}

function mayBeInUse(name: string, path: string): boolean {
  const [, namespace, pid, started] = /^(\d+)-(\d+)-(\d+)-/.exec(name) ?? [];
  if (namespace === undefined) return false;
  if (namespace === pidNamespace()) return startTime(Number(pid)) === started;
  const changed = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return Date.now() - changed < FOREIGN_MS;
}

function pidNamespace(): string {
  return readlinkSync('/proc/self/ns/pid').replace(/\D/g, '');
}

/** Whoever says what a layer holds is believed for images that rely on the same, and for no others that have the layer. */
function claimant(by: string): string {
  return sha256(Buffer.from(by)).toString('hex', 0, 16);
}

/** Of a living process: clock ticks since boot (proc(5), field 22; the second is a name that may hold anything). */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** Writes a new file and syncs it. Throws what Node throws. */
export function writeDurably(path: string, parts: readonly Uint8Array[]): void {
  writeNew(path, parts, fsyncSync);
}

/** Writes a new file. Throws what Node throws. */
export function writeNew(path: string, parts: readonly Uint8Array[], then?: (fd: number) => void): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeParts(fd, parts);
    then?.(fd);
  } finally {
    closeSync(fd);
  }
}

/** Parts of one writev(2): IOV_MAX is 1024. */
const PARTS_MAX = 512;

function writeParts(fd: number, parts: readonly Uint8Array[]): void {
  for (let i = 0; i < parts.length; i += PARTS_MAX) {
    let rest = parts.slice(i, i + PARTS_MAX);
    for (let left = rest.reduce((n, p) => n + p.length, 0); left > 0;) {
      let written = writevSync(fd, rest);
      left -= written;
      let whole = 0;
      while (whole < rest.length && written >= (rest[whole]?.length ?? 0)) written -= rest[whole++]?.length ?? 0;
      rest = rest.slice(whole);
      if (written > 0 && rest[0] !== undefined) rest[0] = rest[0].subarray(written);
    }
  }
}

/**
 * Gives a finished temporary its name for good. A directory that is there already stays: it holds the same; the answer is
 * false then.
 */
export function publish(temporary: string, path: string): boolean {
  const done = rename(temporary, path);
  syncDirectory(dirname(path));
  return done;
}

/**
 * The same for what has not been synced, which is done when nobody waits for it. Only for what proves itself: a crash of the
 * machine may leave it damaged until then.
 */
export function publishSoon(temporary: string, path: string): boolean {
  const names = statSync(temporary).isDirectory() ? readdirSync(temporary) : [];
  const done = rename(temporary, path);
  syncSoon([...names.map((name) => join(path, name)), path, dirname(path)]);
  return done;
}

function rename(temporary: string, path: string): boolean {
  try {
    renameSync(temporary, path);
    return true;
  } catch (e) {
    if (errnoOf(e) !== 'ENOTEMPTY' && errnoOf(e) !== 'EEXIST') throw e;
    rmSync(temporary, { recursive: true, force: true });
    return false;
  }
}

export function syncDirectory(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Milliseconds: by then a container has started. */
const SOON_MS = 2000;
const unsynced = new Set<string>();

function syncSoon(paths: readonly string[]): void {
  if (unsynced.size === 0) setTimeout(() => void syncAll(), SOON_MS).unref();
  for (const path of paths) unsynced.add(path);
}

async function syncAll(): Promise<void> {
  const paths = [...unsynced];
  unsynced.clear();
  // What is gone meanwhile need not be synced, and a disk that fails is found by who reads.
  for (const path of paths) await syncOne(path).catch(() => undefined);
}

async function syncOne(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
