/**
 * An image of a registry. Its documents are kept in the store, and so is what the reference meant last, so that an image
 * that was there once needs the registry no more. Layers are only located: who reads them has them fetched.
 */
import { z } from 'zod';
import { parseDigest, type Digest } from '../digest/index.js';
import { LaminaError, toLaminaError } from '../errors.js';
import type { Manifest } from '../oci/manifest.js';
import { isSchema1Type } from '../oci/media-types.js';
import type { Platform } from '../oci/platform.js';
import { beginParts, findBeside, isKnown, type Beside } from './beside.js';
import type { PullPolicy, RegistryAccess } from './fetch/access.js';
import type { Image, Layer } from './image.js';
import { ociImage, readConfig, readManifest } from './oci-image.js';
import type { RegistryReference } from './reference.js';
import { recall, remember } from './remembered.js';
import {
  digestedBytes,
  fetchAhead,
  fetchFooters,
  fetchingDocuments,
  keepDocument,
  registryBlob,
  RegistryDocuments,
  type Fetching,
} from './registry-documents.js';
import { schema1Image } from './schema1-image.js';
import { selectManifest } from './select.js';
import { withZtocs } from './soci/find.js';
import { namedSociIndex } from './soci/index-manifest.js';
import { LAYER_MIN } from './soci/write-ztoc.js';
import { beginTable } from './toc/ahead.js';
import { withExternalTocs } from './toc/external.js';
import { tocPlaceOf } from './toc/place.js';

export interface RegistrySource extends Fetching {
  readonly pull: PullPolicy;
  /** Everything of {@link RegistryAccess} but whose it is. */
  readonly access: Omit<RegistryAccess, 'host' | 'repository'>;
  /** Called before a registry is asked what a reference means: an image that nobody knows may follow. */
  readonly onAsk?: (() => void) | undefined;
}

/** What a reference meant: the index or manifest that it named. */
const resolution = z.object({ reference: z.string(), mediaType: z.string(), digest: z.string(), size: z.int().min(0) });
type Resolution = z.infer<typeof resolution>;

/** Throws what {@link ociImage}, {@link schema1Image} and {@link selectManifest} throw, and REGISTRY_*; IMAGE_NOT_FOUND where nobody may be asked. */
export async function registryImage(
  reference: RegistryReference,
  platform: Platform,
  source: RegistrySource | undefined,
): Promise<Image> {
  if (source === undefined) throw new LaminaError('INTERNAL', 'Nothing is there to ask a registry with');
  const { host, repository } = reference;
  const access = { ...source.access, host, repository };
  const top = await resolve(reference, access, source);
  const documents = new RegistryDocuments(top, access, source.store);
  const tag = reference.tag ?? (reference.digest === undefined ? 'latest' : undefined);
  let beside: Promise<Beside> | undefined;
  const read = async (): Promise<Image> => {
    if (isSchema1Type(top.mediaType)) {
      return schema1Image(documents, access, source, { reference: reference.text, platform });
    }
    const { descriptor, platform: said, warnings } = selectManifest(documents, { platform });
    const manifest = readManifest(documents, descriptor);
    const digest = parseDigest(descriptor.digest);
    beside ??= findBeside(digest, layersOf(manifest), access, source);
    await Promise.all([
      fetchFooters(manifest, documents, source),
      fetchAhead(() => readConfig(documents, manifest), access, source),
    ]);
    const expected = { reference: reference.text, platform: said, wanted: platform, warnings };
    const image = ociImage(documents, descriptor, expected);
    for (const layer of image.layers) {
      if (layer.toc !== undefined && !isKnown(layer, access, source.store))
        beginTable(layer.blob, layer.toc, source.fetcher);
    }
    const complete = await withExternalTocs(image, { tag, platform }, access, source);
    return withIndexes(complete, digest, await beside, { access, source });
  };
  return fetchingDocuments(read, access, source);
}

function layersOf({ layers }: Pick<Manifest, 'layers'>): Pick<Layer, 'digest' | 'toc'>[] {
  return layers.map(({ digest, mediaType, annotations }) => ({
    digest: parseDigest(digest),
    toc: tocPlaceOf(mediaType, annotations),
  }));
}

async function resolve(
  reference: RegistryReference,
  access: RegistryAccess,
  source: RegistrySource,
): Promise<Resolution> {
  const { store, pull } = source;
  const before = recall(store, resolution, reference.text);
  // A digest means the same for ever.
  const askAgain = pull === 'always' && reference.digest === undefined;
  if (before !== undefined && (!askAgain || access.offline === true)) return before;
  if (access.offline === true || pull === 'never') {
    throw new LaminaError('IMAGE_NOT_FOUND', 'it has not been used here before, and the registry must not be asked', {
      hint: 'Use it once without --offline and --pull never.',
    });
  }
  source.onAsk?.();
  const name = reference.digest ?? reference.tag ?? 'latest';
  const fetched = await source.fetcher.manifest(access, name);
  const { mediaType, digest } = fetched;
  const bytes = digestedBytes(fetched);
  keepDocument(store, digest, bytes);
  const now: Resolution = { reference: reference.text, mediaType, digest, size: bytes.length };
  remember(store, now);
  return now;
}

/** With what a Lamina index has; and with the ztocs of a SOCI index, where there are layers that are worth it and about which nothing is known yet. */
async function withIndexes(
  image: Image,
  manifest: Digest,
  { referrers, trace, layers: shippedOf, warnings }: Beside,
  { access, source }: { readonly access: RegistryAccess; readonly source: RegistrySource },
): Promise<Image> {
  const { fetcher, store } = source;
  const withShipped = (layer: Layer): Layer => {
    const shipped = layer.digest === undefined || layer.toc !== undefined ? undefined : shippedOf.get(layer.digest);
    return shipped === undefined ? layer : { ...layer, shipped };
  };
  const layers = image.layers.map(withShipped);
  const known = { ...image, layers, trace, warnings: [...image.warnings, ...warnings] };
  if (access.offline === true) return known;
  const wanting = layers.filter((layer) => layer.toc === undefined && !isKnown(layer, access, store));
  // An index of SOCI that the image does not name is no better.
  const isNamed = namedSociIndex(image.annotations) !== undefined;
  if (!isNamed) for (const { shipped } of wanting) if (shipped !== undefined) beginParts(shipped, fetcher);
  if (!wanting.some(({ size, shipped }) => size >= LAYER_MIN && (isNamed || shipped === undefined))) return known;
  try {
    return await withZtocs(known, manifest, {
      fetcher,
      access,
      referrers,
      locate: (digest, size) => registryBlob(digest, size, access, store),
    });
  } catch (e) {
    // The layers can be had without.
    const { message } = toLaminaError(e);
    return { ...known, warnings: [...known.warnings, `its SOCI index cannot be used: ${message}`] };
  }
}
