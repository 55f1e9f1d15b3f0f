/** Reading blobs, whole or in part (distribution-spec "Pulling blobs"; RFC 9110, section 14). Nothing is verified here. */
import { LRUCache } from 'lru-cache';
import type { Digest } from '../../digest/index.js';
import type { Endpoint } from './endpoints.js';
import type { Call, Exchange } from './exchange.js';
import { encodedError, isSilence, isUnreachable, protocolError } from './failures.js';
import type { CallOptions } from './manifests.js';
import type { Answer } from './transport.js';

export interface BlobOptions extends CallOptions {
  /** Bytes from the start of the blob. Default 0. */
  readonly offset?: number | undefined;
  /** Bytes; up to the end when absent. At least 1. */
  readonly length?: number | undefined;
  /** Bytes of the whole blob, where that is known: what has another size is not taken from where a redirect once led to. */
  readonly size?: number | undefined;
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

interface Place {
  readonly url: URL;
  readonly endpoint: Endpoint;
}

/** What was asked for, and what is to be done when the bytes do not come. */
interface Wanted {
  readonly options: BlobOptions;
  readonly failed: (e: unknown) => void;
}

export class BlobReader {
  readonly #exchange: Exchange;
  readonly #places = new LRUCache<string, Place>({ max: PLACES_MAX });

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** Throws BLOB_MISSING, BLOB_SIZE_MISMATCH (416), REGISTRY_PROTOCOL and what {@link Exchange.run} throws. */
  async read(repository: string, digest: Digest, options: BlobOptions = {}): Promise<BlobAnswer> {
    const call = blobCall('GET', repository, digest, options);
    const key = `${repository}@${digest}`;
    const direct = await this.#direct(key, call, options);
    if (direct !== undefined) return direct;
    return this.#exchange.run(call, async (answer, endpoint) => {
      const place = { url: answer.url, endpoint };
      const failed = (e: unknown): void => {
        this.#forget(key, place, call);
        if (isUnreachable(e)) this.#exchange.rest(endpoint);
      };
      const ok = await this.#answer(answer, call, { options, failed });
      if (answer.url.host !== endpoint.host && fits(ok, options)) this.#places.set(key, place);
      return ok;
    });
  }

  /** Bytes of the blob, by HEAD; undefined where the registry has none. Throws as {@link read} does. */
  size(repository: string, digest: Digest, options: CallOptions = {}): Promise<number | undefined> {
    return this.#size(blobCall('HEAD', repository, digest, options));
  }

  /** The same of where blobs are pushed to: what a mirror has need not be there. */
  pushedSize(repository: string, digest: Digest, options: CallOptions = {}): Promise<number | undefined> {
    const call = blobCall('HEAD', repository, digest, options);
    return this.#size({ ...call, actions: 'pull,push', capability: 'push' });
  }

  #size(call: Call): Promise<number | undefined> {
    return this.#exchange.run(call, async (answer) => {
      if (answer.status !== 200 && answer.status !== 404) throw await this.#exchange.refusal(answer, call);
      await answer.cancel();
      return answer.status === 404 ? undefined : naturalNumber(answer.header('content-length'));
    });
  }

  /**
   * From where the last redirect has led to. Undefined: there is no such place, or it does not serve any more. Signed
   * addresses expire, which CDNs say by an error or by a page to log in, and hosts move: the registry knows another.
   */
  async #direct(key: string, call: Call, options: BlobOptions): Promise<BlobAnswer | undefined> {
    const place = this.#places.get(key);
    if (place === undefined) return undefined;
    const failed = (): void => this.#forget(key, place, call);
    try {
      const answer = await this.#exchange.sendTo(place.url, place.endpoint, call);
      const ok = await this.#answer(answer, call, { options, failed });
      if (fits(ok, options)) return ok;
      await ok.cancel();
    } catch {
      // What is wrong with the place is of no interest: the registry is asked.
    }
    failed();
    call.signal?.throwIfAborted();
    return undefined;
  }

  /** So that the registry is asked next, unless it was the caller who gave up. */
  #forget(key: string, place: Place, { signal }: Call): void {
    if (signal?.aborted === true && !isSilence(signal)) return;
    if (this.#places.get(key) === place) this.#places.delete(key);
  }

  async #answer(answer: Answer, call: Call, wanted: Wanted): Promise<BlobAnswer> {
    const ok = await this.#parse(answer, call, wanted);
    // Some objects are stored with the word and have the right bytes all the same.
    if (answer.encoding === undefined || wanted.options.size === undefined || fits(ok, wanted.options)) return ok;
    await ok.cancel();
    throw encodedError(answer);
  }

  async #parse(answer: Answer, call: Call, wanted: Wanted): Promise<BlobAnswer> {
    const ranged = call.headers?.['range'] !== undefined;
    if (answer.status === 206 && ranged) return partial(answer, wanted);
    if (answer.status !== 200) {
      const error = await this.#exchange.refusal(answer, call);
      throw answer.status === 206
        ? protocolError(answer.host, 'answers with a part that was not asked for', 206)
        : error;
    }
    const total = naturalNumber(answer.header('content-length'));
    return reply(answer, { offset: 0, length: total, total, partial: !ranged }, wanted);
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
async function partial(answer: Answer, wanted: Wanted): Promise<BlobAnswer> {
  const { offset = 0, length } = wanted.options;
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
  if (sound) return reply(answer, { offset, length: end - start + 1, total, partial: true }, wanted);
  await answer.cancel();
  const range = `bytes ${offset}-${length === undefined ? '' : offset + length - 1}`;
  throw protocolError(
    answer.host,
    `was asked for ${range} and answers with ${JSON.stringify(header.slice(0, 60))}`,
    206,
  );
}

/** Whether it may be what is wanted: where the size of that is known, the answer has to name it. */
function fits({ total }: BlobAnswer, { size }: BlobOptions): boolean {
  return size === undefined || total === size;
}

function reply(
  answer: Answer,
  facts: Pick<BlobAnswer, 'offset' | 'length' | 'total' | 'partial'>,
  { failed }: Wanted,
): BlobAnswer {
  return { ...facts, host: answer.host, stream: exactly(answer, facts.length, failed), cancel: () => answer.cancel() };
}

async function* exactly(
  answer: Answer,
  length: number | undefined,
  failed: Wanted['failed'],
): AsyncGenerator<Uint8Array, void, undefined> {
  let received = 0;
  try {
    for await (const bytes of answer.stream(length)) {
      received += bytes.length;
      if (length !== undefined && received > length) throw protocolError(answer.host, 'sends more than it said');
      yield bytes;
    }
  } catch (e) {
    failed(e);
    throw e;
  }
}

function naturalNumber(text: string | undefined): number | undefined {
  const number = text === undefined || !/^\d{1,16}$/.test(text) ? NaN : Number(text);
  return Number.isSafeInteger(number) ? number : undefined;
}
