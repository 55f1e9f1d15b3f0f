/**
 * `lamina index --push`: what lets other machines start containers of an image sooner, put beside it in its registry: a SOCI
 * index, which SOCI's own snapshotter reads too, and a Lamina index with what containers of it have read first here.
 */
import { digestOf, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { readTraceFile } from '../source/fetch/trace-file.js';
import type { Image } from '../source/image.js';
import { encodeLaminaIndex } from '../source/lamina-index.js';
import { parseReference } from '../source/reference.js';
import { FileCredentials } from '../source/registry/auth-file.js';
import { FixedCredentials, parseCredentials } from '../source/registry/credentials.js';
import { encodeTrace, type TracePart } from '../source/trace.js';
import type { Context } from './context.js';
import { authPlaces, tlsVerify, userAgent, type PullOptions } from './registry-options.js';
import { MANIFEST, makeSociIndex, manifestBytes, nothingToIndex, subjectOf } from './soci-index.js';
import { plural } from './text.js';

interface Artifact {
  readonly what: string;
  readonly manifest: Buffer;
  readonly blobs: readonly Buffer[];
}

/** Throws USAGE where there is nothing to push or nowhere to push it to, and what pushing throws. */
export async function pushIndex(context: Context, image: Image, options: PullOptions): Promise<void> {
  const reference = parseReference(image.reference, context.cwd);
  if (reference.kind !== 'docker' || image.manifestDigest === undefined) {
    throw new LaminaError('USAGE', '--push is for images in a registry: docker://HOST/NAME', {
      hint: 'For others --soci DIR writes the index to a directory.',
    });
  }
  const artifacts = artifactsOf(image, image.manifestDigest, manifestBytes(context, image));
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

function artifactsOf(image: Image, digest: Digest, subject: Buffer): Artifact[] {
  const artifacts: Artifact[] = [];
  const soci = makeSociIndex(image, subject);
  if (soci !== undefined) {
    const what = `a SOCI index of ${plural(soci.layers, 'layer')}`;
    artifacts.push({ what, manifest: soci.manifest, blobs: [...soci.blobs.values()] });
  }
  const parts = recorded(image);
  if (parts.length > 0) {
    const what = `a trace of ${plural(parts.length, 'part')} that containers have read first here`;
    artifacts.push({ what, ...encodeLaminaIndex({ subject: subjectOf(digest, subject), trace: encodeTrace(parts) }) });
  }
  return artifacts;
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
