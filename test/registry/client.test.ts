/** The client against Debian's docker-registry, with images that skopeo pushed. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { parseDigest } from '../../src/digest/index.js';
import { FixedCredentials } from '../../src/source/registry/credentials.js';
import { RegistryClient } from '../../src/source/registry/client.js';
import { Secret } from '../../src/source/registry/secret.js';
import { commandExists } from '../support/commands.js';
import { codeOfRejection, failure } from '../support/failure.js';
import { blobPath, digest, makeLayout, type MadeLayer } from '../support/images.js';
import { password, push, startRegistry, user } from '../support/registry.js';
import { skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

const ready = commandExists('docker-registry') && commandExists('skopeo');

async function bytesOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const bytes of stream) parts.push(bytes);
  return Buffer.concat(parts);
}

t.test('RegistryClient reads what skopeo has pushed', async (t) => {
  if (skipUnless(t, ready, 'needs docker-registry and skopeo')) return;
  const registry = await startRegistry(t);
  const content = randomBytes(200_000);
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content }] }] });
  push(image.reference, registry.host, 'some/app:one');
  push(image.reference, registry.host, 'some/app:two');
  const client = new RegistryClient({ host: registry.host });
  t.teardown(() => client.close());

  const manifest = await client.manifest('some/app', 'one');
  const stored = readFileSync(blobPath(image.directory, image.manifest.digest));
  t.ok(manifest.bytes.equals(stored), 'the manifest by its tag, byte for byte');
  t.equal(manifest.digest, image.manifest.digest);
  t.equal(manifest.mediaType, image.manifest.mediaType);
  t.strictSame(await client.manifest('some/app', manifest.digest), manifest, 'by its digest');
  t.strictSame(await client.resolve('some/app', 'one'), { digest: manifest.digest, mediaType: manifest.mediaType });
  t.strictSame((await client.tags('some/app')).sort(), ['one', 'two']);

  const [{ descriptor, blob }] = image.layers as [MadeLayer];
  const layer = parseDigest(descriptor.digest);
  t.equal(await client.blobSize('some/app', layer), blob.length);
  const whole = await client.blob('some/app', layer);
  t.match(whole, { offset: 0, length: blob.length, total: blob.length, partial: true });
  t.ok((await bytesOf(whole.stream)).equals(blob), 'a blob');
  const part = await client.blob('some/app', layer, { offset: 1000, length: 5000 });
  t.match(part, { offset: 1000, length: 5000, total: blob.length, partial: true });
  t.ok((await bytesOf(part.stream)).equals(blob.subarray(1000, 6000)), 'a part of it');
  const tail = await client.blob('some/app', layer, { offset: blob.length - 10 });
  t.ok((await bytesOf(tail.stream)).equals(blob.subarray(-10)), 'its end');

  t.equal(await codeOfRejection(client.manifest('some/app', 'three')), 'TAG_NOT_FOUND');
  t.equal(await codeOfRejection(client.manifest('no/app', 'one')), 'TAG_NOT_FOUND');
  t.equal(await codeOfRejection(client.manifest('some/app', digest(Buffer.from('x')))), 'IMAGE_NOT_FOUND');
  t.equal(await codeOfRejection(client.tags('no/app')), 'IMAGE_NOT_FOUND');
  const absent = parseDigest(digest(Buffer.from('x')));
  t.equal(await codeOfRejection(client.blob('some/app', absent)), 'BLOB_MISSING');
  t.equal(await client.blobSize('some/app', absent), undefined);
  t.equal(await codeOfRejection(client.blob('some/app', layer, { offset: blob.length })), 'BLOB_SIZE_MISMATCH');

  await registry.stop();
  const down = new RegistryClient({ host: registry.host, retry: { attempts: 2, baseMs: 1 } });
  const error = await failure(down.manifest('some/app', 'one'));
  t.match(error, { code: 'REGISTRY_UNREACHABLE', details: { host: registry.host, transient: true } });
});

t.test('RegistryClient asks with a password where one is wanted', async (t) => {
  if (skipUnless(t, ready, 'needs docker-registry and skopeo')) return;
  const registry = await startRegistry(t, { auth: true });
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content: 'x' }] }] });
  push(image.reference, registry.host, 'app', [`--dest-creds=${user}:${password}`]);
  const clientOf = (secret: string): RegistryClient => {
    const credentials = { kind: 'password', username: user, password: new Secret(secret) } as const;
    return new RegistryClient({ host: registry.host, credentials: new FixedCredentials(registry.host, credentials) });
  };
  const client = clientOf(password);
  await client.ping();
  t.equal((await client.manifest('app', 'latest')).digest, image.manifest.digest);
  const wrong = await failure(clientOf('hunter2').manifest('app', 'latest'));
  t.equal(wrong.code, 'REGISTRY_AUTH');
  t.notMatch(JSON.stringify(wrong) + wrong.stack, /hunter2|aHVudGVyM/, 'the password is not in the error');
  const anonymous = await failure(new RegistryClient({ host: registry.host }).manifest('app', 'latest'));
  t.match(anonymous, { code: 'REGISTRY_AUTH', details: { host: registry.host, status: 401 } });
  t.match(
    anonymous.message,
    `Cannot read app:latest: ${registry.host} answers 401: UNAUTHORIZED: authentication required`,
  );
  t.match(anonymous.hint, `lamina login ${registry.host}`);
});

t.test('RegistryClient pushes what skopeo and it can read, and keeps lists of referrers', async (t) => {
  if (skipUnless(t, ready, 'needs docker-registry and skopeo')) return;
  const registry = await startRegistry(t);
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content: 'x' }] }] });
  push(image.reference, registry.host, 'app');
  const client = new RegistryClient({ host: registry.host });
  const subject = parseDigest(image.manifest.digest);
  t.strictSame(await client.referrers('app', subject), [], 'nothing refers to it yet');

  const bytes = randomBytes(300_000);
  const blob = { digest: parseDigest(digest(bytes)), size: bytes.length, bytes: () => bytes };
  t.equal(await client.pushBlob('app', blob), true);
  t.equal(await client.pushBlob('app', blob), false, 'it is there already');
  t.equal(await client.pushBlob('other', blob, { mountFrom: 'app' }), false, 'taken from another repository');
  const empty = Buffer.from('{}');
  const streamed = async function* (): AsyncGenerator<Uint8Array> {
    yield empty.subarray(0, 1);
    yield empty.subarray(1);
  };
  const config = { digest: parseDigest(digest(empty)), size: empty.length, bytes: streamed };
  t.equal(await client.pushBlob('app', config), true, 'from a stream');
  const lie = { digest: parseDigest(digest(Buffer.from('y'))), size: 2, bytes: () => empty };
  t.equal(await codeOfRejection(client.pushBlob('app', lie)), 'BLOB_DIGEST_MISMATCH');

  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const artifact = (artifactType: string): Buffer =>
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType,
        artifactType,
        config: { mediaType: 'application/vnd.oci.empty.v1+json', digest: config.digest, size: 2 },
        layers: [{ mediaType: 'application/octet-stream', digest: blob.digest, size: blob.size }],
        subject: { mediaType, digest: subject, size: image.manifest.size },
        annotations: { made: artifactType },
      }),
    );
  const pushed = [];
  for (const type of ['application/x-a', 'application/x-b']) {
    pushed.push(await client.pushManifest('app', { bytes: artifact(type), mediaType }));
  }
  await client.pushManifest('app', { bytes: artifact('application/x-a'), mediaType });
  const all = await client.referrers('app', subject);
  t.strictSame(
    all.map((d) => [d.digest, d.artifactType, d.annotations]),
    [
      [pushed[0], 'application/x-a', { made: 'application/x-a' }],
      [pushed[1], 'application/x-b', { made: 'application/x-b' }],
    ],
  );
  t.strictSame(
    (await client.referrers('app', subject, 'application/x-b')).map((d) => d.digest),
    [pushed[1]],
  );
  t.ok((await client.manifest('app', pushed[0] ?? '')).bytes.equals(artifact('application/x-a')));
});
