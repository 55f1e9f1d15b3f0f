/** What a stranger's documents say of a registry's blobs is bounded before anything is made for them. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseDigest } from '../../src/digest/index.js';
import { indexSoci } from '../../src/layer/toc-pass.js';
import type { RegistryAccess } from '../../src/source/fetch/access.js';
import { RegistryDocuments } from '../../src/source/registry-documents.js';
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
