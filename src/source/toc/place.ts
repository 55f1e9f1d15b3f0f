/** Where a layer's table of contents is, so far as its descriptor says so and binds it by a digest. */
import { z } from 'zod';
import { parseDigest } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import { LAYOUT } from './document.js';

/**
 * `estargz`: SHA-256 of the table as it is in its tar entry; the blob's footer says where that is. `zstd-chunked`: SHA-256 of
 * the table as it is compressed in the blob, at `offset`.
 */
export const tocPlace = z.discriminatedUnion('format', [
  z.object({ format: z.literal('estargz'), digest: z.string() }),
  z.object({
    format: z.literal('zstd-chunked'),
    digest: z.string(),
    /** Bytes. */
    offset: z.int().min(0),
    length: z.int().min(1),
    rawLength: z.int().min(1),
  }),
]);
export type TocPlace = z.infer<typeof tocPlace>;

/** What is kept of the table in the store is named by: a change of the address space must not meet trees of before. */
export function tableName(place: TocPlace): string {
  return JSON.stringify([LAYOUT, place]);
}

/** stargz-snapshotter, docs/estargz.md */
const ESTARGZ = 'containerd.io/snapshot/stargz/toc.digest';
/** containers/storage, pkg/chunked; with and without the name of its forge. */
const CHUNKED = ['io.github.containers.zstd-chunked.', 'io.containers.zstd-chunked.'];

/** Undefined where there is none, or none that could be used. */
export function tocPlaceOf(mediaType: string, annotations: Readonly<Record<string, string>>): TocPlace | undefined {
  if (mediaType.endsWith('zstd')) return chunkedPlace(annotations);
  const digest = annotations[ESTARGZ];
  return isSha256(digest) ? { format: 'estargz', digest } : undefined;
}

function chunkedPlace(annotations: Readonly<Record<string, string>>): TocPlace | undefined {
  for (const prefix of CHUNKED) {
    const digest = annotations[`${prefix}manifest-checksum`];
    // offset:length:raw length:type, of which type 1 is the only one
    const [, offset, length, rawLength] =
      /^(\d{1,15}):(\d{1,10}):(\d{1,10})(?::1)?$/.exec(annotations[`${prefix}manifest-position`] ?? '') ?? [];
    if (!isSha256(digest) || offset === undefined) continue;
    return {
      format: 'zstd-chunked',
      digest,
      offset: Number(offset),
      length: Number(length),
      rawLength: Number(rawLength),
    };
  }
  return undefined;
}

function isSha256(digest: string | undefined): digest is string {
  try {
    return digest?.startsWith('sha256:') === true && parseDigest(digest) === digest;
  } catch (e) {
    if (e instanceof LaminaError) return false;
    throw e;
  }
}
