/**
 * An ordinary user's container: root of a user namespace, with an overlay over the bundle's rootfs that only its mount
 * namespace has. overlayfs asks the image's mount with the rights of who mounted the overlay, so the container's other
 * users may read it too, which FUSE alone would deny them.
 */
import { chmodSync, mkdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { rootfsName } from '../bundle/defaults.js';
import type { Rootless } from '../bundle/rootless.js';
import { namespaceIds, removeInNamespace } from '../mount/user-namespace.js';
import type { Context } from './context.js';
import type { RootlessRuntime } from './runtime.js';

export class RootlessContainer {
  readonly #context: Context;
  readonly #directory: string;
  /** On the store's file system, which takes the attributes that an upper directory needs; a run directory's may not. */
  readonly #overlay: string;
  readonly #map = namespaceIds();

  constructor(context: Context, id: string, directory: string) {
    this.#context = context;
    this.#directory = directory;
    this.#overlay = join(context.store, 'overlays', id);
  }

  get config(): Rootless {
    return { map: this.#map, namespace: 'inside' };
  }

  runtime(readOnly: boolean): RootlessRuntime {
    const state = join(this.#context.run, 'runtime');
    return { map: this.#map, overlay: readOnly ? 'may' : 'must', state };
  }

  /**
   * Named from the bundle, so that mount(8) gets no path in which a comma or a colon could mean something. The root of an
   * overlay has its upper directory's mode.
   */
  makeOverlay(): void {
    const upper = join(this.#overlay, 'upper');
    mkdirSync(upper, { recursive: true, mode: 0o700 });
    mkdirSync(join(this.#overlay, 'work'), { mode: 0o700 });
    chmodSync(upper, statSync(join(this.#directory, rootfsName)).mode & 0o7777);
    symlinkSync(this.#overlay, join(this.#directory, 'overlay'));
  }

  async removeOverlay(): Promise<void> {
    rmSync(join(this.#directory, 'overlay'), { force: true });
    await removeInNamespace(this.#overlay, this.#map);
  }
}
