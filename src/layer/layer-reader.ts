/** Verified bytes of one layer, however its index came to be. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ByteRange } from '../source/fetch/block-file.js';
import { ChunkReader, type ChunkReaderOptions } from './reader.js';
import { TocReader } from './toc-reader.js';

export interface LayerReader {
  /** Bytes since the reader was opened. */
  readonly counters: { readonly verified: number; readonly filled: number };
  /** Copies verified bytes into `into` where all of them are at hand; false where something has to be filled. */
  readCached(position: number, length: number, into: Buffer, at: number): boolean;
  /** The same, filling what is missing. Throws CHUNK_DIGEST_MISMATCH, BLOB_MISSING, REGISTRY_*, `NotAtHand`, IO. */
  read(position: number, length: number, into: Buffer, at: number): void;
  /** Where in the address space the content lies that is decompressed from these parts of the blob alone, in their order. */
  contentOf(parts: readonly ByteRange[]): ByteRange[];
  /** Puts what is missing of the content into the store. Throws what {@link read} throws. */
  fill(content: ByteRange): void;
  close(): void;
}

/** Throws STORE_CORRUPT, IO. */
export function openLayerReader(options: ChunkReaderOptions): LayerReader {
  const { directory } = options;
  const fromElsewhere = ['toc', 'ztoc'].some((name) => existsSync(join(directory, name)));
  return fromElsewhere ? TocReader.open(options) : ChunkReader.open(options);
}
