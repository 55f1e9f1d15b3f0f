/** The SOCI index of an image in a registry: the one that its manifest names (v2), else one that refers to it (v1). */
import { parseDigest, type Digest } from '../../digest/index.js';
import { MANIFEST_LIMIT } from '../../oci/limits.js';
import type { BlobLocation } from '../blob.js';
import type { RegistryAccess } from '../fetch/access.js';
import type { Fetcher } from '../fetch/fetcher.js';
import type { Image, Layer } from '../image.js';
import { SOCI_ARTIFACT_TYPE, namedSociIndex, parseSociIndex, sociReferrer, type SociIndex } from './index-manifest.js';

export interface SociSource {
  readonly fetcher: Fetcher;
  readonly access: RegistryAccess;
  /** Throws LIMIT_EXCEEDED. */
  readonly locate: (digest: Digest, size: number) => BlobLocation;
}

/** The image, its layers with the ztocs that there are for them. Throws REGISTRY_*, SOCI_INVALID and others. */
export async function withZtocs(
  image: Image,
  manifest: Digest,
  { fetcher, access, locate }: SociSource,
): Promise<Image> {
  const named = namedSociIndex(image.annotations);
  const index =
    named === undefined ? await referring(manifest, fetcher, access) : await read(named, manifest, fetcher, access);
  if (index === undefined) return image;
  const layers = image.layers.map((layer): Layer => {
    const ztoc = layer.digest === undefined ? undefined : index.ztocs.get(layer.digest);
    if (ztoc === undefined) return layer;
    const digest = parseDigest(ztoc.digest);
    return { ...layer, soci: { blob: locate(digest, ztoc.size), digest, bound: named !== undefined } };
  });
  return { ...image, layers };
}

async function referring(manifest: Digest, fetcher: Fetcher, access: RegistryAccess): Promise<SociIndex | undefined> {
  const found = sociReferrer(await fetcher.referrers(access, manifest, SOCI_ARTIFACT_TYPE));
  return found === undefined ? undefined : read(parseDigest(found.digest), manifest, fetcher, access);
}

async function read(index: Digest, manifest: Digest, fetcher: Fetcher, access: RegistryAccess): Promise<SociIndex> {
  const { bytes } = await fetcher.manifest(access, index);
  return parseSociIndex(bytes.subarray(0, MANIFEST_LIMIT), manifest);
}
