/** Fetches an appc image by its name into a file. What it is, is for the caller to see: a name says no digest. */
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { createHasher, type Digest } from '../../digest/index.js';
import { LaminaError, toLaminaError } from '../../errors.js';
import { tooLarge } from '../../oci/limits.js';
import { discover, getFollowing, type DiscoveryOptions } from './ac-discovery.js';
import type { AppName } from './app-name.js';
import { statusError } from './failures.js';
import { defaultRetry, retrying } from './retry.js';

/** Places of one image that are tried. */
const PLACES_MAX = 8;

export interface FetchedAci {
  /** Where it came from, before redirects. */
  readonly url: string;
  /** SHA-256 of the file: not the image ID, which is of what it decompresses to. */
  readonly digest: Digest;
  /** Where the keys are that should have signed it. */
  readonly publicKeys: readonly string[];
}

export interface AciDownload extends DiscoveryOptions {
  /** The file, which is written anew. */
  readonly path: string;
  /** Bytes that it may have. */
  readonly limit: number;
}

/** From the first place that has it. Throws what {@link discover} throws, IMAGE_NOT_FOUND, LIMIT_EXCEEDED, DISK_FULL, IO. */
export async function fetchAci(app: AppName, options: AciDownload): Promise<FetchedAci> {
  const { signal } = options;
  const { images, publicKeys } = await retrying(() => discover(app, options), defaultRetry, signal);
  let failure: LaminaError | undefined;
  for (const { aci: url } of images.slice(0, PLACES_MAX)) {
    try {
      const digest = await retrying(() => download(new URL(url), app, options), defaultRetry, signal);
      return { url, digest, publicKeys };
    } catch (e) {
      failure ??= toLaminaError(e, `Fetching ${app.name}`);
      // Another place does not help a full disk.
      if (!/^REGISTRY_|^IMAGE_NOT_FOUND$/.test(failure.code)) break;
    }
  }
  throw failure ?? new LaminaError('IMAGE_NOT_FOUND', `Cannot find ${app.name}`);
}

async function download(url: URL, app: AppName, options: AciDownload): Promise<Digest> {
  const { path, limit } = options;
  const answer = await getFollowing(url, app, options);
  if (answer.status !== 200) {
    const doing = { what: `fetch ${app.name}`, missing: 'IMAGE_NOT_FOUND' } as const;
    const { code, message, details } = await statusError(answer, doing, url.host);
    throw new LaminaError(code, message, { details });
  }
  const what = `${app.name} from ${answer.host}`;
  const said = Number(answer.header('content-length') ?? NaN);
  const length = Number.isSafeInteger(said) ? said : undefined;
  if (length !== undefined && length > limit) {
    await answer.cancel();
    throw tooLarge(what, length, limit);
  }
  const hasher = createHasher();
  const file = openSync(path, 'w', 0o600);
  let size = 0;
  try {
    for await (const bytes of answer.stream(length)) {
      size += bytes.length;
      if (size > limit) throw tooLarge(what, size, limit);
      hasher.update(bytes);
      for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done);
    }
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return hasher.digest();
}
