/** What is fetched into the store, of registries that are slow, silent, wrong or in a hurry. */
import { readFileSync, readdirSync, statSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { parseDigest } from '../../src/digest/index.js';
import type { RegistryAccess } from '../../src/source/fetch/access.js';
import { BlockFile } from '../../src/source/fetch/block-file.js';
import { Clients } from '../../src/source/fetch/clients.js';
import { Download } from '../../src/source/fetch/download.js';
import { Fetcher } from '../../src/source/fetch/fetcher.js';
import { Lane } from '../../src/source/fetch/lanes.js';
import type { RemoteBlobSpec } from '../../src/source/fetch/protocol.js';
import { TraceFile } from '../../src/source/fetch/trace-file.js';
import type { BlobAnswer, BlobOptions } from '../../src/source/registry/blobs.js';
import type { RegistryClient } from '../../src/source/registry/client.js';
import { registryBlob } from '../../src/source/registry-documents.js';
import { Store } from '../../src/store/store.js';
import { codeOf, codeOfRejection } from '../support/failure.js';
import { digest as digestOf } from '../support/images.js';
import { serve, type FakeServer, type Seen } from '../support/registry.js';
import { tempDir } from '../support/tmp.js';

const bytes = Buffer.alloc(1024 * 1024, 7);
const digest = parseDigest(digestOf(bytes));

function accessOf(host: string, repository = 'a'): RegistryAccess {
  return { host, repository, places: { env: {}, uid: 0 } };
}

/** `seconds`: LAMINA_FETCH_TIMEOUT of its thread. */
function openFetcher(t: Test, seconds: number): Fetcher {
  process.env['LAMINA_FETCH_TIMEOUT'] = String(seconds);
  const fetcher = new Fetcher({ userAgent: 'test' });
  fetcher.start();
  t.teardown(() => fetcher.close());
  return fetcher;
}

function sendPart({ headers }: Seen, response: ServerResponse): void {
  const [, first, last] = /bytes=(\d+)-(\d+)/.exec(headers.range ?? '') ?? [];
  if (first === undefined || last === undefined) {
    response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    return;
  }
  const part = bytes.subarray(Number(first), Number(last) + 1);
  const range = `bytes ${first}-${Number(first) + part.length - 1}/${bytes.length}`;
  response.writeHead(206, { 'content-length': part.length, 'content-range': range }).end(part);
}

/** Answers the question for TLS itself. `handler` gets the number of the other requests, from 1. */
function registry(t: Test, handler: (request: Seen, response: ServerResponse, n: number) => void): Promise<FakeServer> {
  let n = 0;
  return serve(t, (request, response) => {
    if (request.url === '/v2/') response.end('{}');
    else handler(request, response, ++n);
  });
}

function asked(server: FakeServer): number {
  return server.seen.filter(({ url }) => url !== '/v2/').length;
}

t.test('an image that lies about the size of a blob meets no other image', async (t) => {
  const store = Store.open(tempDir(t));
  const well = await registry(t, sendPart);
  const silent = await registry(t, (_request, response) => void response.writeHead(200).end(bytes.subarray(0, 5000)));
  const fetcher = openFetcher(t, 5);
  const right = registryBlob(digest, bytes.length, accessOf(well.host), store);
  const lie = registryBlob(digest, 5000, accessOf(well.host, 'lie'), store);
  const lieWithoutTotal = registryBlob(digest, 5000, accessOf(silent.host), store);
  await fetcher.want(right, 0, 4096);
  t.equal(await codeOfRejection(fetcher.want(lie, 4096, 5000)), 'BLOB_SIZE_MISMATCH');
  await fetcher.want(lieWithoutTotal, 4096, 5000);
  await fetcher.want(right, 4096, bytes.length);
  t.ok(readFileSync(right.path).equals(bytes));
});

t.test('an image does not wait for the silent registry of another, nor fails with it', async (t) => {
  const store = Store.open(tempDir(t));
  const well = await registry(t, sendPart);
  let givenUp = false;
  const silent = await registry(t, (_request, response) => void response.once('close', () => (givenUp = true)));
  const fetcher = openFetcher(t, 600);
  const spec = (host: string): RemoteBlobSpec => registryBlob(digest, bytes.length, accessOf(host), store);
  const other = fetcher.want(spec(silent.host), 0, bytes.length).catch(() => undefined);
  while (asked(silent) === 0) await sleep(5);
  await fetcher.want(spec(well.host), 0, bytes.length);
  t.ok(readFileSync(spec(well.host).path).equals(bytes));
  t.notOk(givenUp, 'the other one still waits');
  await silent.close();
  await fetcher.close();
  await other.catch(() => undefined);
});

t.test('what another image of the same registry is refused is asked for anew', async (t) => {
  const store = Store.open(tempDir(t));
  const waiting: ServerResponse[] = [];
  const server = await registry(t, (request, response) => {
    if (request.url.startsWith('/v2/a/')) sendPart(request, response);
    else waiting.push(response);
  });
  const fetcher = openFetcher(t, 20);
  const spec = (repository: string): RemoteBlobSpec =>
    registryBlob(digest, bytes.length, accessOf(server.host, repository), store);
  const refused = codeOfRejection(fetcher.want(spec('b'), 0, bytes.length));
  const streamed = codeOfRejection(fetcher.stream(spec('b'), new AbortController().signal));
  while (waiting.length < 2) await sleep(5);
  const joined = fetcher.want(spec('a'), 0, 4096);
  const streaming = fetcher.stream(spec('a'), new AbortController().signal);
  // The fetch thread has heard of them when it answers this.
  await fetcher.needed([spec('a').path]);
  t.equal(asked(server), 2, 'they have joined');
  for (const response of waiting) response.writeHead(404).end();
  t.strictSame(await Promise.all([refused, streamed]), ['BLOB_MISSING', 'BLOB_MISSING']);
  await Promise.all([joined, streaming]);
  t.ok(readFileSync(spec('a').path).equals(bytes));
});

t.test('a registry that asks for no pause is not asked in a storm', async (t) => {
  const server = await registry(t, (_request, response) => void response.writeHead(429, { 'retry-after': '0' }).end());
  const fetcher = openFetcher(t, 1);
  const spec = registryBlob(digest, bytes.length, accessOf(server.host), Store.open(tempDir(t)));
  t.equal(await codeOfRejection(fetcher.want(spec, 0, 4096)), 'REGISTRY_RATE_LIMITED');
  t.ok(asked(server) <= 3, `${asked(server)} requests, after 0, 200 and 600 ms at the soonest`);
});

t.test('a registry may take longer to begin its answer than to go on with it', async (t) => {
  const server = await registry(t, (request, response) => void setTimeout(() => sendPart(request, response), 2000));
  const fetcher = openFetcher(t, 6);
  const spec = registryBlob(digest, bytes.length, accessOf(server.host), Store.open(tempDir(t)));
  await fetcher.want(spec, 0, bytes.length);
  t.ok(readFileSync(spec.path).equals(bytes));
});

t.test('a document that is cut off is asked for again', async (t) => {
  const server = await registry(t, (_request, response, n) => {
    response.writeHead(200, { 'content-length': bytes.length });
    if (n > 1) response.end(bytes);
    else response.write(bytes.subarray(0, 5000), () => response.destroy());
  });
  const fetcher = openFetcher(t, 20);
  const got = await fetcher.document(accessOf(server.host), digest, bytes.length, 'the config');
  t.ok(got.equals(bytes));
});

t.test('a registry that does not say what refers to an image is not waited for', async (t) => {
  const server = await registry(t, () => undefined);
  const fetcher = openFetcher(t, 0.5);
  const listed = fetcher.referrers(accessOf(server.host), digest);
  await t.rejects(listed, { code: 'REGISTRY_UNREACHABLE', message: /does not say it within 0.5 s/ });
  t.equal(asked(server), 1, 'in one attempt');
});

/** A download of {@link bytes} by a client that answers as `blob` says. */
function download(t: Test, blob: (options: BlobOptions) => Promise<BlobAnswer>): { download: Download; path: string } {
  const path = join(tempDir(t), 'blob');
  const file = BlockFile.create(path, bytes.length);
  t.teardown(() => file.close());
  const client = { blob: (_repository: string, _digest: string, options: BlobOptions) => blob(options) };
  const lanes = { demand: new Lane(9), ahead: new Lane(9), stream: new Lane(9), background: new Lane(9) };
  const options = {
    digest,
    file,
    trace: new TraceFile(path),
    clientFor: () => client as unknown as RegistryClient,
    lanesOf: () => lanes,
    recoverMs: 4000,
  };
  return { download: new Download(options), path };
}

function all(): BlobAnswer {
  const total = bytes.length;
  const stream = (async function* () {
    yield bytes;
  })();
  return { offset: 0, length: total, total, partial: false, host: 'h', stream, cancel: async () => undefined };
}

function untilAborted({ signal }: BlobOptions): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}

t.test('a silent registry is given up with a reason that is not that of who has gone', async (t) => {
  const reasons: unknown[] = [];
  const { download: silent } = download(t, async (options) => {
    if (reasons.length > 0) return all();
    return untilAborted(options).catch((e: unknown) => {
      reasons.push(e);
      throw e;
    });
  });
  await silent.stream(accessOf('h'), new AbortController().signal);
  t.match(reasons, [{ code: 'REGISTRY_UNREACHABLE', details: { transient: true } }]);
});

t.test('whoever wants all when the last has just left gets all', async (t) => {
  let n = 0;
  const { download: left, path } = download(t, (options) =>
    n++ === 0 ? untilAborted(options) : Promise.resolve(all()),
  );
  const leaving = new AbortController();
  const first = left.stream(accessOf('h'), leaving.signal);
  await sleep(0);
  leaving.abort();
  await first;
  await left.stream(accessOf('h'), new AbortController().signal);
  t.ok(readFileSync(path).equals(bytes));
});

t.test('BlockFile cuts nothing, and leaves no file open where it fails', (t) => {
  const path = join(tempDir(t), 'blob');
  BlockFile.create(path, 10_000).close();
  BlockFile.create(path, 5000).close();
  t.equal(statSync(path).size, 10_000);
  const open = (): number => readdirSync('/proc/self/fd').length;
  const before = open();
  t.not(
    codeOf(() => BlockFile.create(path, 2 ** 52)),
    'no error',
  );
  t.equal(open(), before);
  t.end();
});

t.test('Clients are kept for a while, and not all of them', async (t) => {
  const clients = new Clients('test');
  const first = clients.for(accessOf('h'));
  t.equal(clients.for(accessOf('h', 'b')), first);
  for (let i = 0; i < 64; i++) clients.for(accessOf(`h${i}`));
  t.not(clients.for(accessOf('h')), first);
  const short = new Clients('test', 1);
  const early = short.for(accessOf('h'));
  await sleep(20);
  t.not(short.for(accessOf('h')), early, 'what is configured now counts');
});
