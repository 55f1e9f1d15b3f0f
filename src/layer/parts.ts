/** Which content of a layer some parts of its blob are all of: what was fetched ahead can be decompressed ahead then. */
import type { ByteRange } from '../source/fetch/block-file.js';

/** Something of the layer that is decompressed as a whole. */
export interface Unit {
  /** Bytes of the blob. */
  readonly from: ByteRange;
  /** Bytes of the address space. */
  readonly content: ByteRange;
}

/**
 * The content of the units that lie in a part as a whole, in the order of the parts. Units are looked for as if they ascended in
 * the blob as they do in the layer. Where they do not, as chunks of zeros that are nowhere in the blob, some are not found.
 */
export function contentWithin(
  units: { readonly count: number; readonly at: (index: number) => Unit },
  parts: readonly ByteRange[],
): ByteRange[] {
  const found: ByteRange[] = [];
  for (const { start, end } of parts) {
    for (let i = firstFrom(units, start); i < units.count; i++) {
      const { from, content } = units.at(i);
      if (from.start >= end) break;
      if (from.start >= start && from.end <= end && content.start < content.end) found.push(content);
    }
  }
  return found;
}

/** The first unit that begins at `position` or behind it. */
function firstFrom({ count, at }: Parameters<typeof contentWithin>[0], position: number): number {
  let low = 0;
  for (let high = count; low < high;) {
    const middle = (low + high) >>> 1;
    if (at(middle).from.start < position) low = middle + 1;
    else high = middle;
  }
  return low;
}
