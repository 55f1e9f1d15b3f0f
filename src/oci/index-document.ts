/** Image indexes: OCI's (image-spec image-index.md), of a layout and nested ones, and Docker's manifest lists. */
import { z } from 'zod';
import { LaminaError } from '../errors.js';
import { descriptorSchema, type Descriptor } from './descriptor.js';
import { optional, parseJson } from './json.js';
import { MANIFEST_LIMIT } from './limits.js';
import { checkDocument } from './manifest.js';

const schema = z.object({
  schemaVersion: optional(z.unknown()),
  mediaType: optional(z.string()),
  manifests: optional(z.array(descriptorSchema)),
  config: optional(z.unknown()),
  layers: optional(z.unknown()),
});

/**
 * The entries of the index in `bytes`, in order, of whatever media type. `mediaType` is that of the descriptor which
 * points at it; the index.json of a layout has none. Throws MANIFEST_INVALID, LIMIT_EXCEEDED.
 */
export function parseIndex(
  bytes: Uint8Array,
  mediaType: string | undefined,
  what = 'the index',
): readonly Descriptor[] {
  const document = parseJson(bytes, schema, { what, code: 'MANIFEST_INVALID', limit: MANIFEST_LIMIT });
  checkDocument('index', document, mediaType);
  // A document that is an index to one reader and a manifest to another (CVE-2021-41190).
  if (document.layers !== undefined || document.config !== undefined) {
    throw new LaminaError('MANIFEST_INVALID', `${what} has the "config" or "layers" of a manifest`);
  }
  if (document.manifests === undefined) throw new LaminaError('MANIFEST_INVALID', `${what} has no "manifests"`);
  return document.manifests;
}
