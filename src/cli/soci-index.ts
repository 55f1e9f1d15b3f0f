/** `lamina index --push` and `--soci`: a SOCI index of an image, for the registry that it is in, or as an OCI layout. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { sniffCompression } from '../compress/index.js';
import { createHasher, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { packageVersion } from '../daemon/version.js';
import { FileCredentials } from '../source/registry/auth-file.js';
import { FixedCredentials, parseCredentials } from '../source/registry/credentials.js';
import { openBlob } from '../source/blob.js';
import type { Image, Layer } from '../source/image.js';
import { parseReference } from '../source/reference.js';
import { encodeSociIndex, type IndexedZtoc } from '../source/soci/index-manifest.js';
import { LAYER_MIN, SPAN_SIZE, writeZtoc } from '../source/soci/write-ztoc.js';
import { Store } from '../store/store.js';
import type { Context } from './context.js';
import { authPlaces, tlsVerify, userAgent, type PullOptions } from './registry-options.js';
import { plural } from './text.js';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const EMPTY_CONFIG = Buffer.from('{}');

interface MadeIndex {
  readonly manifest: Buffer;
  readonly digest: Digest;
  /** Ztocs and the config. */
  readonly blobs: ReadonlyMap<Digest, Buffer>;
  /** Layers that have one. */
  readonly layers: number;
}

/** Puts a SOCI index beside the image in its registry. Throws USAGE for others, and what pushing throws. */
export async function pushIndex(context: Context, image: Image, options: PullOptions): Promise<void> {
  const reference = parseReference(image.reference, context.cwd);
  if (reference.kind !== 'docker') {
    throw new LaminaError('USAGE', '--push is for images in a registry: docker://HOST/NAME', {
      hint: 'For others --soci DIR writes the index to a directory.',
    });
  }
  const made = makeIndex(image, manifestBytes(context, image));
  const { host, repository } = reference;
  const credentials =
    options.creds === undefined
      ? new FileCredentials(authPlaces(context, options))
      : new FixedCredentials(host, parseCredentials(options.creds));
  const [{ RegistryClient }, { ConfiguredEndpoints }] = await Promise.all([
    import('../source/registry/client.js'),
    import('../source/registry/configuration.js'),
  ]);
  const endpoints = new ConfiguredEndpoints({ env: context.env, tlsVerify: tlsVerify(options) });
  const client = new RegistryClient({ host, credentials, endpoints, userAgent: userAgent() });
  try {
    for (const [digest, bytes] of made.blobs) {
      await client.pushBlob(repository, { digest, size: bytes.length, bytes: () => bytes });
    }
    await client.pushManifest(repository, { bytes: made.manifest, mediaType: MANIFEST });
  } finally {
    await client.close();
  }
  context.out.note(`Pushed ${made.digest}, a SOCI index of ${plural(made.layers, 'layer')}, to ${host}/${repository}`);
}

/** Writes it as an OCI image layout. Throws OUTPUT_EXISTS, and what writing throws. */
export function writeIndex(context: Context, image: Image, directory: string): void {
  const made = makeIndex(image, manifestBytes(context, image));
  try {
    mkdirSync(directory);
  } catch (e) {
    throw new LaminaError('OUTPUT_EXISTS', `Cannot make the directory ${directory}`, { cause: e });
  }
  const put = (name: string, bytes: string | Buffer): void => {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), bytes);
  };
  const { digest, manifest } = made;
  const entry = { mediaType: MANIFEST, digest, size: manifest.length };
  put('oci-layout', JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  put('index.json', JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  for (const [name, bytes] of [...made.blobs, [digest, manifest] as const])
    put(`blobs/${name.replace(':', '/')}`, bytes);
  context.out.note(`Wrote ${digest}, a SOCI index of ${plural(made.layers, 'layer')}, to ${directory}`);
}

function makeIndex(image: Image, subject: Buffer): MadeIndex {
  const blobs = new Map<Digest, Buffer>();
  const add = (bytes: Buffer): Digest => {
    const hasher = createHasher();
    hasher.update(bytes);
    const digest = hasher.digest();
    blobs.set(digest, bytes);
    return digest;
  };
  const tool = `Lamina ${packageVersion()}`;
  const ztocs = image.layers.flatMap((layer): IndexedZtoc[] => {
    const bytes = ztocOf(layer, tool);
    if (bytes === undefined || layer.digest === undefined) return [];
    const { mediaType, digest } = layer;
    return [{ layer: { mediaType, digest }, ztoc: { digest: add(bytes), size: bytes.length }, spanSize: SPAN_SIZE }];
  });
  if (ztocs.length === 0) {
    throw new LaminaError('USAGE', `No layer of ${image.reference} is worth a ztoc`, {
      hint: `SOCI indexes gzip and plain layers of ${LAYER_MIN / 1024 / 1024} MiB or more.`,
    });
  }
  add(EMPTY_CONFIG);
  const { manifestDigest: digest } = image;
  const { mediaType = MANIFEST } = JSON.parse(subject.toString('utf8')) as { mediaType?: string };
  const of = digest === undefined ? {} : { subject: { mediaType, digest, size: subject.length } };
  const manifest = encodeSociIndex({ ztocs, tool, ...of });
  const hasher = createHasher();
  hasher.update(manifest);
  return { manifest, digest: hasher.digest(), blobs, layers: ztocs.length };
}

/** Undefined for a layer that is too small, or compressed with zstd. */
function ztocOf({ blob: location, digest, size }: Layer, tool: string): Buffer | undefined {
  if (size < LAYER_MIN || digest === undefined) return undefined;
  const blob = openBlob(location);
  try {
    const head = Buffer.alloc(512);
    const compression = sniffCompression(head.subarray(0, blob.read(0, head)));
    return compression === 'zstd' ? undefined : writeZtoc({ blob, digest, compression, tool });
  } finally {
    blob.close();
  }
}

/** Of a registry's image; the store has it. */
function manifestBytes({ store }: Context, { manifestDigest }: Image): Buffer {
  if (manifestDigest === undefined) return EMPTY_CONFIG;
  return readFileSync(Store.open(store).blobPath(manifestDigest));
}
