/**
 * From an image to what a mount or a browser needs: every layer indexed, the layers' trees merged. Both are done once
 * and kept in the store, so the second time nothing is left to do.
 */
import { setMaxListeners } from 'node:events';
import { basename, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { createHasher, sha256, type Digest } from '../digest/index.js';
import { LaminaError, toLaminaError } from '../errors.js';
import { openBlob, type BlobLocation } from '../source/blob.js';
import type { Image, Layer } from '../source/image.js';
import type { Fetcher } from '../source/fetch/fetcher.js';
import type { WantedPart } from '../source/fetch/protocol.js';
import { whileFetching } from '../source/fetch/whole.js';
import { layerLimit } from '../source/limits.js';
import { FETCHED_MAX, requestsOf, usedOf, type TracePart } from '../source/trace.js';
import type { IndexedToc } from '../layer/toc-pass.js';
import { isSealed } from '../store/sealed.js';
import type { Store } from '../store/store.js';
import type { Compat } from '../union/merge.js';
import type { MergeJob } from './merge.js';
import {
  isWhole,
  known,
  knownFromElsewhere,
  plainDigest,
  shippedDirectoryOf,
  sociDirectoryOf,
  tocDirectoryOf,
  type Known,
  type PreparedLayer,
} from './known-layer.js';
import { PrepareThreads } from './prepare-threads.js';
import type { OnProgress } from './progress.js';

export interface PreparedImage {
  readonly image: Image;
  /** The merged tree: an EROFS image whose device N is layer N, base 1. */
  readonly treePath: string;
  readonly layers: readonly PreparedLayer[];
  /** What was odd but not wrong in the layers that were indexed now; of the others it has been said before. */
  readonly notes: readonly string[];
}

export interface PrepareOptions {
  readonly store: Store;
  readonly compat: Compat;
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
  /** For images of registries. */
  readonly fetcher?: Fetcher | undefined;
  /** Whether what containers of the image read first shall be fetched before it is read. */
  readonly prefetches?: boolean | undefined;
  /** Whether a runtime's config is to be made, which depends on files of the image. */
  readonly configures?: boolean | undefined;
}

/** Part of every tree's key: a change of the merge or of the writer must not meet the trees of before. */
const TREE_FORMAT = 6;

/**
 * An index that turns out to be damaged, or has lost a file, is made anew. Throws what indexing and merging throw, with the layer
 * named; an AbortError when `signal` says so.
 */
export async function prepareImage(image: Image, options: PrepareOptions): Promise<PreparedImage> {
  const { onProgress, signal, store } = options;
  signal?.throwIfAborted();
  const total = image.layers.reduce((n, layer) => n + layer.size, 0);
  onProgress?.({ type: 'resolved', reference: image.reference, layers: image.layers.length, bytes: total });
  if (options.prefetches === true) prefetch(image, options.fetcher);
  const removed = new Set<string>();
  for (;;) {
    try {
      const prepared = await prepareOnce(image, options);
      const healed = [...removed].map((path) => `${path} was damaged, and has been made anew`);
      return { ...prepared, notes: [...healed, ...prepared.notes] };
    } catch (e) {
      const path = e instanceof LaminaError && e.code === 'STORE_CORRUPT' ? e.details['path'] : undefined;
      const damaged = typeof path === 'string' ? store.removeIndex(path) : undefined;
      if (damaged === undefined || removed.has(damaged)) throw e;
      removed.add(damaged);
    }
  }
}

async function prepareOnce(image: Image, options: PrepareOptions): Promise<PreparedImage> {
  const threads = new PrepareThreads(options.fetcher);
  const layers = await prepareLayers(image, threads, options);
  options.signal?.throwIfAborted();
  const treePath = await mergedTree(
    image,
    layers.map(({ prepared }) => prepared),
    threads,
    options,
  );
  const notes = layers.flatMap(({ notes: found, prepared }, i) =>
    prepared.cached ? [] : found.map((note) => `layer ${i + 1}: ${note}`),
  );
  return { image, treePath, layers: layers.map(({ prepared }) => prepared), notes };
}

/** Begins to fetch what containers of the image read first. Nobody waits for it; who reads it does, and is told when it fails. */
function prefetch({ layers, trace = [] }: Image, fetcher: Fetcher | undefined): void {
  const blobs = new Map(layers.flatMap(({ blob }) => (blob.kind === 'registry' ? [[blob.digest, blob] as const] : [])));
  const sizes = new Map([...blobs].map(([digest, { size }]) => [digest, size]));
  const located = (parts: readonly TracePart[]): WantedPart[] =>
    parts.flatMap(({ blob: digest, start, end }) => {
      const blob = blobs.get(digest);
      return blob === undefined ? [] : [{ blob, start, end }];
    });
  void fetcher?.prefetch(located(requestsOf(trace, sizes)), located(usedOf(trace, sizes))).catch(() => undefined);
}

/** Names a layer's tree as it is in the store. */
export function layerKey({ diffId, view }: Layer): string {
  return view === undefined ? diffId : `${diffId} ${view}`;
}

/** Names what an image uses of a layer. */
function usedLayerKey({ whitelists = [] }: Layer, { directory }: PreparedLayer): string {
  const name = basename(directory);
  if (whitelists.length === 0) return name;
  return `${name} ${sha256(Buffer.from(JSON.stringify(whitelists))).toString('hex')}`;
}

async function prepareLayers(
  image: Image,
  threads: PrepareThreads,
  { store, onProgress, signal, fetcher, prefetches, configures }: PrepareOptions,
): Promise<Known[]> {
  const cancel = new AbortController();
  // Every layer that waits for its turn listens to it.
  setMaxListeners(0, cancel.signal);
  const stop = (): void => cancel.abort(signal?.reason);
  signal?.addEventListener('abort', stop, { once: true });
  const traced = new Set(image.trace?.map(({ blob }) => blob));
  /** A layer that comes twice is indexed once. */
  const jobs = new Map<string, Promise<Known>>();
  const prepareLayer = async (layer: Layer, index: number): Promise<Known> => {
    const report = (state: 'cached' | 'indexing' | 'indexed' | 'lazy', done: number): void =>
      onProgress?.({ type: 'layer', layer: index, diffId: layer.diffId, state, done, total: layer.size });
    try {
      const digest = layer.digest ?? plainDigest(layer) ?? (await hashBlob(layer.blob));
      const before = known(layer, digest, store);
      if (before !== undefined) {
        report('cached', layer.size);
        return before;
      }
      const lazy = await prepareLazily(layer, store, threads, {
        // A trace tells more than a landmark.
        landmark: prefetches === true && !traced.has(digest) ? fetcher : undefined,
        accounts: configures === true ? fetcher : undefined,
        signal: cancel.signal,
      });
      if ('prepared' in lazy) {
        report(lazy.prepared.cached ? 'cached' : 'lazy', 0);
        return lazy;
      }
      report('indexing', 0);
      const job = {
        blob: layer.blob,
        digest,
        diffId: layer.diffId,
        view: layer.view,
        temporary: store.temporary(),
        layerDirectory: store.layerDirectory(layer.diffId, layer.view),
        mapDirectory: join(store.path, 'maps'),
        streamLimit: layerLimit(),
      };
      const onBytes = (done: number): void => report('indexing', done);
      const index = (): Promise<unknown> => threads.index(job, { onProgress: onBytes, signal: cancel.signal });
      if (layer.blob.kind !== 'registry') await index();
      else if (fetcher !== undefined) await whileFetching(layer.blob, fetcher, cancel.signal, index);
      else throw new LaminaError('INTERNAL', 'Nothing is there to fetch a layer with');
      const now = known(layer, digest, store);
      if (now === undefined) throw new LaminaError('INTERNAL', 'The index is not in the store');
      report('indexed', layer.size);
      return { prepared: { ...now.prepared, cached: false }, notes: [...lazy.notes, ...now.notes] };
    } catch (e) {
      // What fails first is what is reported; it makes the others stop.
      if (!cancel.signal.aborted) cancel.abort(named(e, image, index));
      throw e;
    }
  };
  try {
    const all = image.layers.map((layer, index) => {
      const key = layerKey(layer);
      let job = jobs.get(key);
      if (job === undefined) jobs.set(key, (job = prepareLayer(layer, index)));
      return job;
    });
    const settled = await Promise.allSettled(all);
    cancel.signal.throwIfAborted();
    return settled.flatMap((s) => (s.status === 'fulfilled' ? [s.value] : []));
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/** What makes an index from elsewhere useless, but not the layer. */
const TOC_FAILURES = /^(?:LIMIT_EXCEEDED|BLOB_DIGEST_MISMATCH|COMPRESSION_\w+|TAR_\w+|[A-Z]+_INVALID)$/;

/** Who fetches, where it shall be done: what is before a landmark, and what the users of the image are looked up in. */
interface Ahead {
  readonly landmark: Fetcher | undefined;
  readonly accounts: Fetcher | undefined;
  readonly signal: AbortSignal;
}

/** By an index from elsewhere; where there is none, or none that can be used, only notes on why. */
async function prepareLazily(
  layer: Layer,
  store: Store,
  threads: PrepareThreads,
  ahead: Ahead,
): Promise<Known | { readonly notes: readonly string[] }> {
  const { signal } = ahead;
  const { blob, diffId, digest, size, soci, toc, externalToc, shipped, view } = layer;
  const before = knownFromElsewhere(layer, store);
  if (before !== undefined) return before;
  const provisional = !isWhole(layer);
  const parts = provisional ? shipped : undefined;
  const ztoc = soci?.bound === false && (!provisional || parts !== undefined) ? undefined : soci;
  if (digest === undefined || (toc === undefined && ztoc === undefined && parts === undefined)) return { notes: [] };
  const temporary = store.temporary();
  try {
    const tables = tocDirectoryOf(layer, store);
    const byZtoc = ztoc === undefined ? undefined : sociDirectoryOf(layer, ztoc.bound, store);
    const byParts = shippedDirectoryOf(layer, store);
    if (toc !== undefined && tables !== undefined) {
      const job = { toc, external: externalToc, blob, view, temporary, layerDirectory: tables };
      fetchIndexed(blob, await threads.indexToc(job, signal), ahead);
    } else if (ztoc !== undefined && byZtoc !== undefined) {
      const job = { ztoc: ztoc.blob, digest: ztoc.digest, size, temporary, layerDirectory: byZtoc };
      await threads.indexSoci(job, signal);
    } else if (parts !== undefined && byParts !== undefined) {
      await threads.indexShipped({ parts, diffId, digest, size, temporary, layerDirectory: byParts }, signal);
    }
  } catch (e) {
    if (!(e instanceof LaminaError) || !TOC_FAILURES.test(e.code)) throw e;
    return { notes: [`it is read as a whole: ${e.message}`] };
  }
  const now = knownFromElsewhere(layer, store);
  if (now === undefined) throw new LaminaError('INTERNAL', 'The index is not in the store');
  return { ...now, prepared: { ...now.prepared, cached: false } };
}

/** Nobody waits for it; who reads what it brings does, and is told when it fails. */
function fetchIndexed(blob: BlobLocation, { prefetch, accounts }: IndexedToc, ahead: Ahead): void {
  if (blob.kind !== 'registry') return;
  const end = Math.min(prefetch, FETCHED_MAX);
  if (end > 0) void ahead.landmark?.prefetch([{ blob, start: 0, end }]).catch(() => undefined);
  for (const part of accounts) void ahead.accounts?.want(blob, part.start, part.end).catch(() => undefined);
}

async function hashBlob(blob: BlobLocation): Promise<Digest> {
  const reader = openBlob(blob);
  const hasher = createHasher();
  const piece = Buffer.allocUnsafe(1024 * 1024);
  try {
    for (let at = 0; ;) {
      const n = reader.read(at, piece);
      if (n === 0) return hasher.digest();
      hasher.update(piece.subarray(0, n));
      at += n;
      // Others have this thread too.
      await setImmediate();
    }
  } finally {
    reader.close();
  }
}

function named(e: unknown, image: Image, index: number): LaminaError {
  const cause = toLaminaError(e);
  const message = `Cannot use ${image.reference}: layer ${index + 1} of ${image.layers.length}: ${cause.message}`;
  return new LaminaError(cause.code, message, {
    cause,
    hint: cause.hint,
    details: { ...cause.details, layer: index + 1 },
  });
}

/** The merged tree's path; it is built, in a thread of its own, when the store lacks it or has it damaged. */
async function mergedTree(
  image: Image,
  layers: readonly PreparedLayer[],
  threads: PrepareThreads,
  { store, compat: chosen, onProgress, signal }: PrepareOptions,
): Promise<string> {
  const compat = image.compat ?? chosen;
  const parts = [
    `lamina-tree ${TREE_FORMAT} ${compat}`,
    ...layers.map((layer, i) => usedLayerKey(image.layers[i]!, layer)),
  ];
  const path = store.treePath(sha256(Buffer.from(parts.join('\n'))).toString('hex'));
  if (isSealed(path)) {
    onProgress?.({ type: 'tree', state: 'cached' });
    return path;
  }
  onProgress?.({ type: 'tree', state: 'merging' });
  const job: MergeJob = {
    layers: layers.map(({ directory, addressSpace }, i) => ({
      tree: join(directory, 'tree.erofs'),
      addressSpace,
      whitelists: image.layers[i]?.whitelists ?? [],
    })),
    compat,
    temporary: store.temporary(),
    path,
  };
  await threads.merge(job, signal);
  onProgress?.({ type: 'tree', state: 'merged' });
  return path;
}
