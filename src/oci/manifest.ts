/** Image manifests: OCI's (image-spec manifest.md) and Docker's schema 2. */
import { z } from 'zod';
import { LaminaError } from '../errors.js';
import { descriptorSchema, type Descriptor } from './descriptor.js';
import { optional, parseJson, stringMap } from './json.js';
import { MANIFEST_LIMIT } from './limits.js';
import { isConfigType, isEncryptedType, isLayerType } from './media-types.js';

export interface Manifest {
  readonly config: Descriptor;
  /** Base first. */
  readonly layers: readonly Descriptor[];
  readonly annotations: Readonly<Record<string, string>>;
}

const schema = z.object({
  schemaVersion: optional(z.unknown()),
  mediaType: optional(z.string()),
  artifactType: optional(z.string()),
  config: optional(descriptorSchema),
  layers: optional(z.array(descriptorSchema)),
  manifests: optional(z.unknown()),
  fsLayers: optional(z.unknown()),
  annotations: optional(stringMap),
});

/**
 * The manifest in `bytes`, which a descriptor of `mediaType` points at. Throws MANIFEST_INVALID; NOT_AN_IMAGE for an
 * artifact, which has the shape of an image but is something else; LIMIT_EXCEEDED.
 */
export function parseManifest(bytes: Uint8Array, mediaType: string): Manifest {
  const document = parseJson(bytes, schema, { what: 'the manifest', code: 'MANIFEST_INVALID', limit: MANIFEST_LIMIT });
  if (document.schemaVersion === 1 || document.fsLayers !== undefined) throw schema1Error();
  checkDocument('manifest', document, mediaType);
  // A document that is a manifest to one reader and an index to another (CVE-2021-41190).
  if (document.manifests !== undefined) {
    throw new LaminaError('MANIFEST_INVALID', 'the manifest has the "manifests" of an index');
  }
  const { config, layers = [], annotations = {} } = document;
  if (config === undefined) throw new LaminaError('MANIFEST_INVALID', 'the manifest has no config');
  if (!isConfigType(config.mediaType)) {
    const type = document.artifactType ?? config.mediaType;
    throw new LaminaError('NOT_AN_IMAGE', `it is an artifact of type ${type.slice(0, 200)}, not an image`, {
      details: { artifactType: type.slice(0, 200), configMediaType: config.mediaType.slice(0, 200) },
    });
  }
  layers.forEach((layer, i) => {
    if (isLayerType(layer.mediaType)) return;
    const type = layer.mediaType.slice(0, 200);
    const position = `layer ${i + 1} of ${layers.length}`;
    if (isEncryptedType(layer.mediaType)) {
      throw new LaminaError('NOT_AN_IMAGE', `${position} is encrypted (${type})`, {
        hint: 'Decrypt the image first: skopeo copy --decryption-key KEY ...',
        details: { mediaType: type },
      });
    }
    throw new LaminaError('NOT_AN_IMAGE', `${position} is no file system layer (${type || 'no media type'})`, {
      details: { mediaType: type },
    });
  });
  checkSizes([config, ...layers]);
  return { config, layers, annotations };
}

/** What has one digest has one size. */
function checkSizes(descriptors: readonly Descriptor[]): void {
  const sizes = new Map<string, number>();
  for (const { digest, size } of descriptors) {
    const said = sizes.get(digest) ?? size;
    if (said !== size) {
      throw new LaminaError('MANIFEST_INVALID', `the manifest says that ${digest} has ${said} and ${size} bytes`, {
        details: { digest },
      });
    }
    sizes.set(digest, size);
  }
}

/** What manifests and indexes have in common. Throws MANIFEST_INVALID. */
export function checkDocument(
  what: 'manifest' | 'index',
  document: { readonly schemaVersion: unknown; readonly mediaType: string | undefined },
  mediaType: string | undefined,
): void {
  if (document.schemaVersion !== undefined && document.schemaVersion !== 2) {
    throw new LaminaError('MANIFEST_INVALID', `the ${what} has a schemaVersion other than 2`);
  }
  if (document.mediaType !== undefined && mediaType !== undefined && document.mediaType !== mediaType) {
    throw new LaminaError(
      'MANIFEST_INVALID',
      `the ${what} says that it is ${document.mediaType.slice(0, 200)}, its descriptor ${mediaType}`,
    );
  }
}

export function schema1Error(): LaminaError {
  return new LaminaError('NOT_AN_IMAGE', 'its manifest is of Docker schema 1, which names no diffIDs', {
    hint: 'Such images are read from registries only. Convert it: skopeo copy --format v2s2, or pull it with a current Docker.',
  });
}
