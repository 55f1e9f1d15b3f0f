/** The fetch thread: everything that is asked of registries, for all threads of the process. */
import { workerData, parentPort, type MessagePort } from 'node:worker_threads';
import type { Digest } from '../../digest/index.js';
import { LaminaError, toLaminaError } from '../../errors.js';
import { fetchTimeout } from '../limits.js';
import { FileCredentials } from '../registry/auth-file.js';
import { fetchAci } from '../registry/ac-fetch.js';
import { RegistryClient } from '../registry/client.js';
import { ConfiguredEndpoints } from '../registry/configuration.js';
import { FixedCredentials, decodeCredentials, type CredentialSource } from '../registry/credentials.js';
import { protocolError } from '../registry/failures.js';
import { Transport } from '../registry/transport.js';
import type { RegistryAccess } from './access.js';
import { BlockFile } from './block-file.js';
import { Download } from './download.js';
import { Lane, type Lanes } from './lanes.js';
import { DONE, FAILED, type FromFetcher, type RemoteBlobSpec, type ToFetcher, type ToFetchThread } from './protocol.js';

export interface FetchWorkerData {
  readonly userAgent: string;
  /** Of all blobs: bytes that came from the network. One 64-bit number. */
  readonly fetched: SharedArrayBuffer;
}

/** Transfers from one registry at once: of what somebody waits for, and of whole blobs. */
const DEMAND = 16;
const STREAMS = 4;

const { userAgent, fetched } = workerData as FetchWorkerData;
const counter = new BigUint64Array(fetched);
/** By host: one that hangs keeps no other waiting. */
const lanes = new Map<string, Lanes>();
const typed = new Map<string, Record<string, string>>();
const clients = new Map<string, RegistryClient>();
/** For appc images. */
let pages: Transport | undefined;
/** By their paths in the store. */
const downloads = new Map<string, { download: Download; file: BlockFile; access: RegistryAccess }>();

function lanesOf(host: string): Lanes {
  let ofHost = lanes.get(host);
  if (ofHost === undefined) lanes.set(host, (ofHost = { demand: new Lane(DEMAND), stream: new Lane(STREAMS) }));
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
    // What was typed is gone after a restart of the server: then what the files say has to do.
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
  if (known !== undefined) {
    // The latest image that has the blob is known to be somewhere.
    if (spec.access.offline !== true) known.access = spec.access;
    return known.download;
  }
  const file = BlockFile.create(spec.path, spec.size);
  const download = new Download({
    spec,
    file,
    lanes: lanesOf(spec.access.host),
    recoverMs: fetchTimeout(),
    client: () => clientFor(downloads.get(spec.path)?.access ?? spec.access),
    onBytes: (bytes) => void Atomics.add(counter, 0, BigInt(bytes)),
  });
  downloads.set(spec.path, { download, file, access: spec.access });
  return download;
}

/** Files of blobs that nobody fetches are not kept open. */
function closeIdle(): void {
  for (const [path, { download, file }] of downloads) {
    if (!download.idle) continue;
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
    closeIdle();
    if (done === undefined || answer.error !== undefined) this.#port.postMessage(answer);
    if (done === undefined) return;
    Atomics.store(done, 0, answer.error === undefined ? DONE : FAILED);
    Atomics.notify(done, 0);
  }

  async #handle(request: Exclude<ToFetcher, { op: 'unstream' }>): Promise<Answer> {
    switch (request.op) {
      case 'want':
        await downloadOf(request.blob).want(request.start, request.end);
        return {};
      case 'discard':
        downloadOf(request.blob);
        downloads.get(request.blob.path)?.file.unmark(request.start, request.end);
        return {};
      case 'stream':
        await this.#stream(request.id, request.blob);
        return {};
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

  async #stream(id: number, blob: RemoteBlobSpec): Promise<void> {
    const controller = new AbortController();
    this.#streams.set(id, controller);
    try {
      await downloadOf(blob).stream(controller.signal);
    } finally {
      this.#streams.delete(id);
    }
  }
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

parentPort?.on('message', (message: ToFetchThread) => {
  if (message.op === 'connect') new Client(message.port);
  else typed.set(message.name, message.value);
});
