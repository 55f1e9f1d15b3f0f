/** Which content of a layer some parts of its blob are all of: what was fetched ahead can be decompressed ahead then. */
import type { ByteRange } from '../source/fetch/block-file.js';

/** Something of the layer that is decompressed as a whole. */
export interface Unit {
  /** Bytes of the blob. */
  readonly from: ByteRange;
  /** Bytes of the address space. */
  readonly content: ByteRange;
}

/** The content of the units that lie in a part as a whole, in the order of the parts. */
export function contentWithin(units: Iterable<Unit>, parts: readonly ByteRange[]): ByteRange[] {
  const sorted = parts.map((part, rank) => ({ ...part, rank })).sort((a, b) => a.start - b.start);
  const found: { readonly rank: number; readonly content: ByteRange }[] = [];
  for (const { from, content } of units) {
    const part = sorted[countAtOrBefore(sorted, from.start) - 1];
    if (part !== undefined && from.end <= part.end) found.push({ rank: part.rank, content });
  }
  return found.sort((a, b) => a.rank - b.rank).map(({ content }) => content);
}

/** How many begin at `position` or before. */
function countAtOrBefore(sorted: readonly ByteRange[], position: number): number {
  let low = 0;
  for (let high = sorted.length; low < high;) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]!.start <= position) low = middle + 1;
    else high = middle;
  }
  return low;
}
