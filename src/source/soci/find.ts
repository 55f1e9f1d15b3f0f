/** The SOCI index of an image in a registry: the one that its manifest names (v2), else one that refers to it (v1). */
import { parseDigest, type Digest } from '../../digest/index.js';
import { MANIFEST_LIMIT } from '../../oci/limits.js';
import type { BlobLocation } from '../blob.js';
import type { Descriptor } from '../../oci/descriptor.js';
import type { RegistryAccess } from '../fetch/access.js';
import type { Fetcher } from '../fetch/fetcher.js';
import type { Image, Layer } from '../image.js';
import { namedSociIndex, parseSociIndex, sociReferrer, type SociIndex } from './index-manifest.js';

export interface SociSource {
  readonly fetcher: Fetcher;
  readonly access: RegistryAccess;
  /** What refers to the image's manifest. */
  readonly referrers: readonly Descriptor[];
  /** Throws LIMIT_EXCEEDED. */
  readonly locate: (digest: Digest, size: number) => BlobLocation;
}

/** The image, its layers with the ztocs that there are for them. Throws REGISTRY_*, SOCI_INVALID and others. */
export async function withZtocs(
  image: Image,
  manifest: Digest,
  { fetcher, access, referrers, locate }: SociSource,
): Promise<Image> {
  const named = namedSociIndex(image.annotations);
  const referring = sociReferrer(referrers);
  const digest = named ?? (referring === undefined ? undefined : parseDigest(referring.digest));
  if (digest === undefined) return image;
  const index = await read(digest, manifest, fetcher, access);
  const layers = image.layers.map((layer): Layer => {
    const ztoc = layer.digest === undefined ? undefined : index.ztocs.get(layer.digest);
    if (ztoc === undefined) return layer;
    const proved = parseDigest(ztoc.digest);
    return { ...layer, soci: { blob: locate(proved, ztoc.size), digest: proved, bound: named !== undefined } };
  });
  return { ...image, layers };
}

async function read(index: Digest, manifest: Digest, fetcher: Fetcher, access: RegistryAccess): Promise<SociIndex> {
  const { bytes } = await fetcher.manifest(access, index);
  return parseSociIndex(bytes.subarray(0, MANIFEST_LIMIT), manifest);
}
