/** Reading blobs, whole or in part (distribution-spec "Pulling blobs"; RFC 9110, section 14). Nothing is verified here. */
import { LRUCache } from 'lru-cache';
import type { Digest } from '../../digest/index.js';
import type { Endpoint } from './endpoints.js';
import type { Call, Exchange } from './exchange.js';
import { isTransient, protocolError } from './failures.js';
import type { CallOptions } from './manifests.js';
import type { Answer } from './transport.js';

export interface BlobOptions extends CallOptions {
  /** Bytes from the start of the blob. Default 0. */
  readonly offset?: number | undefined;
  /** Bytes; up to the end when absent. At least 1. */
  readonly length?: number | undefined;
}

export interface BlobAnswer {
  /** Of the first byte of {@link stream}: 0 when the whole blob comes although a part was asked for. */
  readonly offset: number;
  /** Bytes of {@link stream}, where the registry says so. It may be less than was asked for. */
  readonly length: number | undefined;
  /** Bytes of the blob, where the registry says so. */
  readonly total: number | undefined;
  /** Whether the range that was asked for comes; false: the whole blob, which the caller passes over once. */
  readonly partial: boolean;
  /** Where it comes from: the registry, a mirror or a CDN. */
  readonly host: string;
  /**
   * To be iterated to its end or left (`break`, `return()`), or {@link cancel}led. Not verified. Throws REGISTRY_UNREACHABLE
   * (transient) where it is cut off or stands still, REGISTRY_PROTOCOL where more comes than was said.
   */
  readonly stream: AsyncIterable<Uint8Array>;
  /** Gives up a stream that has not been begun. */
  cancel(): Promise<void>;
}

/** Places that redirects have led to, so that the next range goes there at once. */
const PLACES_MAX = 4096;

export class BlobReader {
  readonly #exchange: Exchange;
  readonly #places = new LRUCache<string, { url: URL; endpoint: Endpoint }>({ max: PLACES_MAX });

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** Throws BLOB_MISSING, BLOB_SIZE_MISMATCH (416), REGISTRY_PROTOCOL and what {@link Exchange.run} throws. */
  async read(repository: string, digest: Digest, options: BlobOptions = {}): Promise<BlobAnswer> {
    const { offset = 0, length } = options;
    const call = blobCall('GET', repository, digest, options);
    const place = `${repository}@${digest}`;
    const direct = await this.#direct(place, call);
    if (direct !== undefined) return this.#answer(direct, call, offset, length);
    return this.#exchange.run(call, async (answer, endpoint) => {
      const ok = await this.#answer(answer, call, offset, length);
      const elsewhere = new URL(answer.url).host !== endpoint.host;
      if (elsewhere) this.#places.set(place, { url: answer.url, endpoint });
      return ok;
    });
  }

  /** Bytes of the blob, by HEAD; undefined where the registry has none. Throws as {@link read} does. */
  size(repository: string, digest: Digest, options: CallOptions = {}): Promise<number | undefined> {
    const call = blobCall('HEAD', repository, digest, options);
    return this.#exchange.run(call, async (answer) => {
      if (answer.status !== 200 && answer.status !== 404) throw await this.#exchange.refusal(answer, call);
      await answer.cancel();
      return answer.status === 404 ? undefined : naturalNumber(answer.header('content-length'));
    });
  }

  /** From where the last redirect has led to. Undefined: there is no such place, or it does not serve any more. */
  async #direct(place: string, call: Call): Promise<Answer | undefined> {
    const known = this.#places.get(place);
    if (known === undefined) return undefined;
    try {
      const answer = await this.#exchange.sendTo(known.url, known.endpoint, call);
      if (answer.status === 200 || answer.status === 206 || answer.status === 416) return answer;
      await answer.cancel();
    } catch (e) {
      call.signal?.throwIfAborted();
      if (!isTransient(e)) throw e;
    }
    // Signed addresses expire, which CDNs say by 401, 403, 400 or 404: the registry gives another.
    this.#places.delete(place);
    return undefined;
  }

  async #answer(answer: Answer, call: Call, offset: number, length: number | undefined): Promise<BlobAnswer> {
    const ranged = call.headers?.['range'] !== undefined;
    if (answer.status === 206 && ranged) return partial(answer, offset, length);
    if (answer.status !== 200) {
      const error = await this.#exchange.refusal(answer, call);
      throw answer.status === 206
        ? protocolError(answer.host, 'answers with a part that was not asked for', 206)
        : error;
    }
    const total = naturalNumber(answer.header('content-length'));
    return reply(answer, { offset: 0, length: total, total, partial: !ranged });
  }
}

function blobCall(method: 'GET' | 'HEAD', repository: string, digest: Digest, options: BlobOptions): Call {
  const { offset = 0, length, signal, retry } = options;
  const whole = offset === 0 && length === undefined;
  const range = `bytes=${offset}-${length === undefined ? '' : offset + length - 1}`;
  return {
    method,
    repository,
    path: `blobs/${digest}`,
    actions: 'pull',
    capability: 'pull',
    headers: whole ? {} : { range },
    doing: { what: `read blob ${digest} of ${repository}`, missing: 'BLOB_MISSING' },
    signal,
    retry,
  };
}

/** Throws REGISTRY_PROTOCOL where it is not the part that was asked for, or not the beginning of it. */
async function partial(answer: Answer, offset: number, length: number | undefined): Promise<BlobAnswer> {
  const header = answer.header('content-range') ?? '';
  const [, first, last, all] = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i.exec(header.trim()) ?? [];
  const start = naturalNumber(first);
  const end = naturalNumber(last);
  const total = naturalNumber(all);
  const sound =
    start === offset &&
    end !== undefined &&
    end >= start &&
    (length === undefined || end < offset + length) &&
    (total === undefined || end < total) &&
    (naturalNumber(answer.header('content-length')) ?? end - start + 1) === end - start + 1;
  if (sound) return reply(answer, { offset, length: end - start + 1, total, partial: true });
  await answer.cancel();
  const wanted = `bytes ${offset}-${length === undefined ? '' : offset + length - 1}`;
  throw protocolError(
    answer.host,
    `was asked for ${wanted} and answers with ${JSON.stringify(header.slice(0, 60))}`,
    206,
  );
}

function reply(answer: Answer, facts: Pick<BlobAnswer, 'offset' | 'length' | 'total' | 'partial'>): BlobAnswer {
  return { ...facts, host: answer.host, stream: exactly(answer, facts.length), cancel: () => answer.cancel() };
}

async function* exactly(answer: Answer, length: number | undefined): AsyncGenerator<Uint8Array, void, undefined> {
  let received = 0;
  for await (const bytes of answer.stream(length)) {
    received += bytes.length;
    if (length !== undefined && received > length) throw protocolError(answer.host, 'sends more than it said');
    yield bytes;
  }
}

function naturalNumber(text: string | undefined): number | undefined {
  const number = text === undefined || !/^\d{1,16}$/.test(text) ? NaN : Number(text);
  return Number.isSafeInteger(number) ? number : undefined;
}
