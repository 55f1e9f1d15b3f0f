/**
 * Slots: the numbers under which the workers and blobfs know the layers. A layer keeps its slot while anything may know
 * it by that number, so images share what the kernel has cached of it; a number is never given to another layer.
 */
import type { PreparedLayer } from '../image/known-layer.js';
import type { VerifyMode } from '../layer/reader.js';
import { FIRST_SLOT } from '../mount/blobfs.js';
import { isSameSource, type LayerSource } from '../mount/layer-readers.js';

export class Slots {
  /** Where each layer is to be had: as its mounts know it. */
  readonly #places = new Map<number, readonly LayerSource[]>();
  readonly #byContent = new Map<string, number>();
  #next = FIRST_SLOT;
  /** Gets the slots that are forgotten. */
  onForget: (slots: readonly number[]) => void = () => undefined;

  get next(): number {
    return this.#next;
  }

  /** All places of all layers. */
  get sources(): readonly LayerSource[] {
    return [...this.#places.values()].flat();
  }

  /** Of one layer. */
  places(slot: number): readonly LayerSource[] {
    return this.#places.get(slot) ?? [];
  }

  /** Base first. A known layer may get a further place: another mount knows it by another image. */
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

  /** The layer is to be had where the mounts that are left know it, if any is. True where that is not as before. */
  keepPlaces(slot: number, left: readonly LayerSource[]): boolean {
    const before = this.places(slot);
    const known = left.filter((source) => source.slot === slot);
    const places = before.filter((place) => known.some((source) => isSameSource(source, place)));
    if (places.length === 0 || places.length === before.length) return false;
    this.#places.set(slot, places);
    return true;
  }

  /** Forgets the layers whose slots are not in `used`. */
  retain(used: ReadonlySet<number>): void {
    const forgotten: number[] = [];
    for (const [slot, places] of this.#places) {
      if (used.has(slot)) continue;
      this.#places.delete(slot);
      for (const source of places) this.#byContent.delete(contentKey(source));
      forgotten.push(slot);
    }
    this.onForget(forgotten);
  }

  #put(source: LayerSource): void {
    const places = this.places(source.slot);
    if (!places.some((known) => isSameSource(known, source))) this.#places.set(source.slot, [...places, source]);
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
