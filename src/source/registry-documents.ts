/** The documents of a registry's image: read from the store only. What is not there is fetched, and the reading begun again. */
import { readFileSync } from 'node:fs';
import { parseDigest, type Digest } from '../digest/index.js';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { MANIFEST_LIMIT, tooLarge } from '../oci/limits.js';
import type { Manifest } from '../oci/manifest.js';
import { isSchema1Type } from '../oci/media-types.js';
import type { Store } from '../store/store.js';
import type { BlobLocation } from './blob.js';
import { embeddedBytes, embeddedLocation, verified, type Documents } from './documents.js';
import { endOf, isEndAtHand, saysEstargz } from './estargz.js';
import { layerLimit } from './limits.js';
import type { RegistryAccess } from './fetch/access.js';
import type { Fetcher } from './fetch/fetcher.js';
import type { FetchedManifest } from './registry/manifests.js';
import { signedPayload } from './registry/schema1.js';

export interface Fetching {
  readonly fetcher: Fetcher;
  readonly store: Store;
  /** Nobody waits any more. */
  readonly signal?: AbortSignal | undefined;
}

/** A document that the store does not have, or has damaged. */
export class Missing extends Error {
  override readonly name = 'Missing';
  readonly descriptor: Descriptor;
  readonly what: string;

  constructor(descriptor: Descriptor, what: string) {
    super(`${what} is not in the store`);
    this.descriptor = descriptor;
    this.what = what;
  }
}

/** What a descriptor may say and none of ours does. */
export const unsaid = { data: undefined, urls: [], annotations: {}, platform: undefined, artifactType: undefined };

export class RegistryDocuments implements Documents {
  readonly entries: readonly Descriptor[];
  readonly #access: RegistryAccess;
  readonly #store: Store;

  /** `top`: what the reference means. */
  constructor(top: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>, access: RegistryAccess, store: Store) {
    const { mediaType, digest, size } = top;
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
    return registryBlob(digest, descriptor.size, this.#access, this.#store);
  }
}

/** How often a document is fetched: the store may have had a damaged one. */
const FETCHES_MAX = 2;

/**
 * Does what reads documents; those that it turns out to need are fetched, and it is begun again. Throws what that throws,
 * STORE_CORRUPT where the store loses a document at once, and the reason of the signal.
 */
export async function fetchingDocuments<T>(
  work: () => T | Promise<T>,
  access: RegistryAccess,
  fetching: Fetching,
): Promise<T> {
  const fetches = new Map<string, number>();
  for (;;) {
    try {
      return await work();
    } catch (e) {
      if (!(e instanceof Missing)) throw e;
      fetching.signal?.throwIfAborted();
      const { digest } = e.descriptor;
      const before = fetches.get(digest) ?? 0;
      if (before === FETCHES_MAX) throw lost(e);
      fetches.set(digest, before + 1);
      await fetchDocument(e, access, fetching);
    }
  }
}

/** Brings what `read` would miss into the store. Throws what `read` throws else, and what fetching throws. */
export async function fetchAhead(read: () => unknown, access: RegistryAccess, fetching: Fetching): Promise<void> {
  try {
    read();
  } catch (e) {
    if (!(e instanceof Missing)) throw e;
    await fetchDocument(e, access, fetching);
  }
}

/** Throws LIMIT_EXCEEDED for more bytes than a layer may have. */
export function registryBlob(
  digest: Digest,
  size: number,
  access: RegistryAccess,
  store: Store,
): BlobLocation & { readonly kind: 'registry' } {
  const limit = layerLimit();
  // Of what has no bound the store could not even keep a map.
  if (size > limit) throw tooLarge(`the blob ${digest}`, size, limit);
  return { kind: 'registry', path: store.partialPath(digest, size), offset: 0, size, digest, access };
}

function lost({ what, descriptor: { digest } }: Missing): LaminaError {
  return new LaminaError('STORE_CORRUPT', `${what} was fetched ${FETCHES_MAX} times and is not right in the store`, {
    details: { digest },
  });
}

/** Throws REGISTRY_*, BLOB_MISSING, BLOB_SIZE_MISMATCH, BLOB_DIGEST_MISMATCH. */
async function fetchDocument(
  { descriptor, what }: Missing,
  access: RegistryAccess,
  { fetcher, store }: Fetching,
): Promise<void> {
  const digest = parseDigest(descriptor.digest);
  if (access.offline === true) {
    throw new LaminaError('BLOB_MISSING', `${what} is not in the store, and the registry must not be asked`, {
      hint: 'Use the image once without --offline.',
      details: { digest },
    });
  }
  const isManifest = /manifest|index/.test(descriptor.mediaType);
  const bytes = isManifest
    ? digestedBytes(await fetcher.manifest(access, digest))
    : await fetcher.document(access, digest, Math.max(descriptor.size, MANIFEST_LIMIT), what);
  if (bytes.length !== descriptor.size) {
    throw new LaminaError('BLOB_SIZE_MISMATCH', `${what} has ${bytes.length} bytes, not ${descriptor.size}`, {
      details: { digest, wanted: descriptor.size, got: bytes.length },
    });
  }
  keepDocument(store, digest, verified(bytes, digest, what));
}

/** What the digest of a manifest is of: of a signed one only what is signed. Nothing else of it is kept. */
export function digestedBytes({ bytes, mediaType }: Pick<FetchedManifest, 'bytes' | 'mediaType'>): Buffer {
  return isSchema1Type(mediaType) ? Buffer.from(signedPayload(bytes)) : bytes;
}

/**
 * How a gzip layer ends tells whether it is an eStargz, which tools do not always say. What the registry does not have is not
 * known, and neither is what must not be asked for; any other failure is thrown, where no annotation tells it either: with the
 * network of another day the same image would be another tree. Throws REGISTRY_*, PERMISSION_DENIED, DISK_FULL, IO.
 */
export async function fetchFooters(
  { layers }: Pick<Manifest, 'layers'>,
  documents: Pick<Documents, 'locate'>,
  { fetcher }: Fetching,
): Promise<void> {
  const footers = layers
    .filter(({ mediaType }) => mediaType.endsWith('gzip'))
    .map(async (layer) => {
      const blob = documents.locate(layer, `the layer ${layer.digest}`);
      if (blob.kind !== 'registry' || isEndAtHand(blob)) return;
      await fetcher.want(blob, endOf(blob).offset, blob.size).catch((e: unknown) => {
        const { code } = toLaminaError(e);
        if (!saysEstargz(layer.annotations) && code !== 'BLOB_MISSING' && code !== 'BLOB_SIZE_MISMATCH') throw e;
      });
    });
  await Promise.all(footers);
}

export function keepDocument(store: Store, digest: Digest, bytes: Buffer): void {
  store.keep(store.blobPath(digest), [bytes]);
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
