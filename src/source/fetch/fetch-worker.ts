/** The fetch thread: everything that is asked of registries, for all threads of the process. */
import { setImmediate } from 'node:timers/promises';
import { workerData, parentPort, type MessagePort } from 'node:worker_threads';
import { createHasher, type Digest } from '../../digest/index.js';
import { LaminaError, toLaminaError } from '../../errors.js';
import { backgroundRate, fetchTimeout } from '../limits.js';
import { FileCredentials } from '../registry/auth-file.js';
import { fetchAci } from '../registry/ac-fetch.js';
import { RegistryClient } from '../registry/client.js';
import { ConfiguredEndpoints } from '../registry/configuration.js';
import { FixedCredentials, decodeCredentials, type CredentialSource } from '../registry/credentials.js';
import { protocolError } from '../registry/failures.js';
import { Transport } from '../registry/transport.js';
import type { RegistryAccess } from './access.js';
import { BlockFile } from './block-file.js';
import { Download, offline } from './download.js';
import { Lane, type Lanes } from './lanes.js';
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
const typed = new Map<string, Record<string, string>>();
const clients = new Map<string, RegistryClient>();
/** For appc images. */
let pages: Transport | undefined;
/** By their paths in the store. */
const downloads = new Map<string, KnownBlob>();

interface KnownBlob {
  readonly download: Download;
  readonly file: BlockFile;
  access: RegistryAccess;
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

/** One for each way to reach a registry: connections, tokens and the place of a redirect are its. */
function clientFor(access: RegistryAccess): RegistryClient | undefined {
  if (access.offline === true) return undefined;
  const { host, tlsVerify, places, credentials: name } = access;
  const value = name === undefined ? undefined : typed.get(name);
  const key = JSON.stringify([host, tlsVerify, places, value === undefined ? null : name]);
  let client = clients.get(key);
  if (client === undefined) {
    // What was typed is gone when the supervisor has died too: then what the files say has to do.
    const credentials: CredentialSource =
      value === undefined ? new FileCredentials(places) : new FixedCredentials(host, decodeCredentials(value));
    const endpoints = new ConfiguredEndpoints({ env: { ...process.env, ...places.env }, tlsVerify });
    client = new RegistryClient({ host, credentials, endpoints, userAgent });
    clients.set(key, client);
  }
  return client;
}

function downloadOf(spec: RemoteBlobSpec): Download {
  const known = downloads.get(spec.path);
  // Somebody may have cleared the store.
  if (known?.file.isInPlace() === true) {
    known.used = Date.now();
    // The latest image that has the blob is known to be somewhere.
    if (spec.access.offline !== true) known.access = spec.access;
    return known.download;
  }
  const file = BlockFile.create(spec.path, spec.size);
  const download = new Download({
    spec,
    file,
    trace: new TraceFile(spec.path),
    lanes: lanesOf(spec.access.host),
    recoverMs: fetchTimeout(),
    client: () => clientFor(downloads.get(spec.path)?.access ?? spec.access),
  });
  if (known?.download.idle === true) known.file.close();
  downloads.set(spec.path, { download, file, access: spec.access, used: Date.now() });
  return download;
}

/** Files of blobs that nobody fetches are not kept open. */
function closeIdle(): void {
  for (const [path, { download, file, used }] of downloads) {
    if (!download.idle || Date.now() - used < IDLE_MS) continue;
    file.close();
    downloads.delete(path);
  }
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

  async #handle(request: Exclude<ToFetcher, { op: 'unstream' }>): Promise<Answer> {
    switch (request.op) {
      case 'want':
        await want(request);
        return {};
      case 'discard':
        downloadOf(request.blob);
        downloads.get(request.blob.path)?.file.unmark(request.start, request.end);
        return {};
      case 'stream':
        await this.#until(request.id, (signal) => downloadOf(request.blob).stream(signal));
        return {};
      case 'complete':
        await this.#until(request.id, (signal) => complete(request.blob, signal));
        return {};
      case 'prefetch':
        for (const { blob, start, end } of request.parts) prefetch(blob, start, end);
        return {};
      case 'needed':
        return { needed: request.paths.map((path) => downloads.get(path)?.download.needed ?? 0) };
      case 'referrers': {
        const { access, subject } = request;
        return { referrers: await reachable(access).referrers(access.repository, subject) };
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
        return { size: await sizeOf(request.access, request.digest) };
      case 'document': {
        const { access, digest, limit, what } = request;
        return { bytes: await readDocument(access, digest, limit, what) };
      }
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
  const download = downloadOf(blob);
  // Another mount may have the same blob and ask for it.
  if (blob.access.offline === true && !download.has(start, end)) throw offline(blob);
  await download.want(start, end, mounted);
}

function prefetch(blob: RemoteBlobSpec, start: number, end: number): void {
  if (blob.access.offline === true) return;
  downloadOf(blob).prefetch(start, end);
}

async function complete(blob: RemoteBlobSpec, signal: AbortSignal): Promise<void> {
  const rate = backgroundRate();
  if (rate === 0) return new Promise((resolve) => signal.addEventListener('abort', () => resolve()));
  await downloadOf(blob).complete(rate, signal);
  if (signal.aborted) return;
  const got = await digestOfFile(blob);
  if (got === blob.digest) return;
  downloads.get(blob.path)?.file.unmark(0, blob.size);
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
  for (let at = 0; at < size; at += PIECE) {
    hasher.update(piece.subarray(0, file?.read(at, piece)));
    // Others are waiting, perhaps.
    await setImmediate();
  }
  file?.close();
  return hasher.digest();
}

function reachable(access: RegistryAccess): RegistryClient {
  const client = clientFor(access);
  if (client !== undefined) return client;
  throw forbidden();
}

function forbidden(): LaminaError {
  return new LaminaError('INTERNAL', 'The network is asked although that is forbidden');
}

/** By HEAD; where the registry does not say it there, by asking for a byte. */
async function sizeOf(access: RegistryAccess, digest: Digest): Promise<number> {
  const client = reachable(access);
  const size = await client.blobSize(access.repository, digest);
  if (size !== undefined) return size;
  const answer = await client.blob(access.repository, digest, { offset: 0, length: 1 });
  await answer.cancel();
  if (answer.total !== undefined) return answer.total;
  throw protocolError(answer.host, `does not say how large ${digest} is`);
}

async function readDocument(access: RegistryAccess, digest: Digest, limit: number, what: string): Promise<Buffer> {
  const answer = await reachable(access).blob(access.repository, digest);
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
}

setInterval(closeIdle, IDLE_MS).unref();

parentPort?.on('message', (message: ToFetchThread) => {
  if (message.op === 'connect') new Client(message.port);
  else typed.set(message.name, message.value);
});
