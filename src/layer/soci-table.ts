/** The spans of a ztoc of SOCI as chunks of a layer: its address space is the uncompressed stream. */
import { digestBytes } from '../digest/index.js';
import { decodeSpans, type Span } from '../source/soci/zinfo.js';
import { decodeZtoc } from '../source/soci/ztoc.js';
import type { Compression } from '../compress/types.js';
import type { ChunkTable, LayerChunk } from './toc-table.js';

export class SociTable implements ChunkTable {
  readonly compression: Compression;
  readonly addressSpace: number;
  readonly #spans: readonly Span[];
  readonly #digests: readonly Buffer[];

  /** Throws SOCI_INVALID. */
  constructor(ztoc: Buffer) {
    const { algorithm, uncompressedSize, spanDigests, ...rest } = decodeZtoc(ztoc);
    this.compression = algorithm === 'gzip' ? 'gzip' : 'none';
    this.addressSpace = uncompressedSize;
    this.#spans = decodeSpans({ algorithm, uncompressedSize, ...rest });
    this.#digests = spanDigests.map(digestBytes);
  }

  get count(): number {
    return this.#spans.length;
  }

  chunk(index: number): LayerChunk {
    const { point, outputEnd, start: offset, end } = this.#spans[index]!;
    const [address, digest] = [point.output, this.#digests[index]];
    return { address, size: outputEnd - address, offset, end, inner: 0, digest, point, digestOf: 'blob' };
  }

  *overlapping(start: number, end: number): Generator<LayerChunk> {
    for (let i = this.#at(start); i < this.count; i++) {
      const chunk = this.chunk(i);
      if (chunk.address >= end) return;
      if (chunk.size > 0) yield chunk;
    }
  }

  /** The last span that begins at or before `address`. */
  #at(address: number): number {
    let low = 0;
    for (let high = this.#spans.length; low < high;) {
      const middle = (low + high) >>> 1;
      if (this.#spans[middle]!.point.output <= address) low = middle + 1;
      else high = middle;
    }
    return Math.max(low - 1, 0);
  }
}
