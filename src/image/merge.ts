/** The merged tree of an image, from the trees of its layers in the store: done once per image. */
import { rmSync, statSync } from 'node:fs';
import { loadTree } from '../erofs/load.js';
import { ErofsReader } from '../erofs/reader.js';
import { encodeTree } from '../erofs/writer.js';
import { LaminaError } from '../errors.js';
import { dropTrees, takeTree } from '../layer/fresh-trees.js';
import { readSealed, seal } from '../store/sealed.js';
import { publishSoon, writeNew } from '../store/store.js';
import { mergeLayers, type Compat } from '../union/merge.js';
import { keepListed } from '../union/whitelist.js';

export interface MergeLayer {
  /** The layer's tree.erofs. */
  readonly tree: string;
  /** Bytes. */
  readonly addressSpace: number;
  /** See `Layer.whitelists`. */
  readonly whitelists: readonly (readonly string[])[];
}

export interface MergeJob {
  /** Base first. */
  readonly layers: readonly MergeLayer[];
  readonly compat: Compat;
  /** A fresh path on the store's file system. */
  readonly temporary: string;
  readonly path: string;
}

/** Bytes of all layers' trees: as objects, which the merge needs them as, they take several times that. */
const TREES_MAX = 4 * 1024 ** 3;

/**
 * Writes the merged tree to `path`. Throws LINK_INVALID, PATH_LOOP, LIMIT_EXCEEDED, STORE_CORRUPT, EROFS_INVALID,
 * DISK_FULL, IO.
 */
export function mergeToStore({ layers, compat, temporary, path }: MergeJob): void {
  const bytes = treeBytes({ layers });
  if (bytes > TREES_MAX) {
    throw new LaminaError('LIMIT_EXCEEDED', `The layers' trees have ${bytes} bytes together (at most ${TREES_MAX})`);
  }
  const devices = layers.map(({ addressSpace }) => addressSpace);
  try {
    const trees = layers.map(({ tree, whitelists }) => {
      const root = takeTree(tree) ?? loadTree(new ErofsReader(readSealed(tree)));
      for (const list of whitelists) keepListed(root, list);
      return root;
    });
    writeNew(temporary, seal(encodeTree(mergeLayers(trees, compat), { devices })));
    publishSoon(temporary, path);
  } finally {
    rmSync(temporary, { force: true });
    dropTrees();
  }
}

/** Bytes of trees that are merged sooner than a thread has started. */
const SMALL_TREES = 256 * 1024;

/** Whether to do it here keeps nobody waiting. */
export function isSmallMerge(job: MergeJob): boolean {
  return treeBytes(job) < SMALL_TREES;
}

function treeBytes({ layers }: Pick<MergeJob, 'layers'>): number {
  return layers.reduce((n, { tree }) => n + (statSync(tree, { throwIfNoEntry: false })?.size ?? 0), 0);
}
