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
import type { RemoteBlobSpec } from '../source/fetch/protocol.js';

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

/** Whether two descriptions of one layer say the same. */
export function isSameSource(a: LayerSource | undefined, b: LayerSource | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
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

/** What one fetch of a waiting read failed with. */
export interface FetchFailure {
  readonly error: LaminaError;
  /** Of which blob, and which registry's; undefined: nothing that was fetched helps. */
  readonly blob?: RemoteBlobSpec | undefined;
}

/** The places of one layer: mounts that share it may have it from different ones, and may not suffer from each other's. */
interface Places {
  sources: readonly LayerSource[];
  /** Which is read from. */
  current: number;
  /** What those have failed with that were tried, one after the other, since one was read from. */
  failures: unknown[];
}

/** Open readers, each with two or three descriptors and a mapping; the earliest opened beyond this are closed. */
const OPEN_MAX = 256;

export class LayerReaders {
  readonly #places = new Map<number, Places>();
  readonly #open = new Map<number, LayerReader>();
  readonly #memory: ChunkMemory;
  readonly #options: LayerReadersOptions;
  /** Called before an unknown slot is reported absent, so that the owner can take in pending {@link set}s. */
  onUnknown: () => void = () => undefined;
  /** What a waiting read has to have fetched before it can be answered: {@link read} was false then. The owner takes it. */
  missing: NotAtHand | undefined;
  /** Why a waiting read has not what it waited for; the owner's, while one is answered. */
  failure: FetchFailure | undefined;

  constructor(options: LayerReadersOptions) {
    this.#options = options;
    this.#memory = new ChunkMemory(options.memory);
  }

  /** Adds a layer, or gives a known one other places: all that there are, the same slot's. */
  set(sources: readonly LayerSource[]): void {
    const [first] = sources;
    if (first === undefined) return;
    const { slot } = first;
    const before = this.#places.get(slot);
    const read = before?.sources[before.current];
    const found = sources.findIndex((source) => isSameSource(source, read));
    this.#places.set(slot, { sources, current: Math.max(found, 0), failures: [] });
    if (found < 0) this.#close(slot);
  }

  has(slot: number): boolean {
    if (!this.#places.has(slot)) this.onUnknown();
    return this.#places.has(slot);
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
    return this.#counted(slot, within, (reader) => {
      if (!wait) return reader.readCached(position, within, into, at);
      reader.read(position, within, into, at);
      return true;
    });
  }

  /** See {@link LayerReader.contentOf}. */
  contentOf(slot: number, parts: readonly ByteRange[]): ByteRange[] {
    return this.#reader(slot).contentOf(parts);
  }

  /** See {@link LayerReader.fill}; false as {@link read}. */
  fill(slot: number, content: ByteRange): boolean {
    return this.#counted(slot, 0, (reader) => {
      reader.fill(content);
      return true;
    });
  }

  /** False where `act` says so, or something has to be fetched first. `served`: bytes, if it is true. */
  #counted(slot: number, served: number, act: (reader: LayerReader) => boolean): boolean {
    return this.#somewhere(slot, () => {
      const reader = this.#reader(slot);
      const { verified, filled } = reader.counters;
      const done = act(reader);
      const { counters } = reader;
      if (done) this.#options.counters?.add(slot, served, counters.verified - verified, counters.filled - filled);
      return done;
    });
  }

  /** Where one place fails, the next is tried; when all have, what the first failed with is thrown. */
  #somewhere(slot: number, act: () => boolean): boolean {
    for (;;) {
      try {
        const done = act();
        const places = this.#places.get(slot);
        if (done && places !== undefined) places.failures = [];
        return done;
      } catch (e) {
        const failure = e instanceof NotAtHand ? failureOf(this.failure, e) : e;
        if (failure === undefined && e instanceof NotAtHand) {
          this.missing = e;
          return false;
        }
        this.#goOn(slot, failure);
      }
    }
  }

  /** To the next place. Throws the first failure where all have failed; the next read begins with the same place again. */
  #goOn(slot: number, failure: unknown): void {
    const places = this.#places.get(slot);
    if (places === undefined || places.sources.length < 2) throw failure;
    places.failures.push(failure);
    places.current = (places.current + 1) % places.sources.length;
    this.#close(slot);
    if (places.failures.length < places.sources.length) return;
    const [first] = places.failures;
    places.failures = [];
    throw first;
  }

  /** Closes the readers of layers that no mount of this daemon uses; they open again when they are read after all. */
  rest(slots: readonly number[]): void {
    for (const slot of slots) this.#close(slot);
  }

  /** Forgets layers that nothing can ask for any more. */
  forget(slots: readonly number[]): void {
    this.rest(slots);
    for (const slot of slots) this.#places.delete(slot);
  }

  close(): void {
    for (const slot of [...this.#open.keys()]) this.#close(slot);
  }

  #source(slot: number): LayerSource {
    const places = this.has(slot) ? this.#places.get(slot) : undefined;
    const source = places?.sources[places.current];
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

/** Undefined where what is missing now is not what could not be fetched. */
function failureOf(failure: FetchFailure | undefined, { blob }: NotAtHand): LaminaError | undefined {
  if (failure?.blob === undefined) return failure?.error;
  return JSON.stringify(failure.blob) === JSON.stringify(blob) ? failure.error : undefined;
}
