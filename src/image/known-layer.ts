/** Which of the indexes in the store an image's layer is read by. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { sniffCompression, type Compression } from '../compress/index.js';
import type { Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { readChunks } from '../layer/chunks.js';
import { LayerMap } from '../layer/map.js';
import { SociTable } from '../layer/soci-table.js';
import { TocTable, type ChunkTable } from '../layer/toc-table.js';
import { openBlob, type BlobLocation } from '../source/blob.js';
import { repositoryOf } from '../source/fetch/access.js';
import { fetchedBytes } from '../source/fetch/block-file.js';
import type { Layer } from '../source/image.js';
import { tableName } from '../source/toc/place.js';
import { readSealed } from '../store/sealed.js';
import type { Store } from '../store/store.js';

/** A layer whose index is in the store. */
export interface PreparedLayer {
  readonly diffId: Digest;
  /** `layers/sha256-..` of the store. */
  readonly directory: string;
  /** By its tar, all of which was read; by the table of contents that it brings; by a ztoc of SOCI; or by a Lamina index. */
  readonly index: 'tar' | 'toc' | 'soci' | 'lamina';
  /** `maps/sha256-..` of the store; "" where the index is from elsewhere. */
  readonly mapPath: string;
  readonly blob: BlobLocation;
  /** Bytes: the uncompressed stream and what the index put behind it. */
  readonly addressSpace: number;
  readonly compression: Compression;
  /** Restart points, or chunks of the table of contents. */
  readonly points: number;
  /** Bytes of the stream that the index had to keep uncompressed, being far from a restart point. */
  readonly kept: number;
  /** The index was in the store before. */
  readonly cached: boolean;
}

/** What the store has of a layer; undefined where it has to be indexed. Throws STORE_CORRUPT, BLOB_SIZE_MISMATCH. */
export function findLayer(layer: Layer, store: Store): PreparedLayer | undefined {
  return (known(layer, layer.digest ?? plainDigest(layer), store) ?? knownFromElsewhere(layer, store))?.prepared;
}

export interface Known {
  readonly prepared: PreparedLayer;
  readonly notes: readonly string[];
}

/** By the table of contents that it brings, or by a ztoc. Throws STORE_CORRUPT, SOCI_INVALID. */
export function knownFromElsewhere(layer: Layer, store: Store): Known | undefined {
  const { blob, digest, toc } = layer;
  if (blob.kind !== 'registry' || digest === undefined) return undefined;
  const byToc = tocDirectoryOf(layer, store);
  if (toc !== undefined && byToc !== undefined && existsSync(byToc)) {
    const path = join(byToc, 'toc');
    return lazily(layer, byToc, 'toc', new TocTable(readSealed(path), path));
  }
  // Of a layer that is here as a whole, what nobody has vouched for is not needed any more.
  const directory = [true, ...(isWhole(layer) ? [] : [false])]
    .map((bound) => sociDirectoryOf(layer, bound, store))
    .find((path) => path !== undefined && existsSync(path));
  if (directory !== undefined)
    return lazily(layer, directory, 'soci', new SociTable(readSealed(join(directory, 'ztoc'))));
  const shipped = shippedDirectoryOf(layer, store);
  return isWhole(layer) || shipped === undefined ? undefined : knownAsShipped(layer, shipped);
}

/** Undefined where the layer has no table of contents. */
export function tocDirectoryOf({ digest, toc, view }: Layer, store: Store): string | undefined {
  if (digest === undefined || toc === undefined) return undefined;
  return store.tocDirectory(digest, tableName(toc), view);
}

/** Undefined where it is of no registry. */
export function sociDirectoryOf({ digest, manifest, blob }: Layer, bound: boolean, store: Store): string | undefined {
  if (digest === undefined || manifest === undefined || blob.kind !== 'registry') return undefined;
  return store.sociDirectory(digest, bound, bound ? manifest : repositoryOf(blob.access));
}

/** Undefined where it is of no registry. */
export function shippedDirectoryOf({ digest, blob }: Layer, store: Store): string | undefined {
  if (digest === undefined || blob.kind !== 'registry') return undefined;
  return store.shippedDirectory(digest, repositoryOf(blob.access));
}

function knownAsShipped({ diffId, blob }: Layer, directory: string): Known | undefined {
  const mapPath = join(directory, 'map');
  const map = existsSync(directory) ? LayerMap.describe(mapPath) : undefined;
  if (map === undefined) return undefined;
  const { addressSpace } = readChunks(join(directory, 'chunks'));
  const facts = { addressSpace, compression: map.facts.compression, points: map.count, kept: 0 };
  return { prepared: { diffId, directory, index: 'lamina', mapPath, blob, ...facts, cached: true }, notes: [] };
}

export function isWhole({ blob }: Layer): boolean {
  return fetchedBytes(blob.path, blob.size) === blob.size;
}

function lazily({ diffId, blob }: Layer, directory: string, index: 'toc' | 'soci', table: ChunkTable): Known {
  const { addressSpace, compression, count } = table;
  const facts = { addressSpace, compression, points: count, kept: 0 };
  return { prepared: { diffId, directory, index, mapPath: '', blob, ...facts, cached: true }, notes: [] };
}

/** By its tar, all of which was read. Throws STORE_CORRUPT, BLOB_SIZE_MISMATCH. */
export function known(layer: Layer, digest: Digest | undefined, store: Store): Known | undefined {
  if (digest === undefined) return undefined;
  const directory = store.layerDirectory(layer.diffId, layer.view);
  const mapPath = store.mapPath(digest);
  if (!existsSync(directory)) return undefined;
  const map = LayerMap.describe(mapPath);
  // The same blob under another diffID is a lie that indexing will find out.
  if (map?.facts.diffId !== layer.diffId) return undefined;
  const { facts } = map;
  if (facts.blobSize !== layer.blob.size) {
    throw new LaminaError(
      'BLOB_SIZE_MISMATCH',
      `The layer ${digest} has ${facts.blobSize} bytes, not ${layer.blob.size}`,
      {
        details: { digest, wanted: layer.blob.size, got: facts.blobSize },
      },
    );
  }
  const { addressSpace } = readChunks(join(directory, 'chunks'));
  const { compression, kept } = facts;
  const prepared = {
    diffId: layer.diffId,
    directory,
    index: 'tar' as const,
    mapPath,
    blob: layer.blob,
    addressSpace,
    compression,
    points: map.count,
    kept,
    cached: true,
  };
  return { prepared, notes: facts.notes };
}

/** An uncompressed blob is its own stream, so its digest is the diffID. */
export function plainDigest({ blob, diffId }: Layer): Digest | undefined {
  const reader = openBlob(blob);
  try {
    const head = Buffer.alloc(512);
    return sniffCompression(head.subarray(0, reader.read(0, head))) === 'none' ? diffId : undefined;
  } finally {
    reader.close();
  }
}
