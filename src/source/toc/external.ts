/**
 * Tables of contents of eStargz layers that bring none (stargz-snapshotter, docs/estargz.md, "eStargz image with an external
 * TOC"): each is a layer of another image of the same repository, whose tag is this one's with a suffix. What binds a table is,
 * as ever, the digest in the annotation of the layer that it is for.
 */
import { parseDigest, type Digest } from '../../digest/index.js';
import { toLaminaError } from '../../errors.js';
import type { Platform } from '../../oci/platform.js';
import { isKnown } from '../beside.js';
import type { BlobLocation } from '../blob.js';
import { hasExternalFooter } from '../estargz.js';
import type { RegistryAccess } from '../fetch/access.js';
import type { Image, Layer } from '../image.js';
import { readManifest } from '../oci-image.js';
import {
  digestedBytes,
  fetchingDocuments,
  keepDocument,
  registryBlob,
  RegistryDocuments,
  type Fetching,
} from '../registry-documents.js';
import { selectManifest } from '../select.js';

const SUFFIX = '-esgztoc';
/** Of the other image's layers: which layer's table it is. */
const LAYER_DIGEST = 'containerd.io/snapshot/stargz/layer.digest';

/** The image, with the places of tables that its layers lack. Those that cannot be found become a warning. */
export async function withExternalTocs(
  image: Image,
  { tag, platform }: { readonly tag: string | undefined; readonly platform: Platform },
  access: RegistryAccess,
  fetching: Fetching,
): Promise<Image> {
  const lacks = (layer: Layer): boolean =>
    layer.toc?.format === 'estargz' && !isKnown(layer, access, fetching.store) && hasExternalFooter(layer.blob);
  if (access.offline === true || !image.layers.some(lacks)) return image;
  const warning = (why: string): Image => {
    const text = `its tables of contents, which are in another image, cannot be had: ${why}`;
    return { ...image, warnings: [...image.warnings, text] };
  };
  if (tag === undefined) return warning('that is found by the tag');
  try {
    const tables = await findTables(`${tag}${SUFFIX}`, platform, access, fetching);
    const layers = image.layers.map((layer): Layer => {
      const externalToc = layer.digest === undefined || !lacks(layer) ? undefined : tables.get(layer.digest);
      return externalToc === undefined ? layer : { ...layer, externalToc };
    });
    return { ...image, layers };
  } catch (e) {
    return warning(toLaminaError(e).message);
  }
}

/** By the digest of the layer that they are for. */
async function findTables(
  tag: string,
  platform: Platform,
  access: RegistryAccess,
  fetching: Fetching,
): Promise<ReadonlyMap<Digest, BlobLocation>> {
  const found = await fetching.fetcher.manifest(access, tag);
  const bytes = digestedBytes(found);
  const { mediaType, digest } = found;
  keepDocument(fetching.store, digest, bytes);
  const documents = new RegistryDocuments({ mediaType, digest, size: bytes.length }, access, fetching.store);
  const { layers } = await fetchingDocuments(
    () => readManifest(documents, selectManifest(documents, { platform }).descriptor),
    access,
    fetching,
  );
  return new Map(
    layers.flatMap(({ digest: text, size, annotations }) => {
      const of = annotations[LAYER_DIGEST];
      if (of === undefined) return [];
      return [[parseDigest(of), registryBlob(parseDigest(text), size, access, fetching.store)] as const];
    }),
  );
}
