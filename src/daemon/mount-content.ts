/** What of a mount's layers is here: from the store's files, at the moment. */
import { statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isLazy, type LayerSource } from '../mount/layer-readers.js';
import { fetchedBytes } from '../source/fetch/block-file.js';
import type { LayerContent, MountContent } from './protocol.js';
import type { MountRecord } from './records.js';

const STAT_BLOCK = 512;

/** `needed`: bytes that reads have waited for, by the blobs' paths. */
export function contentOf(
  { id, mountpoint, reference, layers }: MountRecord,
  needed: ReadonlyMap<string, number>,
): MountContent {
  return { id, mountpoint, reference, layers: layers.map((layer) => layerContent(layer, needed)) };
}

function indexOf(layer: LayerSource): Pick<LayerContent, 'index' | 'verified'> {
  if (!isLazy(layer)) return { index: 'tar', verified: 'layer digest' };
  const name = basename(layer.directory);
  if (name.startsWith('toc-')) return { index: 'toc', verified: 'table of contents' };
  if (name.startsWith('lamina-')) return { index: 'lamina', verified: 'Lamina index, provisional' };
  const provisional = name.startsWith('soci-provisional-');
  return { index: 'soci', verified: provisional ? 'SOCI index, provisional' : 'SOCI index' };
}

function layerContent(layer: LayerSource, needed: ReadonlyMap<string, number>): LayerContent {
  const { blob, diffId, directory } = layer;
  const remote = blob.kind === 'registry';
  return {
    diffId,
    digest: remote ? blob.digest : null,
    source: remote ? 'registry' : 'local',
    ...indexOf(layer),
    fetched: remote ? fetchedBytes(blob.path, blob.size) : blob.size,
    needed: needed.get(blob.path) ?? 0,
    size: blob.size,
    cached: (statSync(join(directory, 'data'), { throwIfNoEntry: false })?.blocks ?? 0) * STAT_BLOCK,
  };
}
