/**
 * An image as a tree to look into, without mounting: paths, entries and verified file contents. Names and paths are
 * bytes, held as latin1 strings.
 */
import { ErofsReader } from '../erofs/reader.js';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../erofs/tree.js';
import { LaminaError } from '../errors.js';
import { ChunkMemory } from '../layer/memory.js';
import { openLayerReader, type LayerReader } from '../layer/layer-reader.js';
import { readSealed } from '../store/sealed.js';
import { printable } from '../tar/notes.js';
import type { PreparedImage } from './prepare.js';

export interface TreeEntry {
  readonly name: string;
  readonly nid: number;
  /** S_IFMT bits >> 12, as in a directory entry. */
  readonly type: number;
}

/** Symlinks followed in one path, as in the kernel (MAXSYMLINKS). */
const HOPS_MAX = 40;
const ROOT = 1;
/** Bytes of verified chunks kept while browsing. */
const MEMORY = 16 * 1024 * 1024;
const DOT = '.';

export class ImageTree {
  readonly reader: ErofsReader;
  readonly prepared: PreparedImage;
  readonly #layers = new Map<number, LayerReader>();
  readonly #memory = new ChunkMemory(MEMORY);

  private constructor(prepared: PreparedImage, reader: ErofsReader) {
    this.prepared = prepared;
    this.reader = reader;
  }

  /** Throws STORE_CORRUPT, EROFS_INVALID. */
  static open(prepared: PreparedImage): ImageTree {
    return new ImageTree(prepared, new ErofsReader(readSealed(prepared.treePath)));
  }

  close(): void {
    for (const layer of this.#layers.values()) layer.close();
    this.#layers.clear();
  }

  /**
   * The node at a path; symlinks are followed inside the image, the last one unless `followLast` is false.
   * Throws PATH_NOT_FOUND, PATH_LOOP.
   */
  resolve(path: string, { followLast = true }: { readonly followLast?: boolean } = {}): number {
    const { reader } = this;
    const todo = parts(path);
    let here = ROOT;
    let hops = 0;
    for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
      const child = this.#isDirectory(here) ? this.lookup(here, name) : 0;
      if (child === 0) {
        throw new LaminaError('PATH_NOT_FOUND', `There is no ${printable(path)} in ${this.prepared.image.reference}`, {
          details: { path: path.slice(0, 4096) },
        });
      }
      const isLink = (reader.mode(child) & S_IFMT) === S_IFLNK;
      if (!isLink || (todo.length === 0 && !followLast && !path.endsWith('/'))) {
        here = child;
        continue;
      }
      if (++hops > HOPS_MAX) throw new LaminaError('PATH_LOOP', `Too many symlinks on the way to ${printable(path)}`);
      const target = Buffer.from(reader.readlink(child)).toString('latin1');
      if (target.startsWith('/')) here = ROOT;
      todo.push(...parts(target));
    }
    return here;
  }

  /** The child's node, 0 where there is none. */
  lookup(directory: number, name: string): number {
    const bytes = Buffer.from(name, 'latin1');
    return this.reader.lookup(directory, bytes, 0, bytes.length);
  }

  /** In the order of their bytes, without "." and "..". */
  entries(directory: number): TreeEntry[] {
    const entries: TreeEntry[] = [];
    this.reader.readdir(directory, 0, (nid, type, bytes, start, end) => {
      const name = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1');
      if (name !== DOT && name !== '..') entries.push({ name, nid, type });
      return true;
    });
    return entries;
  }

  /** Verified bytes of a regular file; the count, short only at its end. Throws what {@link LayerReader.read} throws. */
  readRange(nid: number, offset: number, length: number, into: Buffer, at = 0): number {
    const { reader } = this;
    if ((reader.mode(nid) & S_IFMT) !== S_IFREG)
      throw new LaminaError('USAGE', 'Only regular files have contents to read');
    const wanted = Math.max(Math.min(length, reader.size(nid) - offset), 0);
    for (let done = 0; done < wanted;) {
      const run = reader.mapRange(nid, offset + done);
      const n = Math.min(run.length, wanted - done);
      if (n <= 0) throw new LaminaError('EROFS_INVALID', 'The tree maps no bytes where a file has some');
      if (run.device === 0) into.fill(0, at + done, at + done + n);
      else this.#layer(run.device).read(run.position, n, into, at + done);
      done += n;
    }
    return wanted;
  }

  /** The whole of a file of at most `limit` bytes. Throws LIMIT_EXCEEDED. */
  readFile(nid: number, limit = 16 * 1024 * 1024): Buffer {
    const size = this.reader.size(nid);
    if (size > limit) {
      throw new LaminaError(
        'LIMIT_EXCEEDED',
        `The file has ${size} bytes, more than the ${limit} that are read at once`,
      );
    }
    const bytes = Buffer.alloc(size);
    this.readRange(nid, 0, size, bytes);
    return bytes;
  }

  #isDirectory(nid: number): boolean {
    return (this.reader.mode(nid) & S_IFMT) === S_IFDIR;
  }

  #layer(device: number): LayerReader {
    let layer = this.#layers.get(device);
    if (layer === undefined) {
      const prepared = this.prepared.layers[device - 1];
      if (prepared === undefined)
        throw new LaminaError('EROFS_INVALID', `The tree names layer ${device}, which the image lacks`);
      const { directory, mapPath, blob } = prepared;
      layer = openLayerReader({ id: device, directory, mapPath, blob, verify: 'first-read', memory: this.#memory });
      this.#layers.set(device, layer);
    }
    return layer;
  }
}

/** The parts of a path, last first; ".." stays: the tree's own entries answer it, after symlinks. */
function parts(path: string): string[] {
  return path
    .split('/')
    .filter((part) => part !== '' && part !== DOT)
    .reverse();
}
