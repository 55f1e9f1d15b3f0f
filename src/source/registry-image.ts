/**
 * An image of a registry. Its documents are kept in the store, and so is what the reference meant last, so that an image
 * that was there once needs the registry no more. Layers are only located: who reads them has them fetched.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync, renameSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';
import { parseDigest, sha256, type Digest } from '../digest/index.js';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { MANIFEST_LIMIT, tooLarge } from '../oci/json.js';
import { schema1Error, type Manifest } from '../oci/manifest.js';
import { isSchema1Type } from '../oci/media-types.js';
import type { Platform } from '../oci/platform.js';
import { publish, writeDurably, type Store } from '../store/store.js';
import { openBlob, type BlobLocation } from './blob.js';
import { embeddedBytes, embeddedLocation, verified, type Documents } from './documents.js';
import { FOOTER_MAX } from './estargz.js';
import type { RegistryAccess } from './fetch/access.js';
import type { Fetcher } from './fetch/fetcher.js';
import type { Image, Layer } from './image.js';
import { ociImage, readManifest } from './oci-image.js';
import type { RegistryReference } from './reference.js';
import { selectManifest } from './select.js';
import { withZtocs } from './soci/find.js';
import { LAYER_MIN } from './soci/write-ztoc.js';

/**
 * When the registry is asked what a reference means: each time; where it was not asked before; or never. Podman's words,
 * and Docker's.
 */
export const pullPolicies = ['always', 'missing', 'never'] as const;
export type PullPolicy = (typeof pullPolicies)[number];

export interface RegistrySource {
  readonly fetcher: Fetcher;
  readonly store: Store;
  readonly pull: PullPolicy;
  /** Everything of {@link RegistryAccess} but whose it is. */
  readonly access: Omit<RegistryAccess, 'host' | 'repository'>;
}

/** What a reference meant: the index or manifest that it named. */
const resolution = z.object({ reference: z.string(), mediaType: z.string(), digest: z.string(), size: z.int().min(0) });
type Resolution = z.infer<typeof resolution>;

/** Throws what {@link ociImage} and {@link selectManifest} throw, and REGISTRY_*; IMAGE_NOT_FOUND where nobody may be asked. */
export async function registryImage(
  reference: RegistryReference,
  platform: Platform,
  source: RegistrySource | undefined,
): Promise<Image> {
  if (source === undefined) throw new LaminaError('INTERNAL', 'Nothing is there to ask a registry with');
  const { host, repository } = reference;
  const access = { ...source.access, host, repository };
  const top = await resolve(reference, access, source);
  if (isSchema1Type(top.mediaType)) throw schema1Error();
  const documents = new RegistryDocuments(top, access, source.store);
  // The documents that the work turns out to need are fetched, and it is begun again.
  for (;;) {
    try {
      const { descriptor, platform: said, warnings } = selectManifest(documents, { platform });
      await fetchFooters(readManifest(documents, descriptor), documents, source);
      const expected = { reference: reference.text, platform: said, wanted: platform, warnings };
      const image = ociImage(documents, descriptor, expected);
      return await withIndexes(image, parseDigest(descriptor.digest), access, source);
    } catch (e) {
      if (!(e instanceof Missing)) throw e;
      await fetchDocument(e, access, source);
    }
  }
}

async function resolve(
  reference: RegistryReference,
  access: RegistryAccess,
  source: RegistrySource,
): Promise<Resolution> {
  const { store, pull } = source;
  const path = store.refPath(sha256(Buffer.from(reference.text)).toString('hex'));
  const before = readResolution(path, reference.text);
  // A digest means the same for ever.
  const askAgain = pull === 'always' && reference.digest === undefined;
  if (before !== undefined && (!askAgain || access.offline === true)) return before;
  if (access.offline === true || pull === 'never') {
    throw new LaminaError('IMAGE_NOT_FOUND', 'it has not been used here before, and the registry must not be asked', {
      hint: 'Use it once without --offline and --pull never.',
    });
  }
  const name = reference.digest ?? reference.tag ?? 'latest';
  const { bytes, mediaType, digest } = await source.fetcher.manifest(access, name);
  keepDocument(store, digest, bytes);
  const now: Resolution = { reference: reference.text, mediaType, digest, size: bytes.length };
  const temporary = store.temporary();
  writeFileSync(temporary, JSON.stringify(now), { mode: 0o600 });
  renameSync(temporary, path);
  return now;
}

/** One that cannot be read is as good as none. */
function readResolution(path: string, reference: string): Resolution | undefined {
  try {
    const found = resolution.parse(JSON.parse(readFileSync(path, 'utf8')));
    return found.reference === reference ? found : undefined;
  } catch {
    return undefined;
  }
}

/** A document that the store does not have, or has damaged. */
class Missing extends Error {
  override readonly name = 'Missing';
  readonly descriptor: Descriptor;
  readonly what: string;

  constructor(descriptor: Descriptor, what: string) {
    super(`${what} is not in the store`);
    this.descriptor = descriptor;
    this.what = what;
  }
}

class RegistryDocuments implements Documents {
  readonly entries: readonly Descriptor[];
  readonly #access: RegistryAccess;
  readonly #store: Store;

  constructor({ mediaType, digest, size }: Resolution, access: RegistryAccess, store: Store) {
    const unsaid = { data: undefined, urls: [], annotations: {}, platform: undefined, artifactType: undefined };
    this.entries = [{ mediaType, digest, size, ...unsaid }];
    this.#access = access;
    this.#store = store;
  }

  read(descriptor: Descriptor, what: string, limit: number): Buffer {
    if (descriptor.size > limit) throw tooLarge(what, descriptor.size, limit);
    const digest = parseDigest(descriptor.digest);
    const bytes = embeddedBytes(descriptor, digest, what) ?? keptDocument(this.#store, digest, descriptor.size);
    if (bytes === undefined) throw new Missing(descriptor, what);
    return bytes;
  }

  locate(descriptor: Descriptor, what: string): BlobLocation {
    const digest = parseDigest(descriptor.digest);
    const embedded = embeddedBytes(descriptor, digest, what);
    if (embedded !== undefined) return embeddedLocation(embedded, digest);
    const path = this.#store.blobPath(digest);
    return { kind: 'registry', path, offset: 0, size: descriptor.size, digest, access: this.#access };
  }
}

/** Throws REGISTRY_*, BLOB_MISSING, BLOB_SIZE_MISMATCH, BLOB_DIGEST_MISMATCH. */
async function fetchDocument(
  { descriptor, what }: Missing,
  access: RegistryAccess,
  source: RegistrySource,
): Promise<void> {
  const digest = parseDigest(descriptor.digest);
  if (access.offline === true) {
    throw new LaminaError('BLOB_MISSING', `${what} is not in the store, and the registry must not be asked`, {
      hint: 'Use the image once without --offline.',
      details: { digest },
    });
  }
  const { fetcher, store } = source;
  const isManifest = /manifest|index/.test(descriptor.mediaType);
  const bytes = isManifest
    ? (await fetcher.manifest(access, digest)).bytes
    : await fetcher.document(access, digest, Math.max(descriptor.size, MANIFEST_LIMIT), what);
  if (bytes.length !== descriptor.size) {
    throw new LaminaError('BLOB_SIZE_MISMATCH', `${what} has ${bytes.length} bytes, not ${descriptor.size}`, {
      details: { digest, wanted: descriptor.size, got: bytes.length },
    });
  }
  keepDocument(store, digest, verified(bytes, digest, what));
}

/** With the ztocs of a SOCI index, where there are layers that are worth it and about which nothing is known yet. */
async function withIndexes(
  image: Image,
  manifest: Digest,
  access: RegistryAccess,
  source: RegistrySource,
): Promise<Image> {
  const { fetcher, store } = source;
  const isUnknown = ({ digest, size, toc }: Layer): boolean =>
    toc === undefined &&
    size >= LAYER_MIN &&
    digest !== undefined &&
    ![store.mapPath(digest), ...[true, false].map((bound) => store.sociDirectory(digest, bound))].some((path) =>
      existsSync(path),
    );
  if (access.offline === true || !image.layers.some(isUnknown)) return image;
  try {
    return await withZtocs(image, manifest, { fetcher, access, pathOf: (digest) => store.blobPath(digest) });
  } catch (e) {
    // The layers can be had without.
    const { message } = toLaminaError(e);
    return { ...image, warnings: [...image.warnings, `its SOCI index cannot be used: ${message}`] };
  }
}

/** How a gzip layer ends tells whether it is an eStargz, which tools do not always say. What cannot be had is not known. */
async function fetchFooters({ layers }: Manifest, documents: Documents, { fetcher }: RegistrySource): Promise<void> {
  const footers = layers
    .filter(({ mediaType }) => mediaType.endsWith('gzip'))
    .map((layer) => documents.locate(layer, `the layer ${layer.digest}`))
    .map(async (blob) => {
      const start = Math.max(blob.size - FOOTER_MAX, 0);
      if (blob.kind !== 'registry' || isAtHand(blob, start)) return;
      await fetcher.want(blob, start, blob.size).catch(() => undefined);
    });
  await Promise.all(footers);
}

function isAtHand(location: BlobLocation, start: number): boolean {
  const blob = openBlob(location);
  try {
    return blob.has(start, blob.size - start);
  } finally {
    blob.close();
  }
}

function keepDocument(store: Store, digest: Digest, bytes: Buffer): void {
  const path = store.blobPath(digest);
  const temporary = store.temporary();
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeDurably(temporary, [bytes]);
    publish(temporary, path);
  } catch (e) {
    throw toLaminaError(e, `Cannot keep ${path}`);
  }
}

/** Undefined where it is not there, or not right. */
function keptDocument(store: Store, digest: Digest, size: number): Buffer | undefined {
  try {
    const bytes = readFileSync(store.blobPath(digest));
    return bytes.length === size ? verified(bytes, digest, 'a document') : undefined;
  } catch (e) {
    if (errnoOf(e) === 'ENOENT' || (e instanceof LaminaError && e.code === 'BLOB_DIGEST_MISMATCH')) return undefined;
    throw toLaminaError(e, 'Cannot read the store');
  }
}
