/**
 * Slots: the numbers under which the workers and blobfs know the layers. A layer keeps its slot while anything may know
 * it by that number, so images share what the kernel has cached of it; a number is never given to another layer.
 */
import type { PreparedLayer } from '../image/known-layer.js';
import type { VerifyMode } from '../layer/reader.js';
import { FIRST_SLOT } from '../mount/blobfs.js';
import type { LayerSource } from '../mount/layer-readers.js';

export class Slots {
  readonly #bySlot = new Map<number, LayerSource>();
  readonly #byContent = new Map<string, number>();
  #next = FIRST_SLOT;
  /** Gets the slots that are forgotten. */
  onForget: (slots: readonly number[]) => void = () => undefined;

  get next(): number {
    return this.#next;
  }

  get sources(): readonly LayerSource[] {
    return [...this.#bySlot.values()];
  }

  /** Base first. The place of a known layer's blob is replaced: the latest image is known to have it. */
  assign(layers: readonly PreparedLayer[], verify: VerifyMode): LayerSource[] {
    return layers.map(({ diffId, directory, mapPath, blob, addressSpace }) => {
      const content = contentKey({ directory, verify, addressSpace });
      const source = {
        slot: this.#byContent.get(content) ?? this.#next++,
        diffId,
        directory,
        mapPath,
        blob,
        addressSpace,
        verify,
      };
      this.#put(source);
      return source;
    });
  }

  /** From records of an earlier server. */
  restore(sources: readonly LayerSource[], next = FIRST_SLOT): void {
    for (const source of sources) this.#put(source);
    this.#next = Math.max(this.#next, next, ...sources.map(({ slot }) => slot + 1));
  }

  /** Forgets the layers whose slots are not in `used`. */
  retain(used: ReadonlySet<number>): void {
    const forgotten: number[] = [];
    for (const [slot, source] of this.#bySlot) {
      if (used.has(slot)) continue;
      this.#bySlot.delete(slot);
      this.#byContent.delete(contentKey(source));
      forgotten.push(slot);
    }
    this.onForget(forgotten);
  }

  #put(source: LayerSource): void {
    this.#bySlot.set(source.slot, source);
    this.#byContent.set(contentKey(source), source.slot);
  }
}

/** What the kernel may cache under a slot, and how it was checked: a mount that wants every read hashed gets that. */
function contentKey({
  directory,
  verify,
  addressSpace,
}: Pick<LayerSource, 'directory' | 'verify' | 'addressSpace'>): string {
  return `${directory} ${addressSpace} ${verify}`;
}
