/**
 * Whether a layer is an eStargz: a gzip layer that ends in the place of its own index (stargz-snapshotter,
 * docs/estargz.md). Its index and landmarks are files of the tar, but for loaders only.
 *
 *     0  1f 8b 08 04, a gzip header with an extra field   ..  16 hex digits, "STARGZ"   end - 13  empty data, trailer
 */
import { openBlob, type BlobLocation, type RandomAccessBlob } from './blob.js';

const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';
/** Bytes: with a subfield header in the extra field, or (stargz, before eStargz) without. */
const FOOTERS = [51, 47];
const GZIP_WITH_EXTRA = 0x1f8b0804;
const MARK = /^[0-9a-f]{16}STARGZ$/;
const MARK_LENGTH = 22;
/** Bytes behind the mark. */
const EMPTY_MEMBER = 13;

export interface EstargzFooter {
  /** Byte of the blob where the index begins. */
  readonly tocOffset: number;
  /** Byte of the blob where the footer itself does. */
  readonly start: number;
}

/** Bytes; its extra field has one subfield and no number: the index is in another image. */
const EXTERNAL_FOOTER = 46;
const EXTERNAL_MARK = 'STARGZEXTERNALTOC';

/** Whether the blob, of which the end is at hand, is an eStargz that brings no index; then that many bytes of it are content. */
export function externalFooter(blob: RandomAccessBlob): number | undefined {
  const footer = Buffer.alloc(EXTERNAL_FOOTER);
  const start = blob.size - EXTERNAL_FOOTER;
  if (start < 0 || blob.read(start, footer) < EXTERNAL_FOOTER || footer.readUInt32BE(0) !== GZIP_WITH_EXTRA)
    return undefined;
  const mark = footer.toString(
    'latin1',
    EXTERNAL_FOOTER - EMPTY_MEMBER - EXTERNAL_MARK.length,
    EXTERNAL_FOOTER - EMPTY_MEMBER,
  );
  return mark === EXTERNAL_MARK ? start : undefined;
}

/** How the blob ends, as far as that is at hand. Throws what reading it throws. */
export function findFooter(blob: RandomAccessBlob): EstargzFooter | undefined {
  for (const length of FOOTERS) {
    const footer = Buffer.alloc(length);
    if (blob.size < length || blob.read(blob.size - length, footer) < length) continue;
    const mark = footer.toString('latin1', length - EMPTY_MEMBER - MARK_LENGTH, length - EMPTY_MEMBER);
    if (footer.readUInt32BE(0) !== GZIP_WITH_EXTRA || !MARK.test(mark)) continue;
    return { tocOffset: parseInt(mark.slice(0, 16), 16), start: blob.size - length };
  }
  return undefined;
}

/**
 * By the annotation of its descriptor, or by how the blob ends, if that is at hand. Throws what {@link openBlob} throws.
 */
export function isEstargz(location: BlobLocation, annotations: Readonly<Record<string, string>>): boolean {
  return saysEstargz(annotations) || endsWith(location, findFooter);
}

/** Whether the annotations of its descriptor say it. */
export function saysEstargz(annotations: Readonly<Record<string, string>>): boolean {
  return annotations[TOC_DIGEST] !== undefined;
}

/** Whether it brings no index, by how the blob ends, if that is at hand. Throws what {@link openBlob} throws. */
export function hasExternalFooter(location: BlobLocation): boolean {
  return endsWith(location, externalFooter);
}

/** {@link findFooter}, undefined also where the bytes that tell are not at hand. Throws what {@link openBlob} throws. */
export function footerAtHand(location: BlobLocation): EstargzFooter | undefined {
  return withEnd(location, findFooter);
}

function endsWith(location: BlobLocation, footerOf: (blob: RandomAccessBlob) => unknown): boolean {
  return withEnd(location, (blob) => footerOf(blob) !== undefined) ?? false;
}

/** Whether the bytes that tell are at hand. Throws what {@link openBlob} throws. */
export function isEndAtHand(location: BlobLocation): boolean {
  return withEnd(location, () => true) ?? false;
}

/** Undefined where the end of the blob is not at hand. */
function withEnd<T>(location: BlobLocation, look: (blob: RandomAccessBlob) => T): T | undefined {
  const blob = openBlob(location);
  try {
    const { offset, length } = endOf(location);
    return blob.has(offset, length) ? look(blob) : undefined;
  } finally {
    blob.close();
  }
}

/** The bytes of a blob that tell. */
export function endOf({ size }: Pick<BlobLocation, 'size'>): { offset: number; length: number } {
  const length = Math.min(size, Math.max(...FOOTERS));
  return { offset: size - length, length };
}
