/**
 * The index of an image in SOCI's sense: an image manifest whose layers are ztocs (soci/soci_index.go, soci_convert.go).
 *
 *     v1  has the image's manifest as its subject, and is found among that manifest's referrers
 *     v2  has none: the image's manifest names it in an annotation, and the OCI index beside the image has an entry for it
 *
 * Its config is "{}"; the config's media type says which of the two it is.
 */
import { z } from 'zod';
import { parseDigest, type Digest } from '../../digest/index.js';
import { descriptorSchema, type Descriptor } from '../../oci/descriptor.js';
import { optional, parseJson, stringMap } from '../../oci/json.js';
import { MANIFEST_LIMIT } from '../../oci/limits.js';
import { sociInvalid } from './errors.js';

const INDEX_TYPES = {
  v1: 'application/vnd.amazon.soci.index.v1+json',
  v2: 'application/vnd.amazon.soci.index.v2+json',
} as const;
type SociVersion = keyof typeof INDEX_TYPES;

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const ZTOC_TYPE = 'application/octet-stream';
/** SHA-256 of "{}". */
const EMPTY_DIGEST = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a';

const annotation = {
  layerDigest: 'com.amazon.soci.image-layer-digest',
  layerType: 'com.amazon.soci.image-layer-mediaType',
  spanSize: 'com.amazon.soci.span-size',
  tool: 'com.amazon.soci.build-tool-identifier',
  imageDigest: 'com.amazon.soci.image-manifest-digest',
  indexDigest: 'com.amazon.soci.index-digest',
} as const;

export interface SociIndex {
  readonly version: SociVersion;
  /** By digest of the layer's blob. */
  readonly ztocs: ReadonlyMap<Digest, Descriptor>;
}

const schema = z.object({
  schemaVersion: z.literal(2),
  mediaType: optional(z.literal(MANIFEST_TYPE)),
  config: descriptorSchema,
  layers: optional(z.array(descriptorSchema)),
  subject: optional(descriptorSchema),
  annotations: optional(stringMap),
});

/**
 * `image` is the digest of the manifest for which the index was looked up. What else stands in it (lists for prefetching)
 * is passed over. Throws SOCI_INVALID, LIMIT_EXCEEDED, DIGEST_INVALID, DIGEST_UNSUPPORTED.
 */
export function parseSociIndex(bytes: Uint8Array, image: Digest): SociIndex {
  const document = parseJson(bytes, schema, { what: 'the SOCI index', code: 'SOCI_INVALID', limit: MANIFEST_LIMIT });
  const { mediaType } = document.config;
  const version = mediaType === INDEX_TYPES.v1 ? 'v1' : mediaType === INDEX_TYPES.v2 ? 'v2' : undefined;
  if (version === undefined) throw sociInvalid('the SOCI index', `it is a ${mediaType.slice(0, 200)}`);
  const subject = document.subject?.digest ?? (version === 'v1' ? 'nothing' : image);
  if (subject !== image) throw sociInvalid('the SOCI index', `it is for ${subject.slice(0, 150)}, not for ${image}`);
  const ztocs = new Map<Digest, Descriptor>();
  for (const layer of document.layers ?? []) {
    const of = layer.annotations[annotation.layerDigest];
    if (layer.mediaType !== ZTOC_TYPE || of === undefined) continue;
    parseDigest(layer.digest);
    const key = parseDigest(of);
    if (ztocs.has(key)) throw sociInvalid('the SOCI index', `it has two ztocs for ${key}`);
    ztocs.set(key, layer);
  }
  return { version, ztocs };
}

/** The index that an image's manifest names (v2); undefined where it names none. Throws DIGEST_INVALID, DIGEST_UNSUPPORTED. */
export function namedSociIndex(annotations: Readonly<Record<string, string>>): Digest | undefined {
  const digest = annotations[annotation.indexDigest];
  return digest === undefined ? undefined : parseDigest(digest);
}

/** The entry for the SOCI index (v2) of a manifest in the OCI index that lists both. */
export function sociIndexEntry(entries: readonly Descriptor[], image: Digest): Descriptor | undefined {
  return entries.find(
    ({ artifactType, annotations }) => artifactType === INDEX_TYPES.v2 && annotations[annotation.imageDigest] === image,
  );
}

/** The first SOCI index (v1) in a list of referrers, which a registry need not have filtered. */
export function sociReferrer(referrers: readonly Descriptor[]): Descriptor | undefined {
  return referrers.find(({ artifactType }) => artifactType === INDEX_TYPES.v1);
}

/** What a descriptor needs at least, for what is written. */
export interface ShortDescriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

export interface IndexedZtoc {
  readonly layer: Pick<ShortDescriptor, 'mediaType' | 'digest'>;
  readonly ztoc: Omit<ShortDescriptor, 'mediaType'>;
  readonly spanSize: number;
}

export interface NewSociIndex {
  readonly ztocs: readonly IndexedZtoc[];
  readonly tool: string;
  /** The image's manifest makes it a v1, none a v2. */
  readonly subject?: ShortDescriptor;
}

/** Its config is the blob "{}". The bytes are those of SOCI's builder. */
export function encodeSociIndex({ ztocs, tool, subject }: NewSociIndex): Buffer {
  const document = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: INDEX_TYPES[subject === undefined ? 'v2' : 'v1'], digest: EMPTY_DIGEST, size: 2 },
    layers: ztocs.map(({ layer, ztoc, spanSize }) => ({
      mediaType: ZTOC_TYPE,
      digest: ztoc.digest,
      size: ztoc.size,
      annotations: {
        [annotation.layerDigest]: layer.digest,
        [annotation.layerType]: layer.mediaType,
        [annotation.spanSize]: String(spanSize),
      },
    })),
    ...(subject === undefined
      ? undefined
      : { subject: { mediaType: subject.mediaType, digest: subject.digest, size: subject.size } }),
    annotations: { [annotation.tool]: tool },
  };
  return Buffer.from(JSON.stringify(document));
}
