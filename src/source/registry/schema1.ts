/**
 * Docker's first manifests (distribution, spec/manifest-v2-1.md), signed or not, for reading only. They name the layers'
 * blobs, but not what these are uncompressed: the diffIDs of such an image are known when its layers have been read.
 */
import { z } from 'zod';
import { parseDigest, type Digest } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import { parseJson } from '../../oci/json.js';
import { MANIFEST_LIMIT } from '../../oci/limits.js';

export interface Schema1Image {
  /** Base first; entries that changed no files are left out. */
  readonly layers: readonly Digest[];
  /** An image config without `rootfs`, as its JSON: {@link withDiffIds} completes it. */
  readonly config: Readonly<Record<string, unknown>>;
}

const what = 'the manifest';
const kind = { what, code: 'MANIFEST_INVALID', limit: MANIFEST_LIMIT } as const;

const schema = z.object({
  schemaVersion: z.literal(1),
  fsLayers: z.array(z.object({ blobSum: z.string() })).min(1),
  history: z.array(z.object({ v1Compatibility: z.string() })).min(1),
  architecture: z.string().nullish(),
});

const ID = /^[0-9a-f]{64}$/;

/** Of one layer. What else is in the newest becomes the config. */
const v1Schema = z.looseObject({
  id: z.string().regex(ID),
  parent: z.string().nullish(),
  throwaway: z.boolean().nullish(),
  created: z.string().nullish(),
  author: z.string().nullish(),
  comment: z.string().nullish(),
  container_config: z.object({ Cmd: z.array(z.string()).nullish() }).nullish(),
});
type V1 = z.output<typeof v1Schema>;

const signedSchema = z.object({
  signatures: z.array(z.object({ protected: z.string() })).nullish(),
});
const protectedSchema = z.object({ formatLength: z.int().nonnegative(), formatTail: z.string() });

/**
 * The bytes that are signed and that the digest is of: the document without its signatures (libtrust, ParsePrettySignature).
 * The signatures themselves are not verified: the digest is. Throws MANIFEST_INVALID.
 */
export function signedPayload(bytes: Uint8Array): Uint8Array {
  const { signatures } = parseJson(bytes, signedSchema, kind);
  const [first] = signatures ?? [];
  if (first === undefined) return bytes;
  const signed = parseJson(Buffer.from(first.protected, 'base64url'), protectedSchema, kind);
  const { formatLength, formatTail } = signed;
  if (formatLength > bytes.length) throw invalid('its signature is of more than there is');
  return Buffer.concat([bytes.subarray(0, formatLength), Buffer.from(formatTail, 'base64url')]);
}

/** Only what the digest covers is read. Throws MANIFEST_INVALID, DIGEST_INVALID, DIGEST_UNSUPPORTED, LIMIT_EXCEEDED. */
export function convertSchema1(bytes: Uint8Array): Schema1Image {
  const { fsLayers, history, architecture } = parseJson(signedPayload(bytes), schema, kind);
  if (fsLayers.length !== history.length) {
    throw invalid(`it has ${fsLayers.length} layers and ${history.length} entries of history`);
  }
  // The newest comes first.
  const entries = history.map(({ v1Compatibility }, i) => {
    const v1 = parseJson(Buffer.from(v1Compatibility), v1Schema, {
      ...kind,
      what: `history entry ${i + 1} of ${what}`,
    });
    return { v1, layer: fsLayers[i]?.blobSum ?? '' };
  });
  // Of several in a row with one id only the oldest counts (docker, pull_v2.go, fixManifestLayers).
  const chain = entries.filter(({ v1 }, i) => v1.id !== entries[i + 1]?.v1.id).reverse();
  if (new Set(chain.map(({ v1 }) => v1.id)).size !== chain.length) throw invalid('its history goes in a circle');
  chain.forEach(({ v1 }, i) => {
    if ((v1.parent ?? '') !== (chain[i - 1]?.v1.id ?? '')) throw invalid('its history is no chain');
  });
  const newest = chain.at(-1)?.v1;
  return {
    layers: chain.filter(({ v1 }) => v1.throwaway !== true).map(({ layer }) => parseDigest(layer)),
    config: {
      ...(newest === undefined ? {} : withoutV1(newest)),
      architecture: newest?.['architecture'] ?? architecture ?? '',
      os: newest?.['os'] ?? 'linux',
      history: chain.map(({ v1 }) => historyEntry(v1)),
    },
  };
}

/** The config as JSON, when the layers are known. `diffIds` are those of `layers`, in their order. */
export function withDiffIds({ layers, config }: Schema1Image, diffIds: readonly Digest[]): Buffer {
  if (diffIds.length !== layers.length) throw invalid(`${layers.length} layers have ${diffIds.length} diffIDs`);
  return Buffer.from(JSON.stringify({ ...config, rootfs: { type: 'layers', diff_ids: diffIds } }));
}

/** Fields that mean one layer, not the image (containers/image, manifest/docker_schema1.go). */
const LAYER_FIELDS = new Set(['id', 'parent', 'parent_id', 'layer_id', 'throwaway', 'Size']);

function withoutV1(v1: V1): Record<string, unknown> {
  return Object.fromEntries(Object.entries(v1).filter(([name]) => !LAYER_FIELDS.has(name)));
}

function historyEntry({ created, author, comment, throwaway, container_config }: V1): Record<string, unknown> {
  const command = container_config?.Cmd?.join(' ');
  return {
    ...(created === undefined || created === null ? {} : { created }),
    ...(command === undefined ? {} : { created_by: command }),
    ...(author ? { author } : {}),
    ...(comment ? { comment } : {}),
    ...(throwaway === true ? { empty_layer: true } : {}),
  };
}

function invalid(why: string): LaminaError {
  return new LaminaError('MANIFEST_INVALID', `The manifest of Docker schema 1 is not well formed: ${why}`);
}
