/**
 * The layers that a thread serves: plain descriptions that survive threads and restarts, and the readers made of them
 * when they are first used. One memory of verified chunks serves all layers of the thread.
 */
import { dirname } from 'node:path';
import { LaminaError } from '../errors.js';
import type { Digest } from '../digest/index.js';
import { ChunkMemory } from '../layer/memory.js';
import type { Counters } from './counters.js';
import { openLayerReader, type LayerReader } from '../layer/layer-reader.js';
import type { VerifyMode } from '../layer/reader.js';
import type { BlobLocation } from '../source/blob.js';
import type { ByteRange } from '../source/fetch/block-file.js';
import { NotAtHand } from '../source/fetch/port.js';

export interface LayerSource {
  /** The layer's node id and name in blobfs; never used again for another layer while that is mounted. From 2 on. */
  readonly slot: number;
  readonly diffId: Digest;
  /** `layers/sha256-..` of the store. */
  readonly directory: string;
  /** `maps/sha256-..` of the store; "" or in `directory` for a layer that {@link isLazy}. */
  readonly mapPath: string;
  readonly blob: BlobLocation;
  /** Bytes: the uncompressed stream and what the index put behind it. */
  readonly addressSpace: number;
  readonly verify: VerifyMode;
}

/** Whether the layer is known by an index from elsewhere: what is read of it has to be fetched first. */
export function isLazy({ mapPath, directory }: Pick<LayerSource, 'mapPath' | 'directory'>): boolean {
  return mapPath === '' || dirname(mapPath) === directory;
}

export interface LayerReadersOptions {
  /** Bytes of verified chunks kept in memory. */
  readonly memory: number;
  readonly counters?: Counters;
  /** A cached chunk was wrong and has been fetched again. */
  readonly onHeal?: (layer: LayerSource, offset: number, got: string) => void;
}

/** A number that is the same for places of a layer that are decompressed together, mostly: within 1 MiB. */
export function spanOf(slot: number, position: number): number {
  return slot + Math.floor(position / (1 << 20));
}

/** Open readers, each with two or three descriptors and a mapping; the earliest opened beyond this are closed. */
const OPEN_MAX = 256;

export class LayerReaders {
  readonly #sources = new Map<number, LayerSource>();
  readonly #open = new Map<number, LayerReader>();
  readonly #memory: ChunkMemory;
  readonly #options: LayerReadersOptions;
  /** Called before an unknown slot is reported absent, so that the owner can take in pending {@link add}s. */
  onUnknown: () => void = () => undefined;
  /** What a waiting read has to have fetched before it can be answered: {@link read} was false then. The owner takes it. */
  missing: NotAtHand | undefined;
  /** What a waiting read fails with if something of it has to be fetched; the owner's, while one is answered. */
  failure: LaminaError | undefined;

  constructor(options: LayerReadersOptions) {
    this.#options = options;
    this.#memory = new ChunkMemory(options.memory);
  }

  /** Adds a layer, or gives a known one a new place for its blob. */
  add(source: LayerSource): void {
    const before = this.#sources.get(source.slot);
    this.#sources.set(source.slot, source);
    if (before !== undefined && JSON.stringify(before) !== JSON.stringify(source)) this.#close(source.slot);
  }

  has(slot: number): boolean {
    if (!this.#sources.has(slot)) this.onUnknown();
    return this.#sources.has(slot);
  }

  /** Bytes of the layer's address space, rounded up to the block of 512 bytes that a tree counts in. */
  size(slot: number): number {
    return Math.ceil(this.#source(slot).addressSpace / 512) * 512;
  }

  /**
   * Verified bytes of a layer into `into`. False: they are not at hand; with `wait`, see {@link missing}.
   * Throws what {@link LayerReader} throws, and {@link failure}.
   */
  read(slot: number, position: number, length: number, into: Buffer, at: number, wait: boolean): boolean {
    const beyond = position + length - this.#source(slot).addressSpace;
    const within = beyond > 0 ? Math.max(length - beyond, 0) : length;
    if (within < length) into.fill(0, at + within, at + length);
    if (within === 0) return true;
    const reader = this.#reader(slot);
    const { counters } = reader;
    const { verified, filled } = counters;
    if (!wait) {
      if (!reader.readCached(position, within, into, at)) return false;
    } else if (!this.#fill(() => reader.read(position, within, into, at))) return false;
    this.#options.counters?.add(slot, within, counters.verified - verified, counters.filled - filled);
    return true;
  }

  /** See {@link LayerReader.contentOf}. */
  contentOf(slot: number, parts: readonly ByteRange[]): ByteRange[] {
    return this.#reader(slot).contentOf(parts);
  }

  /** See {@link LayerReader.fill}; false as {@link read}. */
  fill(slot: number, content: ByteRange): boolean {
    const reader = this.#reader(slot);
    const { counters } = reader;
    const { verified, filled } = counters;
    if (!this.#fill(() => reader.fill(content))) return false;
    this.#options.counters?.add(slot, 0, counters.verified - verified, counters.filled - filled);
    return true;
  }

  #fill(read: () => void): boolean {
    try {
      read();
      return true;
    } catch (e) {
      if (!(e instanceof NotAtHand)) throw e;
      if (this.failure !== undefined) throw this.failure;
      this.missing = e;
      return false;
    }
  }

  /** Closes the readers of layers that no mount of this daemon uses; they open again when they are read after all. */
  rest(slots: readonly number[]): void {
    for (const slot of slots) this.#close(slot);
  }

  /** Forgets layers that nothing can ask for any more. */
  forget(slots: readonly number[]): void {
    this.rest(slots);
    for (const slot of slots) this.#sources.delete(slot);
  }

  close(): void {
    for (const slot of [...this.#open.keys()]) this.#close(slot);
  }

  #source(slot: number): LayerSource {
    const source = this.has(slot) ? this.#sources.get(slot) : undefined;
    if (source === undefined) throw new LaminaError('INTERNAL', `No layer in slot ${slot}`);
    return source;
  }

  #reader(slot: number): LayerReader {
    const known = this.#open.get(slot);
    if (known !== undefined) return known;
    const source = this.#source(slot);
    const { onHeal } = this.#options;
    const reader = openLayerReader({
      id: slot,
      directory: source.directory,
      mapPath: source.mapPath,
      blob: source.blob,
      verify: source.verify,
      memory: this.#memory,
      onHeal: (offset: number, got: string) => onHeal?.(source, offset, got),
    });
    if (this.#open.size >= OPEN_MAX) {
      const oldest = this.#open.keys().next();
      if (oldest.done !== true) this.#close(oldest.value);
    }
    this.#open.set(slot, reader);
    return reader;
  }

  #close(slot: number): void {
    this.#open.get(slot)?.close();
    this.#open.delete(slot);
  }
}
