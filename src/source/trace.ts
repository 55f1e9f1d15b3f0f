/**
 * Access traces: which parts of an image's layers its containers read first, recorded on one machine (fetch/trace-file) and put
 * beside the image in its registry (./lamina-index), so that others fetch them before anybody waits for them.
 *
 *     {"schemaVersion": 1, "blobs": ["sha256:.."], "parts": [[0, 4096, 8192], ..]}
 *
 * Parts are in the order of their first use: which of the blobs, from which byte, how many bytes. Only a hint: whoever may write
 * to the repository has put it there.
 */
import { z } from 'zod';
import { parseDigest, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { parseJson } from '../oci/json.js';

/** Bytes. */
export const TRACE_LIMIT = 1024 * 1024;
const BLOBS_MAX = 1000;
const PARTS_MAX = 10_000;
/** Bytes that a trace, or a layer's landmark, may have fetched and decompressed ahead: more is no start of a container. */
export const FETCHED_MAX = 1024 * 1024 * 1024;

/** Bytes of a blob. */
export interface TracePart {
  readonly blob: Digest;
  readonly start: number;
  readonly end: number;
}

const document = z.object({
  schemaVersion: z.literal(1),
  blobs: z.array(z.string()).max(BLOBS_MAX),
  parts: z.array(z.tuple([z.int().min(0), z.int().min(0), z.int().min(1)])).max(PARTS_MAX),
});

export function encodeTrace(parts: readonly TracePart[]): Buffer {
  const blobs = [...new Set(parts.map(({ blob }) => blob))];
  const place = new Map(blobs.map((blob, i) => [blob, i]));
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 1,
      blobs,
      parts: parts.slice(0, PARTS_MAX).map(({ blob, start, end }) => [place.get(blob), start, end - start]),
    }),
  );
}

/** Throws MANIFEST_INVALID, LIMIT_EXCEEDED, DIGEST_*. */
export function parseTrace(bytes: Uint8Array): TracePart[] {
  const { blobs, parts } = parseJson(bytes, document, {
    what: 'the trace',
    code: 'MANIFEST_INVALID',
    limit: TRACE_LIMIT,
  });
  const digests = blobs.map((text) => parseDigest(text));
  return parts.map(([which, start, length]) => {
    const blob = digests[which];
    if (blob === undefined) throw traceInvalid('it names a blob that it does not list');
    return { blob, start, end: start + length };
  });
}

function traceInvalid(why: string): LaminaError {
  return new LaminaError('MANIFEST_INVALID', `The trace of the image cannot be used: ${why}`);
}

/** Two parts that are nearer to each other are asked for at once: a request costs as much as some bytes that nobody wants. */
const GAP = 128 * 1024;

/** What to ask for, in the order of the first use of it: of blobs whose sizes are given. */
export function requestsOf(parts: readonly TracePart[], sizes: ReadonlyMap<Digest, number>): TracePart[] {
  return merged(parts, sizes, GAP);
}

/** What of it is used: no byte twice, whatever the trace says. */
export function usedOf(parts: readonly TracePart[], sizes: ReadonlyMap<Digest, number>): TracePart[] {
  return merged(parts, sizes, 0);
}

function merged(parts: readonly TracePart[], sizes: ReadonlyMap<Digest, number>, gap: number): TracePart[] {
  const byBlob = new Map<Digest, { start: number; end: number; first: number }[]>();
  let bytes = 0;
  parts.forEach(({ blob, start, end: said }, first) => {
    const end = Math.min(said, sizes.get(blob) ?? 0);
    if (end <= start || (bytes += end - start) > FETCHED_MAX) return;
    const list = byBlob.get(blob);
    if (list === undefined) byBlob.set(blob, [{ start, end, first }]);
    else list.push({ start, end, first });
  });
  const requests = [...byBlob].flatMap(([blob, list]) => {
    const found: { blob: Digest; start: number; end: number; first: number }[] = [];
    for (const { start, end, first } of list.sort((a, b) => a.start - b.start)) {
      const last = found.at(-1);
      if (last === undefined || start > last.end + gap) found.push({ blob, start, end, first });
      else {
        last.end = Math.max(last.end, end);
        last.first = Math.min(last.first, first);
      }
    }
    return found;
  });
  return requests.sort((a, b) => a.first - b.first).map(({ blob, start, end }) => ({ blob, start, end }));
}
