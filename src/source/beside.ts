/** What there is beside an image in its registry: what refers to its manifest. Asked once, and only when a layer is not known yet. */
import { existsSync } from 'node:fs';
import { parseDigest, type Digest } from '../digest/index.js';
import { toLaminaError } from '../errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { MANIFEST_LIMIT } from '../oci/limits.js';
import type { Store } from '../store/store.js';
import { embeddedBytes, verified } from './documents.js';
import { repositoryOf, type RegistryAccess } from './fetch/access.js';
import type { Fetcher } from './fetch/fetcher.js';
import type { Layer, ShippedPart } from './image.js';
import { LAMINA_ARTIFACT_TYPE, parseLaminaIndex, type LayerParts } from './lamina-index.js';
import { registryBlob, type Fetching } from './registry-documents.js';
import { ZTOC_LIMIT } from './soci/ztoc.js';
import { tableName } from './toc/place.js';
import { TRACE_LIMIT, parseTrace, type TracePart } from './trace.js';

export interface Beside {
  readonly referrers: readonly Descriptor[];
  /** What containers of the image have read first, elsewhere. */
  readonly trace: readonly TracePart[];
  /** What a Lamina index has of its layers, by the digests of their blobs. */
  readonly layers: ReadonlyMap<Digest, LayerParts<ShippedPart>>;
  /** Why something of it cannot be used. */
  readonly warnings: readonly string[];
}

/** Lamina indexes of one image that are read: the latest, where a list is kept by a tag. Each may have a part: the last counts. */
const INDEXES_MAX = 4;

const NOTHING: Beside = { referrers: [], trace: [], layers: new Map(), warnings: [] };

/** What fails is not needed, and becomes a warning. */
export async function findBeside(
  manifest: Digest,
  layers: readonly Pick<Layer, 'digest' | 'toc'>[],
  access: RegistryAccess,
  { fetcher, store }: Fetching,
): Promise<Beside> {
  if (access.offline === true || layers.every((layer) => isKnown({ ...layer, manifest }, access, store)))
    return NOTHING;
  let referrers: readonly Descriptor[];
  try {
    referrers = await fetcher.referrers(access, manifest);
  } catch (e) {
    return { ...NOTHING, warnings: [`what refers to it cannot be listed: ${toLaminaError(e).message}`] };
  }
  const warnings: string[] = [];
  const usable = <T>(part: Promise<T>): Promise<T | undefined> =>
    part.catch((e: unknown) => {
      warnings.push(`its Lamina index cannot be used: ${toLaminaError(e).message}`);
      return undefined;
    });
  const found = referrers.filter(({ artifactType }) => artifactType === LAMINA_ARTIFACT_TYPE).slice(-INDEXES_MAX);
  const read = found.map((index) => usable(readIndex(index, manifest, access, { fetcher, store })));
  const indexes = (await Promise.all(read)).filter((index) => index !== undefined);
  const traced = indexes.findLast(({ trace }) => trace !== undefined)?.trace;
  const trace = traced === undefined ? undefined : await usable(readTrace(traced, access, fetcher));
  return { referrers, trace: trace ?? [], layers: new Map(indexes.flatMap((index) => index.layers)), warnings };
}

interface ReadIndex {
  readonly trace: Descriptor | undefined;
  readonly layers: readonly (readonly [Digest, LayerParts<ShippedPart>])[];
}

async function readIndex(
  { digest }: Descriptor,
  image: Digest,
  access: RegistryAccess,
  { fetcher, store }: Fetching,
): Promise<ReadIndex> {
  const { bytes } = await fetcher.manifest(access, parseDigest(digest));
  const { trace, layers } = parseLaminaIndex(bytes.subarray(0, MANIFEST_LIMIT), image);
  const located = ({ digest: text, size }: Descriptor): ShippedPart => {
    const part = parseDigest(text);
    return { blob: registryBlob(part, size, access, store), digest: part };
  };
  const shipped = [...layers].map(([layer, { files, chunks, map }]) => {
    return [layer, { files: located(files), chunks: located(chunks), map: located(map) }] as const;
  });
  return { trace, layers: shipped };
}

/** All are asked for at once, before the thread that reads one after the other comes to them. Nobody waits for it; who reads them does. */
export function beginParts(parts: LayerParts<ShippedPart>, fetcher: Fetcher): void {
  for (const { blob } of Object.values(parts)) {
    if (blob.kind === 'registry' && blob.size <= ZTOC_LIMIT)
      void fetcher.want(blob, 0, blob.size).catch(() => undefined);
  }
}

async function readTrace(trace: Descriptor, access: RegistryAccess, fetcher: Fetcher): Promise<TracePart[]> {
  const digest = parseDigest(trace.digest);
  const what = 'the trace';
  const embedded = embeddedBytes(trace, digest, what);
  return parseTrace(embedded ?? verified(await fetcher.document(access, digest, TRACE_LIMIT, what), digest, what));
}

/** Whether an index of a layer, of whatever kind, is in the store. */
export function isKnown(
  { digest, toc, manifest }: Pick<Layer, 'digest' | 'toc' | 'manifest'>,
  access: RegistryAccess,
  store: Store,
): boolean {
  if (digest === undefined) return false;
  const table = toc === undefined ? undefined : tableName(toc);
  return [
    store.mapPath(digest),
    ...(table === undefined ? [] : [store.tocDirectory(digest, table), store.tocDirectory(digest, table, 'estargz')]),
    ...(manifest === undefined ? [] : [store.sociDirectory(digest, true, manifest)]),
    store.sociDirectory(digest, false, repositoryOf(access)),
    store.shippedDirectory(digest, repositoryOf(access)),
  ].some((path) => existsSync(path));
}
