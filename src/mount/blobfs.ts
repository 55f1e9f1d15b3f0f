/**
 * blobfs: one flat directory with a file per layer, the layer's uncompressed stream, named by its slot number. The
 * kernel engine's EROFS mounts read file data from it, so only data reads reach the daemon; every byte that leaves it
 * has been checked against its chunk's digest.
 *
 * A file's node id is its slot. The directory lists nothing: names are asked for by those who were given them.
 */
import { LaminaError } from '../errors.js';
import { S_IFDIR, S_IFREG } from '../erofs/tree.js';
import { MISS, type Attributes, type FileSystem, type StatFs, type Visit } from '../fuse/file-system.js';
import { ROOT_NODE } from '../fuse/wire.js';
import { spanOf, type LayerReaders } from './layer-readers.js';

/** Slots start here: 1 is the root directory. */
export const FIRST_SLOT = 2;
const DIGITS_MAX = 15;
const DOTS = Buffer.from('..');
const FILE_TYPE_DIRECTORY = S_IFDIR >> 12;

export class BlobFs implements FileSystem {
  readonly capabilities = { xattrs: false, acls: false };
  readonly #layers: LayerReaders;

  constructor(layers: LayerReaders) {
    this.#layers = layers;
  }

  lookup(parent: number, bytes: Uint8Array, start: number, end: number): number {
    const dots = dotsOf(bytes, start, end);
    if (dots > 0) return dots === 1 ? parent : ROOT_NODE;
    const slot = slotOf(bytes, start, end);
    if (parent !== ROOT_NODE || slot < FIRST_SLOT || !this.#layers.has(slot)) {
      // Not cached as absent: the slot may be given to a layer later.
      throw new LaminaError('PATH_NOT_FOUND', 'No such layer');
    }
    return slot;
  }

  getattr(node: number, into: Attributes): boolean {
    const root = node === ROOT_NODE;
    if (!root && !this.#layers.has(node)) return false;
    into.mode = root ? S_IFDIR | 0o700 : S_IFREG | 0o400;
    into.uid = 0;
    into.gid = 0;
    into.nlink = root ? 2 : 1;
    into.rdev = 0;
    into.size = root ? 0 : this.#layers.size(node);
    into.blocks = Math.ceil(into.size / 512);
    into.mtime = 0;
    into.mtimeNsec = 0;
    return true;
  }

  readdir(_node: number, cookie: number, visit: Visit): void {
    for (let i = cookie; i < 2; i++) if (!visit(ROOT_NODE, FILE_TYPE_DIRECTORY, DOTS, 0, i + 1, i + 1)) return;
  }

  readlink(): Uint8Array {
    throw new LaminaError('INTERNAL', 'blobfs has no symlinks');
  }

  getxattr(): undefined {
    return undefined;
  }

  listxattr(): readonly string[] {
    return [];
  }

  read(node: number, offset: number, length: number, into: Buffer, at: number, wait: boolean): number {
    const n = Math.min(length, this.#layers.size(node) - offset);
    if (n <= 0) return 0;
    return this.#layers.read(node, offset, n, into, at, wait) ? n : MISS;
  }

  affinity(node: number, offset: number): number {
    return spanOf(node, offset);
  }

  seek(node: number, offset: number, whence: 'data' | 'hole'): number {
    const size = this.#layers.size(node);
    if (offset >= size) return -1;
    return whence === 'data' ? offset : size;
  }

  statfs(): StatFs {
    return { blocks: 0, files: 0 };
  }
}

/** 1 for ".", 2 for ".." (the kernel asks for them to open a file by its handle), 0 for every other name. */
function dotsOf(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  if (length > 2 || bytes[start] !== 0x2e || bytes[end - 1] !== 0x2e) return 0;
  return length;
}

/** A canonical decimal number, or 0. */
function slotOf(bytes: Uint8Array, start: number, end: number): number {
  if (end - start > DIGITS_MAX || bytes[start] === 0x30) return 0;
  let slot = 0;
  for (let i = start; i < end; i++) {
    const digit = (bytes[i] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) return 0;
    slot = slot * 10 + digit;
  }
  return slot;
}
