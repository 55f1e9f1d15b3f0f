/**
 * An ordinary user's container: root of a user namespace, with an overlay over the bundle's rootfs that only its mount
 * namespace has. overlayfs asks the image's mount with the rights of who mounted the overlay, so the container's other
 * users may read it too, which FUSE alone would deny them.
 */
import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Rootless } from '../bundle/rootless.js';
import type { Context } from './context.js';
import type { Container } from './runtime.js';
import { namespaceIds, removeInNamespace } from './user-namespace.js';

export class RootlessContainer {
  readonly #context: Context;
  readonly #directory: string;
  /** On the store's file system, which takes the attributes that an upper directory needs; a run directory's may not. */
  readonly #overlay: string;

  constructor(context: Context, id: string, directory: string) {
    this.#context = context;
    this.#directory = directory;
    this.#overlay = join(context.store, 'overlays', id);
  }

  get config(): Rootless {
    return { map: namespaceIds(), namespace: 'inside' };
  }

  runtime(readOnly: boolean): Container['rootless'] {
    return { overlay: readOnly ? 'may' : 'must', state: join(this.#context.run, 'runtime') };
  }

  /** Named from the bundle, so that mount(8) gets no path in which a comma or a colon could mean something. */
  makeOverlay(): void {
    mkdirSync(this.#overlay, { recursive: true, mode: 0o700 });
    for (const name of ['upper', 'work']) mkdirSync(join(this.#overlay, name), { mode: 0o755 });
    symlinkSync(this.#overlay, join(this.#directory, 'overlay'));
  }

  async removeOverlay(): Promise<void> {
    rmSync(join(this.#directory, 'overlay'), { force: true });
    await removeInNamespace(this.#overlay);
  }
}
