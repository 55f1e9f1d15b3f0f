/**
 * `lamina index --push`: what lets other machines start containers of an image sooner, put beside it in its registry: a SOCI
 * index, which SOCI's own snapshotter reads too, and a Lamina index.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { digestOf, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { readTraceFile } from '../source/fetch/trace-file.js';
import type { PreparedLayer } from '../image/known-layer.js';
import type { PreparedImage } from '../image/prepare.js';
import { readChunks } from '../layer/chunks.js';
import { openBlob } from '../source/blob.js';
import type { Image, Layer } from '../source/image.js';
import { encodeLaminaIndex, type LayerParts } from '../source/lamina-index.js';
import { parseReference } from '../source/sniff.js';
import { FileCredentials } from '../source/registry/auth-file.js';
import { FixedCredentials, parseCredentials } from '../source/registry/credentials.js';
import { LAYER_MIN, writeFileList } from '../source/soci/write-ztoc.js';
import { encodeTrace, type TracePart } from '../source/trace.js';
import type { Context } from './context.js';
import { authPlaces, tlsVerify, userAgent, type PullOptions } from './registry-options.js';
import { MANIFEST, makeSociIndex, manifestBytes, nothingToIndex, subjectOf, toolName } from './soci-index.js';
import { plural } from './text.js';

interface Artifact {
  readonly what: string;
  readonly manifest: Buffer;
  readonly blobs: readonly Buffer[];
}

/** Throws USAGE where there is nothing to push or nowhere to push it to, and what pushing throws. */
export async function pushIndex(context: Context, prepared: PreparedImage, options: PullOptions): Promise<void> {
  const { image } = prepared;
  const reference = parseReference(image.reference, context.cwd);
  if (reference.kind !== 'docker' || image.manifestDigest === undefined) {
    throw new LaminaError('USAGE', '--push is for images in a registry: docker://HOST/NAME', {
      hint: 'For others --soci DIR writes the index to a directory.',
    });
  }
  const artifacts = artifactsOf(prepared, image.manifestDigest, manifestBytes(context, image));
  if (artifacts.length === 0) throw nothingToIndex(image);
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
    for (const { what, manifest, blobs } of artifacts) {
      for (const bytes of blobs) {
        await client.pushBlob(repository, { digest: digestOf(bytes), size: bytes.length, bytes: () => bytes });
      }
      const digest = await client.pushManifest(repository, { bytes: manifest, mediaType: MANIFEST });
      context.out.note(`Pushed ${digest}, ${what}, to ${host}/${repository}`);
    }
  } finally {
    await client.close();
  }
}

function artifactsOf(prepared: PreparedImage, digest: Digest, subject: Buffer): Artifact[] {
  const { image } = prepared;
  const artifacts: Artifact[] = [];
  const soci = makeSociIndex(image, subject);
  if (soci !== undefined) {
    const what = `a SOCI index of ${plural(soci.layers, 'layer')}`;
    artifacts.push({ what, manifest: soci.manifest, blobs: [...soci.blobs.values()] });
  }
  const parts = recorded(image);
  const trace = parts.length === 0 ? undefined : encodeTrace(parts);
  const layers = image.layers.flatMap((layer, i) => {
    const index = prepared.layers[i];
    const of = index === undefined ? undefined : partsOf(layer, index);
    return of === undefined || layer.digest === undefined ? [] : [{ layer: layer.digest, parts: of }];
  });
  if (trace === undefined && layers.length === 0) return artifacts;
  const of = [
    ...(layers.length === 0 ? [] : [plural(layers.length, 'layer')]),
    ...(trace === undefined ? [] : [`a trace of ${plural(parts.length, 'part')} that containers have read first here`]),
  ];
  const what = `a Lamina index of ${of.join(', and ')}`;
  artifacts.push({ what, ...encodeLaminaIndex({ subject: subjectOf(digest, subject), trace, layers }) });
  return artifacts;
}

/** Undefined where the layer is too small, brings an index, or is not known by all of it; or where it cannot be read in pieces. */
function partsOf(
  layer: Layer,
  { index, kept, directory, mapPath, compression }: PreparedLayer,
): LayerParts<Buffer> | undefined {
  const { blob: location, digest, size, toc, view } = layer;
  if (index !== 'tar' || kept > 0 || size < LAYER_MIN || toc !== undefined || view !== undefined) return undefined;
  const chunks = join(directory, 'chunks');
  // Of sparse files, which a list of files has no words for either.
  if (digest === undefined || readChunks(chunks).copies.length > 0) return undefined;
  const blob = openBlob(location);
  try {
    const files = writeFileList({ blob, digest, compression, tool: toolName() });
    return { files: gzipSync(files), chunks: readFileSync(chunks), map: readFileSync(mapPath) };
  } catch (e) {
    if (e instanceof LaminaError && e.code === 'TAR_UNSUPPORTED') return undefined;
    throw e;
  } finally {
    blob.close();
  }
}

/** Of all layers, in the order of their first use. */
function recorded({ layers }: Image): TracePart[] {
  const parts = layers.flatMap(({ blob, digest }) =>
    blob.kind !== 'registry' || digest === undefined
      ? []
      : readTraceFile(blob.path).map(({ ms, start, end }) => ({ ms, blob: digest, start, end })),
  );
  return parts.sort((a, b) => a.ms - b.ms).map(({ blob, start, end }) => ({ blob, start, end }));
}
