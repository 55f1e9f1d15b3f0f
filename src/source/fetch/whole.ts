/** Reading a registry's blob from front to back while it comes. */
import { LaminaError } from '../../errors.js';
import { fetchedBytes } from './block-file.js';
import type { Fetcher } from './fetcher.js';
import type { RemoteBlobSpec } from './protocol.js';

/**
 * Has all of a blob fetched, in one request, while `work` reads it to its end. What is left in the store of an earlier time may
 * be damaged: where `work` throws BLOB_DIGEST_MISMATCH for that, all of it comes anew, once. Throws what `work` throws.
 */
export async function whileFetching<T>(
  blob: RemoteBlobSpec,
  fetcher: Fetcher,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  for (let first = true; ; first = false) {
    const before = fetchedBytes(blob.path, blob.size);
    const done = new AbortController();
    // What fails there fails for who reads, too.
    void fetcher.stream(blob, AbortSignal.any([signal, done.signal])).catch(() => undefined);
    try {
      return await work();
    } catch (e) {
      if (!(e instanceof LaminaError) || e.code !== 'BLOB_DIGEST_MISMATCH') throw e;
      await fetcher.discard(blob);
      if (!first || before === 0) throw e;
    } finally {
      done.abort();
    }
  }
}
