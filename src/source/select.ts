/** Which of a layout's images is meant: by name, by digest, by platform (image-spec image-layout.md, image-index.md). */
import type { Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { mayBeImage, type Descriptor } from '../oci/descriptor.js';
import { parseIndex } from '../oci/index-document.js';
import { MANIFEST_LIMIT } from '../oci/limits.js';
import { isIndexType, isManifestType, isSchema1Type } from '../oci/media-types.js';
import { schema1Error } from '../oci/manifest.js';
import { fullName } from '../oci/name.js';
import { candidates, equalPlatforms, formatPlatform, type Platform } from '../oci/platform.js';
import type { Documents } from './documents.js';

/** Indexes within indexes, that of the layout included. */
const DEPTH_MAX = 5;
/** Entries of all indexes that are walked. */
const ENTRIES_MAX = 10_000;
/** Lines of a message that lists what there is. */
const LISTED_MAX = 50;

const REF_NAME = 'org.opencontainers.image.ref.name';
/** containerd and Docker put the whole name here, and only its tag in the ref.name. */
const CONTAINERD_NAME = 'io.containerd.image.name';

export interface Wanted {
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
  readonly platform: Platform;
}

/** A manifest's descriptor. */
export interface Selection {
  readonly descriptor: Descriptor;
  /** What the indexes say about it. */
  readonly platform: Platform | undefined;
  readonly warnings: readonly string[];
}

/**
 * Throws IMAGE_NOT_FOUND, IMAGE_AMBIGUOUS, TAG_NOT_FOUND, PLATFORM_NOT_FOUND, NOT_AN_IMAGE, and for nested indexes what
 * {@link Documents.read} and {@link parseIndex} throw.
 */
export function selectManifest(documents: Documents, wanted: Wanted): Selection {
  const warnings: string[] = [];
  const entry = selectEntry(documents, wanted, warnings);
  const { descriptor } = entry;
  if (isSchema1Type(descriptor.mediaType)) throw schema1Error();
  if (isManifestType(descriptor.mediaType)) return { ...entry, warnings };
  if (!isIndexType(descriptor.mediaType)) {
    const mediaType = descriptor.mediaType.slice(0, 200);
    throw new LaminaError('NOT_AN_IMAGE', `it is a document of type ${mediaType}, not an image`, {
      details: { mediaType },
    });
  }
  const walk = new Walk(documents);
  const images = [...walk.entries([entry])].filter(
    (e) => isManifestType(e.descriptor.mediaType) && mayBeImage(e.descriptor),
  );
  const image = choosePlatform(images, wanted.platform);
  if (image !== undefined) return { ...image, warnings };
  throw walk.missing ?? noPlatform(images, wanted.platform);
}

interface Entry {
  readonly descriptor: Descriptor;
  /** Its own, else that of the index that it is in. */
  readonly platform: Platform | undefined;
  /** 1 for an entry of the layout's own index. */
  readonly depth: number;
}

function topLevel(documents: Documents): Entry[] {
  return documents.entries.map((descriptor) => ({ descriptor, platform: descriptor.platform, depth: 1 }));
}

function selectEntry(documents: Documents, { tag, digest }: Wanted, warnings: string[]): Entry {
  if (tag !== undefined) {
    const found = findTag(topLevel(documents), tag);
    const [first] = found;
    if (first === undefined) throw notFound('TAG_NOT_FOUND', `there is no image ${JSON.stringify(tag)}`, documents);
    if (new Set(found.map((entry) => entry.descriptor.digest)).size > 1) {
      warnings.push(
        `${found.length} images are called ${JSON.stringify(tag)}: the first, ${first.descriptor.digest}, is taken`,
      );
    }
    if (digest === undefined || first.descriptor.digest === digest) return first;
    const below = findDigest(documents, [first], digest);
    if (below !== undefined) return below;
    throw notFound(
      'TAG_NOT_FOUND',
      `the image ${JSON.stringify(tag)} is ${first.descriptor.digest}, not ${digest}`,
      documents,
    );
  }
  if (digest !== undefined) {
    const found = findDigest(documents, topLevel(documents), digest);
    if (found !== undefined) return found;
    throw notFound('IMAGE_NOT_FOUND', `there is no image ${digest}`, documents);
  }
  const images = distinct(topLevel(documents).filter((entry) => mayBeImage(entry.descriptor)));
  const [only] = images;
  if (only === undefined) throw notFound('IMAGE_NOT_FOUND', 'there is no image in it', documents);
  if (images.length > 1) {
    throw new LaminaError('IMAGE_AMBIGUOUS', `there are ${images.length} images in it:${lines(images)}`, {
      hint: 'Choose one: append :TAG or @DIGEST.',
      details: { images: images.slice(0, LISTED_MAX).map(describe) },
    });
  }
  return only;
}

/** All that the best kind of match finds, in order. */
function findTag(entries: readonly Entry[], tag: string): Entry[] {
  const byAnnotation = (key: string) => entries.filter((entry) => entry.descriptor.annotations[key] === tag);
  const byRefName = byAnnotation(REF_NAME);
  if (byRefName.length > 0) return byRefName;
  const byContainerdName = byAnnotation(CONTAINERD_NAME);
  if (byContainerdName.length > 0) return byContainerdName;
  const wanted = fullName(tag);
  if (wanted === undefined) return [];
  return entries.filter(({ descriptor: { annotations } }) => {
    const names = [annotations[CONTAINERD_NAME], annotations[REF_NAME]];
    // A ref.name that is a tag alone would be the name of another image.
    return names.some((name) => name !== undefined && /[/:]/.test(name) && fullName(name) === wanted);
  });
}

function findDigest(documents: Documents, from: readonly Entry[], digest: Digest): Entry | undefined {
  const walk = new Walk(documents);
  for (const entry of walk.entries(from)) if (entry.descriptor.digest === digest) return entry;
  if (walk.missing !== undefined) throw walk.missing;
  return undefined;
}

function distinct(entries: readonly Entry[]): Entry[] {
  const seen = new Set<string>();
  return entries.filter(({ descriptor: { digest } }) => !seen.has(digest) && seen.add(digest));
}

/** Goes through indexes and the indexes in them. */
class Walk {
  readonly #documents: Documents;
  readonly #seen = new Set<string>();
  #count = 0;
  /** The first index whose blob is not there: a layout may be copied in part, and what is wanted may be elsewhere. */
  missing: LaminaError | undefined;

  constructor(documents: Documents) {
    this.#documents = documents;
  }

  /** The entries and all below them, each index before its own entries. An index that comes again adds nothing. */
  *entries(from: readonly Entry[]): Generator<Entry> {
    for (const entry of from) {
      if (++this.#count > ENTRIES_MAX) {
        throw new LaminaError('LIMIT_EXCEEDED', `its indexes have more than ${ENTRIES_MAX} entries`);
      }
      yield entry;
      const { descriptor } = entry;
      if (!isIndexType(descriptor.mediaType) || this.#seen.has(descriptor.digest)) continue;
      this.#seen.add(descriptor.digest);
      yield* this.entries(this.#below(entry));
    }
  }

  #below({ descriptor, platform, depth }: Entry): Entry[] {
    if (depth >= DEPTH_MAX) {
      throw new LaminaError('LIMIT_EXCEEDED', `its indexes are nested deeper than ${DEPTH_MAX} levels`);
    }
    let bytes: Buffer;
    try {
      bytes = this.#documents.read(descriptor, `the index ${descriptor.digest}`, MANIFEST_LIMIT);
    } catch (e) {
      if (!(e instanceof LaminaError) || e.code !== 'BLOB_MISSING') throw e;
      this.missing ??= e;
      return [];
    }
    return parseIndex(bytes, descriptor.mediaType).map((d) => ({
      descriptor: d,
      platform: d.platform ?? platform,
      depth: depth + 1,
    }));
  }
}

/** The manifests of a layout, in the order of its indexes, each once. */
export function allManifests(documents: Documents): Descriptor[] {
  const entries = distinct([...new Walk(documents).entries(topLevel(documents))]);
  return entries.map(({ descriptor }) => descriptor).filter(({ mediaType }) => isManifestType(mediaType));
}

/** The first of the best platform. One that does not say its platform is taken only when it is alone. */
function choosePlatform(images: readonly Entry[], wanted: Platform): Entry | undefined {
  const [only] = images;
  if (images.length === 1 && only?.platform === undefined) return only;
  for (const candidate of candidates(wanted)) {
    const found = images.find(({ platform }) => platform !== undefined && equalPlatforms(platform, candidate));
    if (found !== undefined) return found;
  }
  return undefined;
}

function noPlatform(images: readonly Entry[], wanted: Platform): LaminaError {
  if (images.length === 0) return new LaminaError('IMAGE_NOT_FOUND', 'its index has no image in it');
  const there = [...new Set(images.map(({ platform }) => (platform ? formatPlatform(platform) : 'unknown')))];
  const message = `there is no image for ${formatPlatform(wanted)} in it, only for ${list(there)}`;
  return new LaminaError('PLATFORM_NOT_FOUND', message, {
    hint: 'Choose another with --platform OS/ARCH[/VARIANT].',
    details: { wanted: formatPlatform(wanted), platforms: there.slice(0, LISTED_MAX) },
  });
}

function list(words: readonly string[]): string {
  const more = words.length - LISTED_MAX;
  return words.slice(0, LISTED_MAX).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

function notFound(code: 'TAG_NOT_FOUND' | 'IMAGE_NOT_FOUND', message: string, documents: Documents): LaminaError {
  const entries = topLevel(documents);
  const there = entries.length === 0 ? '; its index is empty' : `; there is:${lines(entries)}`;
  return new LaminaError(code, message + there, { details: { images: entries.slice(0, LISTED_MAX).map(describe) } });
}

function lines(entries: readonly Entry[]): string {
  const more = entries.length - LISTED_MAX;
  const shown = entries.slice(0, LISTED_MAX).map((entry) => `\n  ${describe(entry)}`);
  return shown.join('') + (more > 0 ? `\n  and ${more} more` : '');
}

function describe({ descriptor: { digest, annotations, mediaType }, platform }: Entry): string {
  const name = annotations[CONTAINERD_NAME] ?? annotations[REF_NAME] ?? '(no name)';
  const what = platform !== undefined ? formatPlatform(platform) : isIndexType(mediaType) ? 'index' : '';
  return `${name.slice(0, 300)}  ${digest.slice(0, 150)}  ${what}`.trimEnd();
}
