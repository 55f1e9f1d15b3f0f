/**
 * What is fetched from registries, as the main thread of a process sees it. The thread that does it is started when
 * something is first asked of it; until then ports to it are only promises.
 */
import { randomUUID } from 'node:crypto';
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';
import { LRUCache } from 'lru-cache';
import type { Digest } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import type { Descriptor } from '../../oci/descriptor.js';
import { encodeCredentials, type Credentials } from '../registry/credentials.js';
import type { AppName } from '../registry/app-name.js';
import type { FetchedAci } from '../registry/ac-fetch.js';
import type { FetchedManifest } from '../registry/manifests.js';
import type { RegistryAccess } from './access.js';
import type { FetchWorkerData } from './fetch-worker.js';
import type { ByteRange } from './block-file.js';
import { FetchPort, useFetchPort } from './port.js';
import {
  TYPED_MAX,
  type DiscoveryAccess,
  type FromFetcher,
  type RemoteBlobSpec,
  type ToFetcher,
  type ToFetchThread,
  type WantedPart,
} from './protocol.js';

/** With the secrets, and the name that a {@link RegistryAccess} has for them. Goes from process to process, never to a file. */
export interface TypedCredentials {
  readonly name: string;
  readonly value: Readonly<Record<string, string>>;
}

export interface FetcherOptions {
  readonly userAgent: string;
  /** The thread died; what is asked of it from now on fails. */
  readonly onDeath?: ((error: Error) => void) | undefined;
  /** Credentials were typed: what {@link Fetcher.restore} takes. */
  readonly onKeep?: ((typed: TypedCredentials) => void) | undefined;
}

type Request<Op> = Op extends ToFetcher ? Omit<Op, 'id'> : never;

interface Pending {
  readonly resolve: (answer: FromFetcher) => void;
  readonly reject: (e: Error) => void;
}

/** Blobs of which it is remembered what was prefetched. */
const PREFETCHED_MAX = 256;

export class Fetcher {
  readonly #options: FetcherOptions;
  readonly #pending = new Map<number, Pending>();
  /** Names of credentials that were typed. */
  readonly #kept = new LRUCache<string, string>({ max: TYPED_MAX });
  /** Ports and credentials that the thread gets when it is started. */
  #waiting: { readonly message: ToFetchThread; readonly transfer: MessagePort[] }[] = [];
  #worker: Worker | undefined;
  #port: MessagePort | undefined;
  #dead: Error | undefined;
  #ids = 0;
  readonly #prefetched = new Map<Digest, ByteRange[]>();

  constructor(options: FetcherOptions) {
    this.#options = options;
  }

  /** A port for another thread, to be handed to a {@link FetchPort} there. */
  connect(): MessagePort {
    const { port1, port2 } = new MessageChannel();
    this.#tell({ op: 'connect', port: port1 }, [port1]);
    return port2;
  }

  /** Keeps typed credentials in memory, and gives the name by which a {@link RegistryAccess} means them. */
  keep(credentials: Credentials): string {
    const value = encodeCredentials(credentials);
    const key = JSON.stringify(value);
    const known = this.#kept.get(key);
    const typed = { name: known ?? randomUUID(), value };
    // Known or not: the thread may have dropped them.
    this.restore(typed);
    if (known === undefined) this.#options.onKeep?.(typed);
    return typed.name;
  }

  /** Those that some of these mean: for a process that fetches by itself. */
  typedFor(accesses: readonly RegistryAccess[]): TypedCredentials[] {
    const names = new Set(accesses.map(({ credentials }) => credentials));
    return [...this.#kept.entries()]
      .filter(([, name]) => names.has(name))
      .map(([text, name]) => ({ name, value: JSON.parse(text) as TypedCredentials['value'] }));
  }

  /** Credentials that another process kept. */
  restore({ name, value }: TypedCredentials): void {
    this.#kept.set(JSON.stringify(value), name);
    this.#tell({ op: 'credentials', name, value }, []);
  }

  /** By tag or digest, verified. Throws what {@link RegistryClient.manifest} throws. */
  async manifest(access: RegistryAccess, reference: string): Promise<FetchedManifest> {
    const { bytes, mediaType, digest } = await this.#ask({ op: 'manifest', access, reference });
    if (bytes === undefined || mediaType === undefined || digest === undefined) throw noAnswer();
    return { bytes: Buffer.from(bytes), mediaType, digest };
  }

  /** Throws what {@link RegistryClient.referrers} throws. */
  async referrers(access: RegistryAccess, subject: Digest): Promise<readonly Descriptor[]> {
    return (await this.#ask({ op: 'referrers', access, subject })).referrers ?? [];
  }

  /** A small blob, not verified. `limit`: bytes that it may have. Throws what {@link RegistryClient.blob} throws. */
  async document(access: RegistryAccess, digest: Digest, limit: number, what: string): Promise<Buffer> {
    const { bytes } = await this.#ask({ op: 'document', access, digest, limit, what });
    if (bytes === undefined) throw noAnswer();
    return Buffer.from(bytes);
  }

  /** Bytes of a blob, as the registry says. Throws what {@link RegistryClient.blob} throws. */
  async size(access: RegistryAccess, digest: Digest): Promise<number> {
    const { size } = await this.#ask({ op: 'size', access, digest });
    if (size === undefined) throw noAnswer();
    return size;
  }

  /** Fetches an appc image by its name into a file, which is made. Throws what {@link fetchAci} throws. */
  async aci(
    app: AppName,
    { tlsVerify, offline }: DiscoveryAccess,
    file: { readonly path: string; readonly limit: number },
  ): Promise<FetchedAci> {
    const { aci } = await this.#ask({ op: 'aci', app, access: { tlsVerify, offline }, ...file });
    if (aci === undefined) throw noAnswer();
    return aci;
  }

  /** Brings a part of a blob into the store. Throws what fetching throws. */
  async want(blob: RemoteBlobSpec, start: number, end: number): Promise<void> {
    await this.#ask({ op: 'want', blob, start, end });
  }

  /**
   * Begins to bring parts of blobs into the store, the first first. What fails is asked for again by who waits for it. `used`: what
   * of them will be used, where that is not all.
   */
  async prefetch(parts: readonly WantedPart[], used = parts): Promise<void> {
    // In place of what was said before: an image that cannot be mounted may be tried again and again.
    for (const { blob } of used) this.#prefetched.set(blob.digest, []);
    for (const { blob, start, end } of used) this.#prefetched.get(blob.digest)?.push({ start, end });
    while (this.#prefetched.size > PREFETCHED_MAX) this.takePrefetched([...this.#prefetched.keys()][0]!);
    if (parts.length > 0) await this.#ask({ op: 'prefetch', parts });
  }

  /** What will be used of what was prefetched of a blob last, the first first, unless it was asked before. */
  takePrefetched(digest: Digest): readonly ByteRange[] {
    const parts = this.#prefetched.get(digest) ?? [];
    this.#prefetched.delete(digest);
    return parts;
  }

  /** Brings all of a blob into the store, from its beginning on, until `signal` says to leave it. Throws what fetching throws. */
  async stream(blob: RemoteBlobSpec, signal: AbortSignal): Promise<void> {
    await this.#untilGiven('stream', blob, signal);
  }

  /**
   * The same when nobody waits for anything, and verifies the whole of it in the end. Throws what fetching throws, and
   * BLOB_DIGEST_MISMATCH.
   */
  async complete(blob: RemoteBlobSpec, signal: AbortSignal): Promise<void> {
    await this.#untilGiven('complete', blob, signal);
  }

  /** Bytes that somebody has waited for, of each blob by its path in the store, since it was first used. */
  async needed(paths: readonly string[]): Promise<readonly number[]> {
    if (this.#worker === undefined) return paths.map(() => 0);
    return (await this.#ask({ op: 'needed', paths })).needed ?? [];
  }

  async #untilGiven(op: 'stream' | 'complete', blob: RemoteBlobSpec, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const id = ++this.#ids;
    const stop = (): void => this.#port?.postMessage({ op: 'unstream', id } satisfies ToFetcher);
    signal.addEventListener('abort', stop, { once: true });
    try {
      await this.#ask({ op, blob }, id);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  /** What the store has of a blob is wrong, all of it. */
  async discard(blob: RemoteBlobSpec): Promise<void> {
    await this.#ask({ op: 'discard', blob, start: 0, end: blob.size });
  }

  /** Blobs that are opened in this thread, the main one, wait for what has to be fetched. */
  serveThisThread(): void {
    useFetchPort(() => {
      this.start();
      return new FetchPort(this.connect(), { waits: true });
    });
  }

  /** For blobs that threads read before anything is asked from here. */
  start(): void {
    this.#started();
  }

  async close(): Promise<void> {
    this.#dead ??= new LaminaError('INTERNAL', 'The fetch thread was closed');
    this.#port?.close();
    await this.#worker?.terminate();
  }

  async #ask(request: Request<ToFetcher>, id = ++this.#ids): Promise<FromFetcher> {
    const port = this.#started();
    const answer = await new Promise<FromFetcher>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#hold();
      port.postMessage({ ...request, id });
    });
    if (answer.error !== undefined) throw LaminaError.fromJSON(answer.error);
    return answer;
  }

  #started(): MessagePort {
    if (this.#dead !== undefined) throw this.#dead;
    if (this.#port !== undefined) return this.#port;
    const { userAgent } = this.#options;
    const workerData: FetchWorkerData = { userAgent };
    const worker = new Worker(new URL('./fetch-worker.js', import.meta.url), { workerData });
    worker.on('error', (e) => this.#died(e instanceof Error ? e : new Error(String(e))));
    worker.on('exit', (code) => this.#died(new Error(`The fetch thread ended with code ${code}`)));
    this.#worker = worker;
    const own = this.connect();
    this.#port = own;
    own.on('message', (answer: FromFetcher) => {
      this.#pending.get(answer.id)?.resolve(answer);
      this.#pending.delete(answer.id);
      this.#hold();
    });
    for (const { message, transfer } of this.#waiting) worker.postMessage(message, transfer);
    this.#waiting = [];
    this.#hold();
    return own;
  }

  /** The process lives for what is asked, and no longer. */
  #hold(): void {
    const held = this.#pending.size > 0;
    for (const handle of [this.#worker, this.#port]) {
      if (held) handle?.ref();
      else handle?.unref();
    }
  }

  #tell(message: ToFetchThread, transfer: MessagePort[]): void {
    if (this.#worker === undefined) this.#waiting.push({ message, transfer });
    else this.#worker.postMessage(message, transfer);
  }

  #died(error: Error): void {
    if (this.#dead !== undefined) return;
    this.#dead = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#hold();
    this.#options.onDeath?.(error);
  }
}

function noAnswer(): LaminaError {
  return new LaminaError('INTERNAL', 'The fetch thread answers with something else');
}
