/**
 * Decompresses what a trace has had fetched, before anybody waits for it: a container's program reads one thing after the other,
 * and the other cores have nothing to do meanwhile. Reads that wait come first: between any two chunks.
 */
import { setImmediate } from 'node:timers/promises';
import { spanOf, type LayerReaders } from '../mount/layer-readers.js';
import type { ByteRange } from '../source/fetch/block-file.js';
import type { FetchPort, NotAtHand } from '../source/fetch/port.js';

/** Parts of a chunk that may have to be waited for one after the other. */
const FETCHES_MAX = 8;
/** Bytes of content that is decompressed in one go: more would keep reads waiting, of other images too. Tools make 4 MiB of it. */
const CONTENT_MAX = 32 * 1024 * 1024;

export class FillAhead {
  readonly #layers: LayerReaders;
  readonly #fetch: FetchPort;
  readonly #share: { readonly turn: number; readonly workers: number };
  /** Slots of which there is something to do; taking one out stops it. */
  readonly #under = new Map<number, object>();

  /** `share`: which of how many workers this is, to each of which the same is said. */
  constructor(layers: LayerReaders, fetch: FetchPort, share: { readonly turn: number; readonly workers: number }) {
    this.#layers = layers;
    this.#fetch = fetch;
    this.#share = share;
  }

  /** Fills what `parts` of the layer's blob have all bytes of, in their order. */
  add(slot: number, parts: readonly ByteRange[]): void {
    if (parts.length === 0) return;
    const job = {};
    this.#under.set(slot, job);
    // Who reads what cannot be had is told why.
    void this.#run(slot, parts, () => this.#under.get(slot) === job).catch(() => undefined);
  }

  /** No mount uses these layers now. */
  stop(slots: readonly number[]): void {
    for (const slot of slots) this.#under.delete(slot);
  }

  async #run(slot: number, parts: readonly ByteRange[], goesOn: () => boolean): Promise<void> {
    await setImmediate();
    if (!goesOn()) return;
    const { turn, workers } = this.#share;
    // Readers of the same come to the same worker.
    const mine = this.#layers
      .contentOf(slot, parts)
      .filter(({ start, end }) => spanOf(slot, start) % workers === turn && end - start <= CONTENT_MAX);
    for (const content of mine) {
      for (let fetches = 0; fetches < FETCHES_MAX; fetches++) {
        await setImmediate();
        if (!goesOn()) return;
        if (this.#fetch.withoutTrace(() => this.#layers.fill(slot, content))) break;
        const { missing } = this.#layers;
        this.#layers.missing = undefined;
        // What shares a piece of 64 KiB with the chunk may not be among the parts.
        if (missing === undefined || !isWithin(missing, parts)) break;
        await this.#fetch.fetch(missing, false);
      }
    }
    this.stop([slot]);
  }
}

function isWithin({ start, end }: NotAtHand, parts: readonly ByteRange[]): boolean {
  return parts.some((part) => part.start <= start && end <= part.end);
}
