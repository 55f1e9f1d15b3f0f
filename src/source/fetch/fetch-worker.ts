/** The fetch thread: everything that is asked of registries, for all threads of the process. */
import { setImmediate } from 'node:timers/promises';
import { workerData, parentPort, type MessagePort } from 'node:worker_threads';
import { createHasher, type Digest } from '../../digest/index.js';
import { LaminaError, toLaminaError } from '../../errors.js';
import { backgroundRate, fetchTimeout } from '../limits.js';
import { fetchAci } from '../registry/ac-fetch.js';
import type { RegistryClient } from '../registry/client.js';
import { Transport } from '../registry/transport.js';
import type { RegistryAccess } from './access.js';
import { BlockFile } from './block-file.js';
import { Clients } from './clients.js';
import { Download, offline } from './download.js';
import { Lane, type Lanes } from './lanes.js';
import { listReferrers, readDocument, sizeOf } from './questions.js';
import { TraceFile } from './trace-file.js';
import { DONE, FAILED, type FromFetcher, type RemoteBlobSpec, type ToFetcher, type ToFetchThread } from './protocol.js';

export interface FetchWorkerData {
  readonly userAgent: string;
}

/** Transfers from one registry at once: of what somebody waits for, of what will be wanted next, and of whole blobs. */
const DEMAND = 16;
const AHEAD = 4;
const STREAMS = 4;

const { userAgent } = workerData as FetchWorkerData;
/** By host: one that hangs keeps no other waiting. */
const lanes = new Map<string, Lanes>();
const clients = new Clients(userAgent);
/** For appc images. */
let pages: Transport | undefined;
/** By their sizes and their paths in the store. */
const downloads = new Map<string, KnownBlob>();
/** Those whose files have gone from the store while they were in use. */
const replaced = new Set<KnownBlob>();

interface KnownBlob {
  readonly path: string;
  readonly download: Download;
  readonly file: BlockFile;
  readonly trace: TraceFile;
  /** Milliseconds since 1970. */
  used: number;
}

/** Milliseconds that what is known of a blob's readers is kept, and its file open. */
const IDLE_MS = 10_000;

function lanesOf(host: string): Lanes {
  let ofHost = lanes.get(host);
  if (ofHost === undefined)
    lanes.set(
      host,
      (ofHost = {
        demand: new Lane(DEMAND),
        ahead: new Lane(AHEAD),
        stream: new Lane(STREAMS),
        background: new Lane(1),
      }),
    );
  return ofHost;
}

function keyOf({ path, size }: RemoteBlobSpec): string {
  return `${size} ${path}`;
}

function known(blob: RemoteBlobSpec): KnownBlob {
  const { path, size, digest } = blob;
  const key = keyOf(blob);
  const before = downloads.get(key);
  // Somebody may have cleared the store.
  if (before?.file.isInPlace() === true) {
    before.used = Date.now();
    return before;
  }
  const file = BlockFile.create(path, size);
  const trace = new TraceFile(path);
  const clientFor = (access: RegistryAccess): RegistryClient | undefined => clients.for(access);
  const download = new Download({ digest, file, trace, clientFor, lanesOf, recoverMs: fetchTimeout() });
  if (before !== undefined) replaced.add(before);
  const now: KnownBlob = { path, download, file, trace, used: Date.now() };
  downloads.set(key, now);
  return now;
}

/** Files of blobs that nobody fetches are not kept open, nor what is known of registries for long. */
function closeIdle(): void {
  for (const [key, { download, file, used }] of downloads) {
    if (!download.idle || Date.now() - used < IDLE_MS) continue;
    file.close();
    downloads.delete(key);
  }
  for (const blob of replaced) {
    if (!blob.download.idle) continue;
    blob.file.close();
    replaced.delete(blob);
  }
  clients.dropOld();
}

/** Bytes that somebody has waited for. */
function neededOf(path: string): number {
  return [...downloads.values()].find((blob) => blob.path === path)?.download.needed ?? 0;
}

type Answer = Omit<FromFetcher, 'id' | 'error'>;

class Client {
  readonly #port: MessagePort;
  readonly #streams = new Map<number, AbortController>();

  constructor(port: MessagePort) {
    this.#port = port;
    port.on('message', (request: ToFetcher) => void this.#take(request));
    port.on('close', () => {
      for (const stream of this.#streams.values()) stream.abort();
    });
  }

  async #take(request: ToFetcher): Promise<void> {
    if (request.op === 'unstream') {
      this.#streams.get(request.id)?.abort();
      return;
    }
    if (request.op === 'used') return note(request);
    const { id } = request;
    const done = 'done' in request ? request.done : undefined;
    let answer: FromFetcher;
    try {
      answer = { id, ...(await this.#handle(request)) };
    } catch (e) {
      answer = { id, error: toLaminaError(e).toJSON() };
    }
    if (done === undefined || answer.error !== undefined) this.#port.postMessage(answer);
    if (done === undefined) return;
    Atomics.store(done, 0, answer.error === undefined ? DONE : FAILED);
    Atomics.notify(done, 0);
  }

  async #handle(request: Exclude<ToFetcher, { op: 'unstream' | 'used' }>): Promise<Answer> {
    switch (request.op) {
      case 'want':
        await want(request);
        return {};
      case 'discard':
        known(request.blob).file.unmark(request.start, request.end);
        return {};
      case 'stream':
        await this.#until(request.id, (signal) => known(request.blob).download.stream(request.blob.access, signal));
        return {};
      case 'complete':
        await this.#until(request.id, (signal) => complete(request.blob, signal));
        return {};
      case 'prefetch':
        for (const { blob, start, end } of request.parts) prefetch(blob, start, end);
        return {};
      case 'needed':
        return { needed: request.paths.map(neededOf) };
      case 'referrers': {
        const { access, subject } = request;
        return { referrers: await listReferrers(reachable(access), access.repository, subject) };
      }
      case 'manifest': {
        const { access, reference } = request;
        return await reachable(access).manifest(access.repository, reference);
      }
      case 'aci': {
        const { app, access, path, limit } = request;
        if (access.offline === true) throw forbidden();
        pages ??= new Transport({ env: process.env, userAgent });
        const insecure = access.tlsVerify === undefined ? undefined : !access.tlsVerify;
        return { aci: await fetchAci(app, { transport: pages, insecure, path, limit }) };
      }
      case 'size':
        return { size: await sizeOf(reachable(request.access), request.access.repository, request.digest) };
      case 'document':
        return { bytes: await readDocument(reachable(request.access), request.access.repository, request) };
    }
  }

  async #until(id: number, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const controller = new AbortController();
    this.#streams.set(id, controller);
    try {
      await work(controller.signal);
    } finally {
      this.#streams.delete(id);
    }
  }
}

async function want({ blob, start, end, mounted = false }: Extract<ToFetcher, { op: 'want' }>): Promise<void> {
  const { download } = known(blob);
  // Another mount may have the same blob and ask for it.
  if (blob.access.offline === true && !download.has(start, end)) throw offline(blob);
  await download.want({ access: blob.access, start, end }, mounted);
}

/** Nothing is lost where it cannot be noted. */
function note({ blob, start, end }: Extract<ToFetcher, { op: 'used' }>): void {
  try {
    (downloads.get(keyOf(blob)) ?? known(blob)).trace.add({ start, end });
  } catch (e) {
    if (!(e instanceof LaminaError)) throw e;
  }
}

function prefetch(blob: RemoteBlobSpec, start: number, end: number): void {
  if (blob.access.offline === true) return;
  known(blob).download.prefetch({ access: blob.access, start, end });
}

async function complete(blob: RemoteBlobSpec, signal: AbortSignal): Promise<void> {
  const rate = backgroundRate();
  if (rate === 0) return new Promise((resolve) => signal.addEventListener('abort', () => resolve()));
  await known(blob).download.complete(blob.access, rate, signal);
  if (signal.aborted) return;
  const got = await digestOfFile(blob);
  if (got === blob.digest) return;
  known(blob).file.unmark(0, blob.size);
  throw new LaminaError(
    'BLOB_DIGEST_MISMATCH',
    `The blob does not match its digest (wanted ${blob.digest}, got ${got})`,
    {
      details: { wanted: blob.digest, got },
    },
  );
}

const PIECE = 1024 * 1024;

async function digestOfFile({ path, size, digest }: RemoteBlobSpec): Promise<Digest> {
  const hasher = createHasher(digest);
  const file = BlockFile.open(path, size);
  const piece = Buffer.allocUnsafe(PIECE);
  try {
    for (let at = 0; at < size; at += PIECE) {
      hasher.update(piece.subarray(0, file?.read(at, piece)));
      // Others are waiting, perhaps.
      await setImmediate();
    }
  } finally {
    file?.close();
  }
  return hasher.digest();
}

function reachable(access: RegistryAccess): RegistryClient {
  const client = clients.for(access);
  if (client !== undefined) return client;
  throw forbidden();
}

function forbidden(): LaminaError {
  return new LaminaError('INTERNAL', 'The network is asked although that is forbidden');
}

setInterval(closeIdle, IDLE_MS).unref();

parentPort?.on('message', (message: ToFetchThread) => {
  if (message.op === 'connect') new Client(message.port);
  else clients.keep(message.name, message.value);
});
