/** Images that the daemon is asked for: resolved and prepared. Of many that want the same new image, one indexes it and the others find it done. */
import type { RuntimeOptions, RuntimeSpec } from '../bundle/runtime-config.js';
import { layerKey, prepareImage, type PreparedImage } from '../image/prepare.js';
import { PrepareThreads } from '../image/prepare-threads.js';
import type { OnProgress } from '../image/progress.js';
import { parsePlatform } from '../oci/platform.js';
import type { Fetcher } from '../source/fetch/fetcher.js';
import type { Image } from '../source/image.js';
import { resolveImage } from '../source/index.js';
import { parseFullReference } from '../source/sniff.js';
import type { Store } from '../store/store.js';
import type { ImageRequest, PrepareEvent } from './protocol.js';
import { registrySource } from './registry-source.js';
import { Serial } from './serial.js';

export interface ImagesOptions {
  readonly store: Store;
  readonly fetcher: Fetcher;
  /** Whether nothing shall be fetched that nobody waits for. */
  readonly onlyWhatIsRead: () => boolean;
  /** Throws where an image must not be used. */
  readonly check: (image: Image) => Promise<void>;
}

type OnEvent = (event: PrepareEvent) => void;

export class Images {
  readonly #options: ImagesOptions;
  readonly #preparing = new Serial();

  constructor(options: ImagesOptions) {
    this.#options = options;
  }

  /** `configures`: whether {@link configure} will follow. Throws what {@link resolveImage} and {@link prepareImage} throw. */
  async prepare(
    request: ImageRequest,
    { configures }: { readonly configures: boolean },
    onEvent: OnEvent,
    signal: AbortSignal,
  ): Promise<PreparedImage> {
    const { store, fetcher, check } = this.#options;
    const reference = parseFullReference(request.reference);
    const platform = request.platform === undefined ? undefined : parsePlatform(request.platform);
    const registry = registrySource(request.registry, this.#options);
    const onProgress: OnProgress = (event) => onEvent({ type: 'progress', event });
    const onWait = (): void => onProgress({ type: 'waiting', reference: request.reference });
    const image = await resolveImage(reference, { platform, aciPath: request.aciPath, registry, onWait, signal });
    await check(image);
    signal.throwIfAborted();
    const prepared = await this.#preparing.run(image.layers.map(layerKey).join(), () => {
      signal.throwIfAborted();
      const prefetches = !this.#options.onlyWhatIsRead();
      const { compat } = request;
      return prepareImage(image, { store, compat, onProgress, signal, fetcher, prefetches, configures });
    });
    for (const message of [...image.warnings, ...prepared.notes]) onEvent({ type: 'warning', message });
    return prepared;
  }

  /** A runtime's config for the image. Throws what `configOf` throws. */
  async configure(
    prepared: PreparedImage,
    options: RuntimeOptions,
    onEvent: OnEvent,
    signal: AbortSignal,
  ): Promise<RuntimeSpec> {
    const threads = new PrepareThreads(this.#options.fetcher);
    const { config, warnings } = await threads.configure({ prepared, options }, signal);
    for (const message of warnings) onEvent({ type: 'warning', message });
    return config;
  }
}
