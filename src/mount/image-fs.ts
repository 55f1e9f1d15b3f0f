/**
 * The `fuse` engine's file system: an image's tree read from its mapped EROFS file, file data from the layers. Node ids
 * are EROFS nids, so a restarted server needs nothing but the same file.
 */
import type { ErofsReader, RangeResult } from '../erofs/reader.js';
import { S_IFDIR, S_IFMT, S_IFREG } from '../erofs/tree.js';
import { LaminaError } from '../errors.js';
import {
  MISS,
  type Attributes,
  type Capabilities,
  type FileSystem,
  type StatFs,
  type Visit,
} from '../fuse/file-system.js';
import { mapId, type IdMap } from './id-map.js';
import { mapXattr } from './id-map-xattrs.js';
import { spanOf, type LayerReaders } from './layer-readers.js';

export class ImageFs implements FileSystem {
  readonly capabilities: Capabilities;
  readonly #tree: ErofsReader;
  readonly #layers: LayerReaders;
  /** Slots of the image's layers; device numbers of the tree count from 1. */
  readonly #slots: readonly number[];

  readonly #idMap: IdMap | undefined;

  constructor(tree: ErofsReader, layers: LayerReaders, slots: readonly number[], idMap?: IdMap) {
    this.#tree = tree;
    this.#layers = layers;
    this.#slots = slots;
    this.#idMap = idMap;
    this.capabilities = { xattrs: tree.hasXattrs, acls: tree.hasAcls };
  }

  lookup(parent: number, bytes: Uint8Array, start: number, end: number): number {
    return this.#tree.lookup(parent, bytes, start, end);
  }

  getattr(node: number, into: Attributes): boolean {
    const tree = this.#tree;
    into.mode = tree.mode(node);
    const idMap = this.#idMap;
    into.uid = idMap === undefined ? tree.uid(node) : mapId(idMap.uid, tree.uid(node));
    into.gid = idMap === undefined ? tree.gid(node) : mapId(idMap.gid, tree.gid(node));
    into.nlink = tree.nlink(node);
    into.rdev = tree.rdev(node);
    into.size = tree.size(node);
    into.blocks = tree.blocks(node);
    into.mtime = tree.mtime(node);
    into.mtimeNsec = tree.mtimeNsec(node);
    return true;
  }

  readdir(node: number, cookie: number, visit: Visit): void {
    this.#tree.readdir(node, cookie, visit);
  }

  readlink(node: number): Uint8Array {
    return this.#tree.readlink(node);
  }

  getxattr(node: number, name: string): Uint8Array | undefined {
    const value = this.#tree.xattr(node, name);
    return value === undefined || this.#idMap === undefined ? value : mapXattr(this.#idMap, name, value);
  }

  listxattr(node: number): readonly string[] {
    return this.#tree.xattrNames(node);
  }

  read(node: number, offset: number, length: number, into: Buffer, at: number, wait: boolean): number {
    const tree = this.#tree;
    if ((tree.mode(node) & S_IFMT) !== S_IFREG) throw new LaminaError('INTERNAL', 'Not a regular file');
    const wanted = Math.min(length, tree.size(node) - offset);
    let done = 0;
    while (done < wanted) {
      const run = tree.mapRange(node, offset + done);
      const n = Math.min(run.length, wanted - done);
      if (n <= 0) throw new LaminaError('EROFS_INVALID', 'The tree maps no bytes where a file has some');
      if (run.device === 0) into.fill(0, at + done, at + done + n);
      else if (!this.#layers.read(this.#slot(run), run.position, n, into, at + done, wait)) return MISS;
      done += n;
    }
    return Math.max(done, 0);
  }

  affinity(node: number, offset: number): number {
    if ((this.#tree.mode(node) & S_IFMT) !== S_IFREG) return 0;
    const run = this.#tree.mapRange(node, offset);
    return run.device === 0 ? 0 : spanOf(this.#slot(run), run.position);
  }

  #slot(run: RangeResult): number {
    const slot = this.#slots[run.device - 1];
    if (slot === undefined)
      throw new LaminaError('EROFS_INVALID', `The tree names layer ${run.device}, which the image lacks`);
    return slot;
  }

  seek(node: number, offset: number, whence: 'data' | 'hole'): number {
    if ((this.#tree.mode(node) & S_IFMT) === S_IFDIR) return -1;
    return whence === 'data' ? this.#tree.seekData(node, offset) : this.#tree.seekHole(node, offset);
  }

  statfs(): StatFs {
    return { blocks: this.#tree.totalBlocks, files: this.#tree.inodeCount };
  }
}
