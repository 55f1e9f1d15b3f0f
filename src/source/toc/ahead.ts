/** Tables of contents are asked for all at once, before the thread that reads one after the other comes to them. */
import type { BlobLocation } from '../blob.js';
import { footerAtHand } from '../estargz.js';
import type { ByteRange } from '../fetch/block-file.js';
import type { Fetcher } from '../fetch/fetcher.js';
import { TOC_LIMIT } from './document.js';
import type { TocPlace } from './place.js';

/** Nobody waits for it; who reads the table does, and is told when it fails. The end of an eStargz is to be at hand. */
export function beginTable(blob: BlobLocation, place: TocPlace, fetcher: Fetcher): void {
  if (blob.kind !== 'registry') return;
  const range = rangeOf(blob, place);
  if (range === undefined || range.end > blob.size || range.end - range.start > TOC_LIMIT) return;
  void fetcher.want(blob, range.start, range.end).catch(() => undefined);
}

/** Undefined where it cannot be told. */
function rangeOf(blob: BlobLocation, place: TocPlace): ByteRange | undefined {
  if (place.format === 'zstd-chunked') return { start: place.offset, end: place.offset + place.length };
  const { tocOffset = 0, start = 0 } = footerAtHand(blob) ?? {};
  return tocOffset < start ? { start: tocOffset, end: start } : undefined;
}
