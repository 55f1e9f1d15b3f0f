/** Descriptors (image-spec descriptor.md): the media type, digest and size of what they point at. */
import { z } from 'zod';
import { optional, stringMap } from './json.js';
import { isConfigType, isIndexType, isManifestType } from './media-types.js';
import { normalizePlatform, type Platform } from './platform.js';

export interface Descriptor {
  readonly mediaType: string;
  /**
   * As it is written. An index may hold entries that we cannot verify, and never look at: it is checked where the
   * descriptor is followed.
   */
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  /** The content itself, in base64. Not verified. */
  readonly data: string | undefined;
  /** Where else the content can be had; of foreign layers the only places. Not verified. */
  readonly urls: readonly string[];
  readonly annotations: Readonly<Record<string, string>>;
  /** Normalised. */
  readonly platform: Platform | undefined;
  readonly artifactType: string | undefined;
}

const word = optional(z.string());

export const platformSchema = z
  .object({ os: word, architecture: word, variant: word })
  .transform(({ os = '', architecture = '', variant }): Platform | undefined =>
    os === '' && architecture === ''
      ? undefined
      : normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) }),
  );

export const descriptorSchema = z
  .object({
    mediaType: z.string(),
    digest: z.string(),
    size: z.int().nonnegative(),
    data: word,
    urls: optional(z.array(z.string())),
    annotations: optional(stringMap),
    platform: optional(platformSchema),
    artifactType: word,
  })
  .transform((d): Descriptor => ({
    mediaType: d.mediaType,
    digest: d.digest,
    size: d.size,
    data: d.data,
    urls: d.urls ?? [],
    annotations: d.annotations ?? {},
    platform: d.platform,
    artifactType: d.artifactType,
  }));

/**
 * Whether it can lead to an image: a manifest or an index that is not marked as an artifact or as what BuildKit keeps
 * beside an image (provenance and SBOM: platform unknown/unknown, and an annotation).
 */
export function mayBeImage({ mediaType, artifactType, platform, annotations }: Descriptor): boolean {
  if (!isManifestType(mediaType) && !isIndexType(mediaType)) return false;
  if (artifactType !== undefined && artifactType !== '' && !isConfigType(artifactType)) return false;
  if (platform?.os === 'unknown' && platform.architecture === 'unknown') return false;
  return annotations['vnd.docker.reference.type'] !== 'attestation-manifest';
}
