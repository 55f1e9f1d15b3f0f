/**
 * What Lamina puts beside an image in its registry, so that other machines start containers of it sooner: a manifest of an
 * artifact whose subject is the image's manifest. Its layers are an access trace (./trace), embedded in its descriptor where
 * it is short, and of each layer of the image that brings no table of contents, three blobs with an annotation that says which:
 *
 *     files    its tar's entries, as a ztoc of SOCI without spans has them, compressed with gzip
 *     chunks   the SHA-256 of every 64 KiB, as the store has them (src/layer/chunks)
 *     map      restart points, as the store has them (src/layer/map)
 *
 * So a layer is read in pieces of 1 MiB, and of zstd too, where it has several frames.
 */
import { z } from 'zod';
import { digestOf, parseDigest, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { descriptorSchema, type Descriptor } from '../oci/descriptor.js';
import { optional, parseJson } from '../oci/json.js';
import { MANIFEST_LIMIT } from '../oci/limits.js';
import { TRACE_LIMIT } from './trace.js';

/** What to ask a registry's list of referrers for. */
export const LAMINA_ARTIFACT_TYPE = 'application/vnd.laminafs.index.v1+json';

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const TRACE_TYPE = 'application/vnd.laminafs.trace.v1+json';
/** image-spec manifest.md, "Guidance for an Empty Descriptor" */
const EMPTY = {
  mediaType: 'application/vnd.oci.empty.v1+json',
  digest: 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
  size: 2,
  data: 'e30=',
};
/** Bytes of a trace that is embedded. */
const EMBEDDED_MAX = 256 * 1024;
const LAYERS_MAX = 2000;

const parts = ['files', 'chunks', 'map'] as const;
const partTypes = {
  files: 'application/vnd.laminafs.files.v1+gzip',
  chunks: 'application/vnd.laminafs.chunks.v1',
  map: 'application/vnd.laminafs.map.v1',
} as const;
/** Which of the image's layers, by its digest. */
const LAYER_DIGEST = 'vnd.laminafs.layer.digest';

/** Of the index of one layer. */
export type LayerParts<T> = Readonly<Record<(typeof parts)[number], T>>;

export interface LaminaIndex {
  readonly trace: Descriptor | undefined;
  /** By the digests of the layers' blobs. */
  readonly layers: ReadonlyMap<Digest, LayerParts<Descriptor>>;
}

const schema = z.object({
  schemaVersion: z.literal(2),
  artifactType: z.literal(LAMINA_ARTIFACT_TYPE),
  subject: optional(descriptorSchema),
  layers: z.array(descriptorSchema).max(LAYERS_MAX),
});

/** `image`: the digest of the manifest for which it was looked up. Throws MANIFEST_INVALID, LIMIT_EXCEEDED, DIGEST_*. */
export function parseLaminaIndex(bytes: Uint8Array, image: Digest): LaminaIndex {
  const what = 'the Lamina index';
  const { subject, layers } = parseJson(bytes, schema, { what, code: 'MANIFEST_INVALID', limit: MANIFEST_LIMIT });
  if (subject?.digest !== image) throw invalid(`it is for ${(subject?.digest ?? 'nothing').slice(0, 150)}`);
  const trace = layers.find(({ mediaType }) => mediaType === TRACE_TYPE);
  if ((trace?.size ?? 0) > TRACE_LIMIT) throw invalid('its trace is too large');
  return { trace, layers: partsByLayer(layers) };
}

function partsByLayer(entries: readonly Descriptor[]): ReadonlyMap<Digest, LayerParts<Descriptor>> {
  const found = new Map<Digest, Partial<Record<(typeof parts)[number], Descriptor>>>();
  for (const entry of entries) {
    const part = parts.find((name) => partTypes[name] === entry.mediaType);
    const of = entry.annotations[LAYER_DIGEST];
    if (part === undefined || of === undefined) continue;
    const digest = parseDigest(of);
    found.set(digest, { ...found.get(digest), [part]: entry });
  }
  return new Map(
    [...found].flatMap(([digest, { files, chunks, map }]) =>
      files === undefined || chunks === undefined || map === undefined
        ? []
        : [[digest, { files, chunks, map }] as const],
    ),
  );
}

export interface NewLaminaIndex {
  readonly subject: { readonly mediaType: string; readonly digest: Digest; readonly size: number };
  readonly trace?: Buffer | undefined;
  readonly layers: readonly { readonly layer: Digest; readonly parts: LayerParts<Buffer> }[];
}

/** The manifest, and the blobs that it names. */
export function encodeLaminaIndex({ subject, trace, layers }: NewLaminaIndex): { manifest: Buffer; blobs: Buffer[] } {
  const blobs: Buffer[] = [Buffer.from('{}')];
  const entry = (mediaType: string, bytes: Buffer, more: object): object => {
    blobs.push(bytes);
    return { mediaType, digest: digestOf(bytes), size: bytes.length, ...more };
  };
  const entries = layers.flatMap(({ layer, parts: of }) =>
    parts.map((part) => entry(partTypes[part], of[part], { annotations: { [LAYER_DIGEST]: layer } })),
  );
  if (trace !== undefined) {
    const isShort = trace.length <= EMBEDDED_MAX;
    entries.unshift(entry(TRACE_TYPE, trace, isShort ? { data: trace.toString('base64') } : {}));
  }
  const document = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    artifactType: LAMINA_ARTIFACT_TYPE,
    config: EMPTY,
    layers: entries,
    subject,
  };
  return { manifest: Buffer.from(JSON.stringify(document)), blobs };
}

function invalid(why: string): LaminaError {
  return new LaminaError('MANIFEST_INVALID', `The Lamina index of the image cannot be used: ${why}`);
}
