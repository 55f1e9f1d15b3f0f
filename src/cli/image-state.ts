/** What the store knows of an image's layers. Looks, indexes nothing. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { LaminaError } from '../errors.js';
import { findLayer, type PreparedLayer } from '../image/known-layer.js';
import { LayerMap } from '../layer/map.js';
import type { Layer } from '../source/image.js';
import type { Store } from '../store/store.js';

export interface LayerIndexState {
  /** A mount needs no pass over the layer any more. */
  readonly indexed: boolean;
  /** By the table of contents that it brings alone; its points are that table's chunks. */
  readonly byToc: boolean;
  readonly compression: string | null;
  /** Bytes of the uncompressed stream. */
  readonly streamSize: number | null;
  readonly restartPoints: number | null;
  /** Bytes of the layer's data file that are on disk. */
  readonly cachedBytes: number;
  /**
   * Bytes of the stream that indexing put into the data file at once, because no restart point is near them (a zstd
   * layer of one frame can only be decompressed from its start).
   */
  readonly keptBytes: number;
  /** What was odd but not wrong in the layer. */
  readonly notes: readonly string[];
  /** Why what is there cannot be used. */
  readonly problem: string | null;
}

const NOT_INDEXED: LayerIndexState = {
  indexed: false,
  byToc: false,
  compression: null,
  streamSize: null,
  restartPoints: null,
  cachedBytes: 0,
  keptBytes: 0,
  notes: [],
  problem: null,
};

/** `store` is undefined where there is none yet. */
export function layerIndexState(store: Store | undefined, layer: Layer): LayerIndexState {
  if (store === undefined) return NOT_INDEXED;
  const cachedBytes = allocated(join(store.layerDirectory(layer.diffId, layer.view), 'data'));
  try {
    const found = findLayer(layer, store);
    if (found !== undefined && found.index !== 'tar') return tocState(found);
    const map = found === undefined ? undefined : LayerMap.describe(found.mapPath);
    if (map === undefined) return { ...NOT_INDEXED, cachedBytes };
    const { compression, streamSize, kept, notes } = map.facts;
    return {
      indexed: true,
      byToc: false,
      compression,
      streamSize,
      restartPoints: map.count,
      cachedBytes,
      keptBytes: kept,
      notes,
      problem: null,
    };
  } catch (e) {
    if (!(e instanceof LaminaError)) throw e;
    return { ...NOT_INDEXED, cachedBytes, problem: e.message };
  }
}

function tocState({ directory, compression, points }: PreparedLayer): LayerIndexState {
  const cachedBytes = allocated(join(directory, 'data'));
  return { ...NOT_INDEXED, indexed: true, byToc: true, compression, restartPoints: points, cachedBytes };
}

const STAT_BLOCK = 512;

function allocated(path: string): number {
  return (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * STAT_BLOCK;
}

export function sameBytes(a: string, b: string): boolean {
  return readFileSync(a).equals(readFileSync(b));
}
