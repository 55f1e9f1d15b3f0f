/** From the IMAGE argument to an image that can be looked into. */
import { prepareImage, type PreparedImage } from '../image/prepare.js';
import { ImageTree } from '../image/tree.js';
import { parsePlatform } from '../oci/platform.js';
import type { Image } from '../source/image.js';
import { resolveImage } from '../source/index.js';
import { Fetcher } from '../source/fetch/fetcher.js';
import { isRemote } from '../source/reference.js';
import type { RegistrySource } from '../source/registry-image.js';
import { parseCredentials } from '../source/registry/credentials.js';
import { Store } from '../store/store.js';
import type { Context } from './context.js';
import { aciPathOf, referenceOf } from './image-argument.js';
import type { ImageOptions, TreeOptions } from './options.js';
import { accessOf, userAgent, type PullOptions } from './registry-options.js';
import { interruptible } from './signals.js';

/** Of this process, which asks registries itself: by the command's context. */
const fetchers = new WeakMap<Context, Fetcher>();

function fetcherOf(context: Context): Fetcher {
  const fetcher = fetchers.get(context) ?? new Fetcher({ userAgent: userAgent() });
  fetchers.set(context, fetcher);
  return fetcher;
}

/** Documents only: nothing of a layer is read. `store`: where those of registries are kept, if it is not the context's. */
export async function openImage(
  context: Context,
  text: string,
  options: ImageOptions & { readonly store?: string },
): Promise<Image> {
  const reference = await referenceOf(context, text);
  const platform = options.platform === undefined ? undefined : parsePlatform(options.platform);
  if (reference.kind === 'docker') fetcherOf(context).serveThisThread();
  const progress = context.progress();
  let image: Image;
  try {
    image = await resolveImage(reference, {
      platform,
      aciPath: aciPathOf(context, options),
      registry: isRemote(reference) ? registrySource(context, options, options.store ?? context.store) : undefined,
      onWait: () => progress.onProgress({ type: 'waiting', reference: reference.text }),
    });
  } finally {
    progress.end();
  }
  for (const warning of image.warnings) context.out.warn(warning);
  return image;
}

/** How this process asks registries. */
function registrySource(context: Context, options: PullOptions, store: string): RegistrySource {
  const { creds } = options;
  const fetcher = fetcherOf(context);
  const credentials = creds === undefined ? {} : { credentials: fetcher.keep(parseCredentials(creds)) };
  return {
    fetcher,
    store: Store.open(store),
    pull: options.pull ?? 'missing',
    access: { ...accessOf(context, options), ...credentials },
  };
}

/** Indexes what is not indexed yet, showing progress. */
export async function prepare(
  context: Context,
  image: Image,
  options: TreeOptions & { readonly signal: AbortSignal; readonly store?: string },
): Promise<PreparedImage> {
  const progress = context.progress();
  try {
    const prepared = await prepareImage(image, {
      store: Store.open(options.store ?? context.store),
      compat: options.compat ?? 'spec',
      onProgress: progress.onProgress,
      signal: options.signal,
      fetcher: fetcherOf(context),
    });
    // Once: they are in the index, and `inspect` shows them again.
    for (const note of prepared.notes) context.out.warn(note);
    return prepared;
  } finally {
    progress.end();
  }
}

/** Opens the tree of an image, hands it to `use`, and closes it. */
export async function withTree<T>(
  context: Context,
  text: string,
  options: TreeOptions,
  use: (tree: ImageTree) => Promise<T> | T,
): Promise<T> {
  const image = await openImage(context, text, options);
  const prepared = await interruptible((signal) => prepare(context, image, { ...options, signal }));
  const tree = ImageTree.open(prepared);
  try {
    return await use(tree);
  } finally {
    tree.close();
  }
}
