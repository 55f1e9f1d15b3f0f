/**
 * Completes the layers that are fetched when they are read: what nobody has read yet comes when nobody waits for anything, so
 * that in the end the registry is not needed any more. It may be paused, which a file in the run directory remembers.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import type { LayerSource } from '../mount/layer-readers.js';
import { isLazy } from '../mount/layer-readers.js';
import type { Fetcher } from '../source/fetch/fetcher.js';
import { toLaminaError } from '../errors.js';
import type { Logger } from './log.js';
import type { RunDir } from './run-dir.js';

export class Background {
  readonly #fetcher: Fetcher;
  readonly #log: Logger;
  readonly #run: RunDir;
  #layers: readonly LayerSource[] = [];
  /** By the blobs' paths. */
  readonly #running = new Map<string, AbortController>();

  constructor({ fetcher, log, run }: { readonly fetcher: Fetcher; readonly log: Logger; readonly run: RunDir }) {
    this.#fetcher = fetcher;
    this.#log = log;
    this.#run = run;
  }

  get paused(): boolean {
    return existsSync(this.#run.paused);
  }

  /** Throws IO, DISK_FULL. */
  pause(paused: boolean): void {
    this.#log.info({ paused }, 'completing layers in the background');
    try {
      if (paused) writeFileSync(this.#run.paused, '', { mode: 0o600 });
      else rmSync(this.#run.paused, { force: true });
    } catch (e) {
      throw toLaminaError(e, `Cannot write ${this.#run.paused}`);
    }
    this.update(this.#layers);
  }

  /** `layers`: all that are mounted. What is new among them is begun, and what is not mounted any more left. */
  update(layers: readonly LayerSource[]): void {
    this.#layers = layers;
    const wanted = new Map((this.paused ? [] : layers).filter(isLazy).map((layer) => [layer.blob.path, layer.blob]));
    for (const [path, controller] of this.#running) {
      if (wanted.has(path)) continue;
      controller.abort();
      this.#running.delete(path);
    }
    for (const [path, blob] of wanted) {
      if (blob.kind !== 'registry' || blob.access.offline === true || this.#running.has(path)) continue;
      const controller = new AbortController();
      this.#running.set(path, controller);
      this.#fetcher.complete(blob, controller.signal).then(
        () => {
          if (!controller.signal.aborted) this.#log.info({ digest: blob.digest }, 'a layer is here as a whole');
        },
        (e: unknown) => {
          const { code, message } = toLaminaError(e);
          this.#log.warn({ digest: blob.digest, code, error: message }, 'a layer cannot be completed');
        },
      );
    }
  }
}
