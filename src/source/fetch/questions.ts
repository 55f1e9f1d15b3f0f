/** What is asked of a registry beside layers: small documents, sizes, lists. */
import type { Digest } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import type { Descriptor } from '../../oci/descriptor.js';
import { fetchTimeout } from '../limits.js';
import type { RegistryClient } from '../registry/client.js';
import { protocolError } from '../registry/failures.js';
import { defaultRetry, retrying } from '../registry/retry.js';

/** Milliseconds in which a registry must say what refers to an image: that is only a hint, and a mount waits for it. */
const REFERRERS_MS = 5000;

/** In one attempt. Throws REGISTRY_UNREACHABLE where it takes too long, and what {@link RegistryClient.referrers} throws. */
export async function listReferrers(
  client: RegistryClient,
  repository: string,
  subject: Digest,
): Promise<readonly Descriptor[]> {
  const limit = Math.min(REFERRERS_MS, fetchTimeout());
  const late = new LaminaError('REGISTRY_UNREACHABLE', `${client.host} does not say it within ${limit / 1000} s`, {
    details: { host: client.host },
  });
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(late), limit);
  try {
    return await client.referrers(repository, subject, undefined, {
      signal: controller.signal,
      retry: { attempts: 1 },
    });
  } finally {
    clearTimeout(timer);
  }
}

/** Bytes of a blob. By HEAD; where the registry does not say it there, by asking for a byte. */
export async function sizeOf(client: RegistryClient, repository: string, digest: Digest): Promise<number> {
  const size = await client.blobSize(repository, digest);
  if (size !== undefined) return size;
  const answer = await client.blob(repository, digest, { offset: 0, length: 1 });
  await answer.cancel();
  if (answer.total !== undefined) return answer.total;
  throw protocolError(answer.host, `does not say how large ${digest} is`);
}

/** A small blob, not verified. One that is cut off is asked for again. `limit`: bytes that it may have. */
export function readDocument(
  client: RegistryClient,
  repository: string,
  { digest, limit, what }: { readonly digest: Digest; readonly limit: number; readonly what: string },
): Promise<Buffer> {
  const once = async (): Promise<Buffer> => {
    const answer = await client.blob(repository, digest, { retry: { attempts: 1 } });
    const parts: Uint8Array[] = [];
    let length = 0;
    for await (const bytes of answer.stream) {
      length += bytes.length;
      if (length > limit) {
        throw new LaminaError('BLOB_SIZE_MISMATCH', `${what} from ${answer.host} has more than ${limit} bytes`, {
          details: { digest, wanted: limit, host: answer.host },
        });
      }
      parts.push(bytes);
    }
    return Buffer.concat(parts);
  };
  return retrying(once, defaultRetry, undefined);
}
