/**
 * What Lamina puts beside an image in its registry, so that other machines start containers of it sooner: a manifest of an
 * artifact whose subject is the image's manifest. Its layers are an access trace (./trace), embedded in its descriptor where
 * it is short.
 */
import { z } from 'zod';
import { digestOf, type Digest } from '../digest/index.js';
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
const LAYERS_MAX = 1000;

export interface LaminaIndex {
  readonly trace: Descriptor | undefined;
}

const schema = z.object({
  schemaVersion: z.literal(2),
  artifactType: z.literal(LAMINA_ARTIFACT_TYPE),
  subject: optional(descriptorSchema),
  layers: z.array(descriptorSchema).max(LAYERS_MAX),
});

/** `image`: the digest of the manifest for which it was looked up. Throws MANIFEST_INVALID, LIMIT_EXCEEDED. */
export function parseLaminaIndex(bytes: Uint8Array, image: Digest): LaminaIndex {
  const what = 'the Lamina index';
  const { subject, layers } = parseJson(bytes, schema, { what, code: 'MANIFEST_INVALID', limit: MANIFEST_LIMIT });
  if (subject?.digest !== image) throw invalid(`it is for ${(subject?.digest ?? 'nothing').slice(0, 150)}`);
  const trace = layers.find(({ mediaType }) => mediaType === TRACE_TYPE);
  if ((trace?.size ?? 0) > TRACE_LIMIT) throw invalid('its trace is too large');
  return { trace };
}

export interface NewLaminaIndex {
  readonly subject: { readonly mediaType: string; readonly digest: Digest; readonly size: number };
  readonly trace: Buffer;
}

/** The manifest, and the blobs that it names. */
export function encodeLaminaIndex({ subject, trace }: NewLaminaIndex): { manifest: Buffer; blobs: Buffer[] } {
  const isShort = trace.length <= EMBEDDED_MAX;
  const entry = {
    mediaType: TRACE_TYPE,
    digest: digestOf(trace),
    size: trace.length,
    ...(isShort ? { data: trace.toString('base64') } : {}),
  };
  const document = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    artifactType: LAMINA_ARTIFACT_TYPE,
    config: EMPTY,
    layers: [entry],
    subject,
  };
  return { manifest: Buffer.from(JSON.stringify(document)), blobs: [Buffer.from('{}'), trace] };
}

function invalid(why: string): LaminaError {
  return new LaminaError('MANIFEST_INVALID', `The Lamina index of the image cannot be used: ${why}`);
}
