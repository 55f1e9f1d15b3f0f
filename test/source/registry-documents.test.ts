/** What a stranger's documents say of a registry's blobs is bounded before anything is made for them. */
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseDigest } from '../../src/digest/index.js';
import { indexSoci } from '../../src/layer/toc-pass.js';
import type { RegistryAccess } from '../../src/source/fetch/access.js';
import type { Fetcher } from '../../src/source/fetch/fetcher.js';
import { LaminaError } from '../../src/errors.js';
import { fetchFooters, fetchingDocuments, Missing, RegistryDocuments } from '../../src/source/registry-documents.js';
import { decodeZtoc } from '../../src/source/soci/ztoc.js';
import { Store } from '../../src/store/store.js';
import { digest } from '../support/images.js';
import { projectRoot } from '../support/project.js';
import { tempDir } from '../support/tmp.js';

const access: RegistryAccess = { host: 'localhost:5000', repository: 'a', places: { env: {}, uid: 0 } };
const some = `sha256:${'a'.repeat(64)}`;
const unsaid = { data: undefined, urls: [], annotations: {}, platform: undefined, artifactType: undefined };

t.test('RegistryDocuments refuses blobs of more bytes than a layer may have', async (t) => {
  const store = Store.open(tempDir(t));
  const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: some, ...unsaid };
  const documents = new RegistryDocuments({ ...layer, size: 2 }, access, store);
  t.match(documents.locate({ ...layer, size: 1000 }, 'a layer'), { kind: 'registry', size: 1000 });
  t.throws(() => documents.locate({ ...layer, size: 2 ** 50 }, 'a layer'), { code: 'LIMIT_EXCEEDED' });
});

t.test('indexSoci refuses a ztoc whose spans do not cover all that is decoded', async (t) => {
  const path = join(projectRoot, 'test/fuzz/corpus/ztoc/gzip-v1');
  const bytes = readFileSync(path);
  const directory = tempDir(t);
  const job = {
    ztoc: { kind: 'file' as const, path, offset: 0, size: bytes.length },
    digest: parseDigest(digest(bytes)),
    size: decodeZtoc(bytes).compressedSize,
    temporary: join(directory, 'temporary'),
    layerDirectory: join(directory, 'layer'),
  };
  t.throws(() => indexSoci(job), { code: 'SOCI_INVALID', message: /not hashed from the start/ });
  t.throws(() => indexSoci({ ...job, size: job.size + 1 }), { code: 'SOCI_INVALID' }, 'nor one for another blob');
  t.throws(() => indexSoci({ ...job, digest: parseDigest(some) }), { code: 'BLOB_DIGEST_MISMATCH' });
  t.same(readdirSync(directory), [], 'and leaves nothing');
});

t.test('a document that the store does not keep is not fetched for ever, and for nobody who has gone', async (t) => {
  const bytes = Buffer.from('{}');
  const descriptor = { mediaType: 'a/config', digest: digest(bytes), size: bytes.length, ...unsaid };
  let fetched = 0;
  const fetcher = { document: () => Promise.resolve((fetched++, bytes)) } as unknown as Fetcher;
  const store = Store.open(tempDir(t));
  const work = (): never => {
    throw new Missing(descriptor, 'the config');
  };
  await t.rejects(fetchingDocuments(work, access, { fetcher, store }), { code: 'STORE_CORRUPT' });
  t.equal(fetched, 2);
  const signal = AbortSignal.abort(new Error('gone'));
  await t.rejects(fetchingDocuments(work, access, { fetcher, store, signal }), { message: 'gone' });
  t.equal(fetched, 2);
});

t.test('fetchFooters takes no layer for another kind because the registry is away', async (t) => {
  const documents = new RegistryDocuments({ mediaType: '', digest: some, size: 2 }, access, Store.open(tempDir(t)));
  const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: some, ...unsaid, size: 1000 };
  const footers = (
    code: 'REGISTRY_UNREACHABLE' | 'BLOB_MISSING',
    annotations: Record<string, string>,
  ): Promise<void> => {
    const fetcher = { want: () => Promise.reject(new LaminaError(code, 'no')) } as unknown as Fetcher;
    const fetching = { fetcher, store: Store.open(tempDir(t)) };
    return fetchFooters({ layers: [{ ...layer, annotations }] }, documents, fetching);
  };
  await t.rejects(footers('REGISTRY_UNREACHABLE', {}), { code: 'REGISTRY_UNREACHABLE' });
  await footers('BLOB_MISSING', {});
  await footers('REGISTRY_UNREACHABLE', { 'containerd.io/snapshot/stargz/toc.digest': some });
});

t.test('Store.keep leaves nothing behind where it fails', (t) => {
  const store = Store.open(tempDir(t));
  const path = join(store.path, 'derived/taken');
  mkdirSync(join(path, 'by a directory'), { recursive: true });
  t.throws(() => store.keep(path, [Buffer.from('x')]), { code: 'IO' });
  t.same(readdirSync(join(store.path, 'tmp')), []);
  t.end();
});
