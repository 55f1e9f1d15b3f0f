/**
 * Makes of the parts of a Lamina index (src/source/lamina-index) what an indexing pass makes of a whole layer. Whoever may write
 * to a repository may have put them there: the tree is built anew from the list of entries, by the rules for archives; and of
 * `chunks` and `map`, which are used as they are, everything is checked on which the readers rely.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { Digest } from '../digest/index.js';
import { encodeTree } from '../erofs/writer.js';
import { LaminaError } from '../errors.js';
import { openBlob } from '../source/blob.js';
import { verified } from '../source/documents.js';
import type { ShippedPart } from '../source/image.js';
import type { LayerParts } from '../source/lamina-index.js';
import { layerLimit, overLimit } from '../source/limits.js';
import { tarEntryOf } from '../source/soci/entries.js';
import { ZTOC_LIMIT, decodeZtoc, tooLarge, type ZtocFile } from '../source/soci/ztoc.js';
import { readRange } from '../source/toc/read.js';
import { seal } from '../store/sealed.js';
import { publishSoon, writeNew } from '../store/store.js';
import { BLOCK } from '../tar/header.js';
import { Notes } from '../tar/notes.js';
import { CHUNK, decodeChunks } from './chunks.js';
import { keepTree } from './fresh-trees.js';
import { LayerMap } from './map.js';
import { KEEP_AFTER } from './reader.js';
import { TreeBuilder } from './tree-builder.js';

export interface ShippedJob {
  readonly parts: LayerParts<ShippedPart>;
  readonly diffId: Digest;
  /** Of the layer's blob. */
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** A fresh path on the store's file system. */
  readonly temporary: string;
  /** `layers/lamina-provisional-sha256-BLOB-BY` of the store. */
  readonly layerDirectory: string;
}

/** Bytes of the blob from one restart point to the next: they are read together. */
const SPAN_MAX = 64 * 1024 * 1024;

/** Throws MANIFEST_INVALID, SOCI_INVALID, BLOB_DIGEST_MISMATCH, what {@link TreeBuilder} throws, LIMIT_EXCEEDED, REGISTRY_*, DISK_FULL, IO. */
export function indexShipped({ parts, diffId, digest, size, temporary, layerDirectory }: ShippedJob): void {
  try {
    const [files, chunkBytes, mapBytes] = [read(parts.files), read(parts.chunks), read(parts.map)];
    const { streamSize, addressSpace, copies } = usable(() => decodeChunks(chunkBytes, 'the chunks'));
    const limit = layerLimit();
    if (addressSpace > limit) throw overLimit(limit);
    // Only sparse files have what is behind the stream, and these are not shipped.
    if (copies.length > 0 || addressSpace !== streamSize) throw invalid('it has copies of parts');
    mkdirSync(temporary, { mode: 0o700 });
    writeNew(join(temporary, 'map'), [mapBytes]);
    checkMap(join(temporary, 'map'), { diffId, digest, size, streamSize });
    writeNew(join(temporary, 'chunks'), [chunkBytes]);
    const root = treeOf(filesOf(files), streamSize);
    const encoded = seal(encodeTree(root, { devices: [addressSpace] }));
    writeNew(join(temporary, 'tree.erofs'), encoded);
    // What is there already may be another's, from another index.
    if (publishSoon(temporary, layerDirectory)) keepTree(join(layerDirectory, 'tree.erofs'), root, encoded);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

function read({ blob: location, digest }: ShippedPart): Buffer {
  const blob = openBlob(location);
  try {
    if (blob.size > ZTOC_LIMIT) throw tooLarge(blob.size);
    return verified(readRange(blob, 0, blob.size), digest, 'a part of the Lamina index');
  } finally {
    blob.close();
  }
}

function filesOf(packed: Buffer): readonly ZtocFile[] {
  let bytes: Buffer;
  try {
    bytes = gunzipSync(packed, { maxOutputLength: ZTOC_LIMIT });
  } catch (e) {
    throw invalid('its list of files cannot be decompressed', e);
  }
  return decodeZtoc(bytes).files;
}

function treeOf(files: readonly ZtocFile[], streamSize: number): ReturnType<TreeBuilder['finish']>['root'] {
  const tree = new TreeBuilder(new Notes());
  files.forEach((file, i) => {
    const entry = tarEntryOf(file, i + 1);
    if (file.offset % BLOCK !== 0 || file.offset + entry.size > streamSize) throw invalid('a file lies outside');
    tree.add(entry);
  });
  return tree.finish(streamSize).root;
}

/** Whoever reads by a map trusts it to be in order, and its spans to be short. */
function checkMap(
  path: string,
  layer: { readonly diffId: Digest; readonly digest: Digest; readonly size: number; readonly streamSize: number },
): void {
  const map = usable(() => LayerMap.open(path));
  if (map === undefined) throw invalid('its map is gone');
  try {
    const { facts } = map;
    const isOfLayer =
      facts.diffId === layer.diffId &&
      facts.blob === layer.digest &&
      facts.blobSize === layer.size &&
      facts.streamSize === layer.streamSize;
    if (!isOfLayer || facts.kept > 0) throw invalid('its map is of another layer');
    if (facts.compression === 'none') {
      if (facts.streamSize > layer.size) throw invalid('its map ends behind the layer');
    } else if (!map.isOrderly({ output: KEEP_AFTER + CHUNK, input: SPAN_MAX }))
      throw invalid('its restart points are in disorder');
  } finally {
    map.close();
  }
}

/** What the store would call damaged was never right. */
function usable<T>(work: () => T): T {
  try {
    return work();
  } catch (e) {
    throw invalid('its parts are not well formed', e);
  }
}

function invalid(why: string, cause?: unknown): LaminaError {
  return new LaminaError('MANIFEST_INVALID', `The Lamina index of the layer cannot be used: ${why}`, { cause });
}
