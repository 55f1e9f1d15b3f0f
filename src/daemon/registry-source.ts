/** How a mount's registry is asked: as whoever mounts would ask it. */
import { PrepareThreads } from '../image/prepare-threads.js';
import { placesOf } from '../source/fetch/access.js';
import type { Fetcher } from '../source/fetch/fetcher.js';
import type { RegistrySource } from '../source/registry-image.js';
import { decodeCredentials } from '../source/registry/credentials.js';
import type { Store } from '../store/store.js';
import type { MountRequest } from './protocol.js';

/** Without a word on it, as the daemon itself would. Throws USAGE. */
export function registrySource(
  request: MountRequest['registry'],
  { fetcher, store }: { readonly fetcher: Fetcher; readonly store: Store },
): RegistrySource {
  const {
    pull = 'missing',
    access = { places: placesOf(process.env, { uid: process.getuid?.() ?? 0 }) },
    credentials,
  } = request ?? {};
  const typed = credentials === undefined ? {} : { credentials: fetcher.keep(decodeCredentials(credentials)) };
  const onAsk = (): void => new PrepareThreads(fetcher).warm();
  return { fetcher, store, pull, access: { ...access, ...typed }, onAsk };
}
