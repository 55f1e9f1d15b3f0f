/**
 * Places of file data. EROFS addresses blocks of 512 bytes and tar aligns data to 512, so a file's bytes are served from
 * where they are in the stream. The exception are sparse files whose segments do not fall on block borders: their
 * blocks are put together in an appendix behind the stream, as a list of copies out of it.
 *
 *     address space of a layer:   stream, padded to a chunk | appendix
 */
import { LaminaError } from '../errors.js';
import type { Extent } from '../erofs/tree.js';
import { BLOCK } from '../tar/header.js';
import type { DataRun, TarEntry } from '../tar/entry.js';

/** `length` bytes of the stream at `from` stand in the appendix at `to` (bytes from the appendix's start). */
export interface Copy {
  readonly to: number;
  readonly from: number;
  readonly length: number;
}

/** Bytes; what an archive could otherwise blow up by many small segments. */
const APPENDIX_MAX = 1024 * 1024 * 1024;

export class Appendix {
  readonly copies: Copy[] = [];
  /** Extents whose `position` counts from the appendix's start; {@link place} makes it absolute. */
  readonly #pending: { -readonly [K in keyof Extent]: Extent[K] }[] = [];
  /** Bytes; a multiple of 512. */
  size = 0;

  /** The extents of a file. Throws LIMIT_EXCEEDED. */
  extentsOf(entry: TarEntry): Extent[] {
    const extents: Extent[] = [];
    for (const run of entry.data) this.#add(extents, run, entry.size);
    return extents;
  }

  /** Whole blocks of an aligned run are served in place, everything else is copied, block by block. */
  #add(extents: Extent[], run: DataRun, fileSize: number): void {
    let { offset, length, position } = run;
    if (offset % BLOCK === 0 && position % BLOCK === 0) {
      const direct = offset + length === fileSize ? length : length - (length % BLOCK);
      if (direct > 0) extents.push({ offset, length: direct, device: 1, position });
      offset += direct;
      position += direct;
      length -= direct;
    }
    while (length > 0) {
      const within = offset % BLOCK;
      const n = Math.min(BLOCK - within, length);
      this.#copy(extents, offset - within, within, position, n, fileSize);
      offset += n;
      position += n;
      length -= n;
    }
  }

  #copy(extents: Extent[], block: number, within: number, from: number, length: number, fileSize: number): void {
    const last = this.#pending.at(-1);
    const end = last === undefined ? -1 : last.offset + last.length;
    const blockLength = Math.min(BLOCK, fileSize - block);
    // The block may have been begun by the segment before, or follow it.
    if (last === undefined || extents.at(-1) !== last || (block !== end && block + blockLength !== end)) {
      this.#grow();
      const extent = { offset: block, length: blockLength, device: 1, position: this.size - BLOCK };
      extents.push(extent);
      this.#pending.push(extent);
    } else if (block === end) {
      this.#grow();
      last.length += blockLength;
    }
    this.copies.push({ to: this.size - BLOCK + within, from, length });
  }

  #grow(): void {
    this.size += BLOCK;
    if (this.size > APPENDIX_MAX) {
      throw new LaminaError(
        'LIMIT_EXCEEDED',
        `The sparse files of the layer have more than ${APPENDIX_MAX} bytes off block borders`,
      );
    }
  }

  /** Makes the extents absolute: the appendix starts at `base` of the address space. */
  place(base: number): void {
    for (const extent of this.#pending) extent.position += base;
  }
}
