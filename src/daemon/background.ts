/**
 * Completes the layers that are fetched when they are read: what nobody has read yet comes when nobody waits for anything, so
 * that in the end the registry is not needed any more. It may be paused, which a file in the run directory remembers.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LayerSource } from '../mount/layer-readers.js';
import { isLazy } from '../mount/layer-readers.js';
import type { Fetcher } from '../source/fetch/fetcher.js';
import { toLaminaError } from '../errors.js';
import type { Logger } from './log.js';
import type { RunDir } from './run-dir.js';

/** Milliseconds until a layer that could not be completed is tried again; they double each time, up to the second. */
const RETRY_MS = 5 * 60_000;
const RETRY_MAX_MS = 60 * 60_000;

type RegistryBlob = Extract<LayerSource['blob'], { readonly kind: 'registry' }>;

export interface BackgroundOptions {
  readonly fetcher: Pick<Fetcher, 'complete'>;
  readonly log: Logger;
  readonly run: RunDir;
  readonly retryMs?: number | undefined;
}

export class Background {
  readonly #fetcher: Pick<Fetcher, 'complete'>;
  readonly #log: Logger;
  readonly #run: RunDir;
  readonly #retryMs: number;
  #layers: readonly LayerSource[] = [];
  /** What shall be completed, as one of its mounts has it; by the blobs' paths. */
  #wanted: ReadonlyMap<string, RegistryBlob> = new Map();
  /** By the blobs' paths. */
  readonly #running = new Map<string, AbortController>();

  constructor({ fetcher, log, run, retryMs = RETRY_MS }: BackgroundOptions) {
    this.#fetcher = fetcher;
    this.#log = log;
    this.#run = run;
    this.#retryMs = retryMs;
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
    const blobs = (this.paused ? [] : layers).filter(isLazy).map(({ blob }) => blob);
    const wanted = blobs.filter((blob) => blob.kind === 'registry' && blob.access.offline !== true) as RegistryBlob[];
    this.#wanted = new Map(wanted.map((blob) => [blob.path, blob]));
    for (const [path, controller] of this.#running) {
      if (this.#wanted.has(path)) continue;
      controller.abort();
      this.#running.delete(path);
    }
    for (const path of this.#wanted.keys()) {
      if (this.#running.has(path)) continue;
      const controller = new AbortController();
      this.#running.set(path, controller);
      void this.#complete(path, controller.signal);
    }
  }

  /** Until it is here as a whole, or not wanted any more: what it failed with may pass. */
  async #complete(path: string, signal: AbortSignal): Promise<void> {
    for (let pause = this.#retryMs; ; pause = Math.min(2 * pause, RETRY_MAX_MS)) {
      const blob = this.#wanted.get(path);
      if (signal.aborted || blob === undefined) return;
      const { digest } = blob;
      try {
        await this.#fetcher.complete(blob, signal);
        if (!signal.aborted) this.#log.info({ digest }, 'a layer is here as a whole');
        return;
      } catch (e) {
        const { code, message } = toLaminaError(e);
        this.#log.warn({ digest, code, error: message }, 'a layer cannot be completed');
      }
      await sleep(pause, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }
}
