/** An image of a layout: its manifest, config and layers. */
import { parseDigest, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { parseConfig, type ImageConfig } from '../oci/config.js';
import type { Descriptor } from '../oci/descriptor.js';
import { CONFIG_LIMIT, MANIFEST_LIMIT } from '../oci/limits.js';
import { parseManifest, type Manifest } from '../oci/manifest.js';
import { formatPlatform, normalizePlatform, type Platform } from '../oci/platform.js';
import { isEstargz } from './estargz.js';
import type { Image, Layer } from './image.js';
import type { Documents } from './documents.js';
import { tocPlaceOf } from './toc/place.js';

/** The manifest that `descriptor` points at, verified and parsed. */
export function readManifest(documents: Documents, descriptor: Descriptor): Manifest {
  const bytes = documents.read(descriptor, `the manifest ${descriptor.digest}`, MANIFEST_LIMIT);
  return parseManifest(bytes, descriptor.mediaType);
}

export interface Expected {
  /** The reference in its full form. */
  readonly reference: string;
  /** What the index says. */
  readonly platform: Platform | undefined;
  /** What was asked for. */
  readonly wanted: Platform;
  readonly warnings: readonly string[];
}

/**
 * Throws what {@link Documents.read}, {@link Documents.locate}, {@link parseManifest} and {@link parseConfig} throw, and
 * CONFIG_INVALID where manifest and config do not agree.
 */
export function ociImage(documents: Documents, descriptor: Descriptor, expected: Expected): Image {
  const manifest = readManifest(documents, descriptor);
  const configBytes = readConfig(documents, manifest);
  return assembleImage(documents, { manifest, manifestDigest: parseDigest(descriptor.digest), configBytes }, expected);
}

/** Throws what {@link Documents.read} throws. */
export function readConfig(documents: Documents, { config }: Pick<Manifest, 'config'>): Buffer {
  return documents.read(config, `the config ${config.digest}`, CONFIG_LIMIT);
}

export interface Assembly {
  readonly manifest: Manifest;
  readonly manifestDigest: Digest;
  /** What the manifest's config is. */
  readonly configBytes: Buffer;
}

/** Throws what {@link Documents.locate} and {@link parseConfig} throw, and CONFIG_INVALID. */
export function assembleImage(
  documents: Pick<Documents, 'locate'>,
  { manifest, manifestDigest, configBytes }: Assembly,
  expected: Expected,
): Image {
  const config = parseConfig(configBytes);
  checkCount(config, manifest.layers.length);
  const layers = manifest.layers.map((layer, i): Layer => {
    const what = `layer ${i + 1} of ${manifest.layers.length}, ${layer.digest},`;
    const blob = documents.locate(layer, what);
    const toc = blob.kind === 'registry' ? tocPlaceOf(layer.mediaType, layer.annotations) : undefined;
    return {
      diffId: config.diffIds[i]!,
      digest: parseDigest(layer.digest),
      size: layer.size,
      mediaType: layer.mediaType,
      blob,
      ...(isEstargz(blob, layer.annotations) ? { view: 'estargz' } : {}),
      ...(blob.kind === 'registry' ? { manifest: manifestDigest } : {}),
      ...(toc === undefined ? {} : { toc }),
    };
  });
  return {
    reference: expected.reference,
    manifestDigest,
    configDigest: parseDigest(manifest.config.digest),
    platform: configPlatform(config),
    config,
    configBytes,
    layers,
    annotations: manifest.annotations,
    warnings: [...expected.warnings, ...platformWarnings(config, expected)],
  };
}

/** Throws CONFIG_INVALID. */
export function checkCount({ diffIds }: ImageConfig, layers: number): void {
  if (diffIds.length === layers) return;
  throw new LaminaError(
    'CONFIG_INVALID',
    `the config has ${diffIds.length} diffIDs, but the image has ${layers} layers`,
    {
      details: { diffIds: diffIds.length, layers },
    },
  );
}

export function configPlatform({ os, architecture, variant }: ImageConfig): Platform {
  return normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

/** Whether the config's OS and architecture are another than those of the index, or else than those asked for. */
export function platformWarnings(
  config: ImageConfig,
  { platform, wanted }: Pick<Expected, 'platform' | 'wanted'>,
): string[] {
  const own = configPlatform(config);
  const other = platform ?? wanted;
  if (own.os === other.os && own.architecture === other.architecture) return [];
  const says = `the config says that the image is for ${formatPlatform(own)}`;
  return [
    platform === undefined
      ? `${says}; wanted is ${formatPlatform(wanted)}`
      : `${says}, its index ${formatPlatform(platform)}`,
  ];
}
