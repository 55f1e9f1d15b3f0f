/**
 * What `docker save` writes, and `skopeo copy docker-archive:` (moby, image/tarexport): `manifest.json` names for each image
 * its tags, its config and its layers, all members of the archive. Since Docker 25 the archive is an image layout as
 * well, and that has digests; it is preferred where it has the same image.
 */
import { z } from 'zod';
import { digestOf, parseDigest, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { parseConfig } from '../oci/config.js';
import type { Descriptor } from '../oci/descriptor.js';
import { optional, parseJson } from '../oci/json.js';
import { CONFIG_LIMIT, MANIFEST_LIMIT } from '../oci/limits.js';
import { DOCKER_LAYER } from '../oci/media-types.js';
import { fullName } from '../oci/name.js';
import type { Platform } from '../oci/platform.js';
import { printable } from '../tar/notes.js';
import { cleanName, type Archive } from './archive.js';
import { openBlob, type BlobLocation } from './blob.js';
import { readWhole } from './files.js';
import type { Image, Layer } from './image.js';
import { verified } from './documents.js';
import { Layout } from './layout.js';
import { checkCount, configPlatform, ociImage, platformWarnings, readManifest } from './oci-image.js';
import { allManifests } from './select.js';

export interface DockerWanted {
  /** The reference in its full form. */
  readonly reference: string;
  /** One of an image's RepoTags. */
  readonly tag?: string | undefined;
  /** Or its place in manifest.json, from 0. */
  readonly index?: number | undefined;
  readonly platform: Platform;
}

interface Saved {
  readonly config: string;
  readonly tags: readonly string[];
  readonly layers: readonly string[];
}

const list = optional(z.array(z.string()));
const schema = z.array(z.object({ Config: z.string(), RepoTags: list, Layers: list }));

/**
 * Throws ARCHIVE_INVALID, IMAGE_NOT_FOUND, TAG_NOT_FOUND, IMAGE_AMBIGUOUS, CONFIG_INVALID, BLOB_MISSING,
 * BLOB_DIGEST_MISMATCH, LIMIT_EXCEEDED, DIGEST_*, IO.
 */
export function dockerImage(archive: Archive, wanted: DockerWanted): Image {
  const warnings: string[] = [...archive.warnings];
  const saved = choose(readSaved(archive), wanted, warnings);
  const configName = memberName(saved.config);
  const location = archive.find(configName, 'first');
  if (location === undefined) throw missing(archive, `the config ${printable(configName)}`);
  const configBytes = readWhole(location, 'the config', CONFIG_LIMIT);
  const claimed = digestIn(CONFIG_NAME, configName);
  if (claimed !== undefined) verified(configBytes, claimed, 'the config');
  const configDigest = digestOf(configBytes);

  const fromLayout = layoutImage(archive, configDigest, wanted, warnings);
  if (fromLayout !== undefined) return fromLayout;

  const config = parseConfig(configBytes);
  checkCount(config, saved.layers.length);
  const diffIdOf = new Map<number, Digest>();
  const layers = saved.layers.map((path, i): Layer => {
    const name = memberName(path);
    const what = `layer ${i + 1} of ${saved.layers.length}, ${printable(name)},`;
    const blob = archive.find(name, 'first');
    if (blob === undefined) throw missing(archive, what);
    const diffId = config.diffIds[i]!;
    const before = diffIdOf.get(blob.offset);
    if (before !== undefined && before !== diffId) {
      throw new LaminaError('ARCHIVE_INVALID', `${what} has diffID ${diffId}, but the same file is also ${before}`);
    }
    diffIdOf.set(blob.offset, diffId);
    const digest = digestIn(LAYER_NAME, name) ?? (isTar(blob) ? diffId : undefined);
    return { diffId, digest, size: blob.size, mediaType: DOCKER_LAYER, blob };
  });
  return {
    reference: wanted.reference,
    manifestDigest: undefined,
    configDigest,
    platform: configPlatform(config),
    config,
    configBytes,
    layers,
    annotations: {},
    warnings: [...warnings, ...platformWarnings(config, { platform: undefined, wanted: wanted.platform })],
  };
}

function readSaved(archive: Archive): Saved[] {
  const location = archive.find('manifest.json', 'first');
  if (location === undefined) {
    throw new LaminaError('ARCHIVE_INVALID', `${archive.path} has no manifest.json`, {
      hint: archive.has('index.json')
        ? 'It is an image layout: write oci-archive:FILE.'
        : 'Archives of Docker before 1.10 are not read: load it into a current Docker and save it again.',
      details: { path: archive.path },
    });
  }
  const kind = { what: 'manifest.json', code: 'ARCHIVE_INVALID', limit: MANIFEST_LIMIT } as const;
  const document = parseJson(readWhole(location, kind.what, kind.limit), schema, kind);
  return document.map(({ Config, RepoTags, Layers }) => ({
    config: Config,
    tags: RepoTags ?? [],
    layers: Layers ?? [],
  }));
}

function choose(images: readonly Saved[], { tag, index }: DockerWanted, warnings: string[]): Saved {
  const there = images
    .slice(0, 50)
    .map(({ tags, config }, i) => `@${i}  ${[...tags, config].join('  ').slice(0, 500)}`);
  const lines = there.map((line) => `\n  ${line}`).join('');
  const details = { images: there };
  const named = tag === undefined ? images : findTag(images, tag);
  const [first] = index === undefined ? named : images.slice(index, index + 1);
  if (images.length === 0) throw new LaminaError('IMAGE_NOT_FOUND', 'there is no image in it');
  if (first === undefined && tag !== undefined) {
    throw new LaminaError('TAG_NOT_FOUND', `there is no image ${JSON.stringify(tag)}; there is:${lines}`, { details });
  }
  if (first === undefined) {
    throw new LaminaError('IMAGE_NOT_FOUND', `there is no image @${index ?? 0}; there is:${lines}`, { details });
  }
  const several = index === undefined && new Set(named.map(({ config }) => config)).size > 1;
  if (several && tag === undefined) {
    throw new LaminaError('IMAGE_AMBIGUOUS', `there are ${images.length} images in it:${lines}`, {
      hint: 'Choose one: append :REF or :@N.',
      details,
    });
  }
  if (several) warnings.push(`${named.length} images are called ${JSON.stringify(tag)}: the first is taken`);
  return first;
}

function findTag(images: readonly Saved[], tag: string): Saved[] {
  const exact = images.filter(({ tags }) => tags.includes(tag));
  const wanted = fullName(tag);
  if (exact.length > 0 || wanted === undefined) return exact;
  return images.filter(({ tags }) => tags.some((t) => fullName(t) === wanted));
}

/** The image as the archive's layout has it; undefined, with a warning where there is one but it cannot serve. */
function layoutImage(archive: Archive, config: Digest, wanted: DockerWanted, warnings: string[]): Image | undefined {
  if (!archive.has('oci-layout') || !archive.has('index.json')) return undefined;
  try {
    const layout = Layout.open(archive);
    const descriptor = allManifests(layout).find((d) => isConfigOf(layout, d, config));
    if (descriptor !== undefined) {
      return ociImage(layout, descriptor, {
        reference: wanted.reference,
        platform: undefined,
        wanted: wanted.platform,
        warnings: [...warnings, ...layout.warnings],
      });
    }
    warnings.push('index.json does not have the image that manifest.json names: manifest.json is used');
  } catch (e) {
    if (!(e instanceof LaminaError)) throw e;
    warnings.push(`index.json cannot be used, manifest.json is: ${e.message}`);
  }
  return undefined;
}

function isConfigOf(layout: Layout, descriptor: Descriptor, config: Digest): boolean {
  try {
    return readManifest(layout, descriptor).config.digest === config;
  } catch (e) {
    // A manifest of another platform that was not saved, or what is no image.
    if (e instanceof LaminaError && (e.code === 'BLOB_MISSING' || e.code === 'NOT_AN_IMAGE')) return false;
    throw e;
  }
}

/** A path of manifest.json as the archive has it: clean, and bytes as latin1. */
function memberName(path: string): string {
  return cleanName(Buffer.from(path, 'utf8').toString('latin1'));
}

/** Names that hold a digest of the file: those of a layout's blobs, and for a config also its image ID. */
const LAYER_NAME = /^blobs\/sha256\/([0-9a-f]{64})$/;
const CONFIG_NAME = /^(?:blobs\/sha256\/|sha256:|)([0-9a-f]{64})(?:\.json)?$/;

function digestIn(pattern: RegExp, name: string): Digest | undefined {
  const [, hex] = pattern.exec(name) ?? [];
  return hex === undefined ? undefined : parseDigest(`sha256:${hex}`);
}

/** An uncompressed layer, which is its own diffID. */
function isTar(location: BlobLocation): boolean {
  const blob = openBlob(location);
  try {
    const head = Buffer.alloc(512);
    return blob.read(0, head) === head.length && head.toString('latin1', 257, 262) === 'ustar';
  } finally {
    blob.close();
  }
}

function missing(archive: Archive, what: string): LaminaError {
  return new LaminaError('BLOB_MISSING', `${what} is missing from ${archive.path}`, {
    details: { path: archive.path },
  });
}
