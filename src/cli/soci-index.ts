/** A SOCI index of an image, for the registry that it is in (./push-index), or as an OCI layout (`lamina index --soci`). */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { sniffCompression } from '../compress/index.js';
import { createHasher, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { packageVersion } from '../daemon/version.js';
import { openBlob } from '../source/blob.js';
import type { Image, Layer } from '../source/image.js';
import { encodeSociIndex, type IndexedZtoc, type ShortDescriptor } from '../source/soci/index-manifest.js';
import { LAYER_MIN, SPAN_SIZE, writeZtoc } from '../source/soci/write-ztoc.js';
import { Store } from '../store/store.js';
import type { Context } from './context.js';
import { plural } from './text.js';

export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const EMPTY_CONFIG = Buffer.from('{}');

export interface SociIndexBytes {
  readonly manifest: Buffer;
  readonly digest: Digest;
  /** Ztocs and the config. */
  readonly blobs: ReadonlyMap<Digest, Buffer>;
  /** Layers that have one. */
  readonly layers: number;
}

/** Writes it as an OCI image layout. Throws OUTPUT_EXISTS, and what writing throws. */
export function writeIndex(context: Context, image: Image, directory: string): void {
  const made = makeSociIndex(image, manifestBytes(context, image));
  if (made === undefined) throw nothingToIndex(image);
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

/** `subject`: the image's manifest. Undefined where no layer is worth a ztoc. Throws what reading the layers throws. */
export function makeSociIndex(image: Image, subject: Buffer): SociIndexBytes | undefined {
  const blobs = new Map<Digest, Buffer>();
  const add = (bytes: Buffer): Digest => {
    const hasher = createHasher();
    hasher.update(bytes);
    const digest = hasher.digest();
    blobs.set(digest, bytes);
    return digest;
  };
  const tool = toolName();
  const ztocs = image.layers.flatMap((layer): IndexedZtoc[] => {
    const bytes = ztocOf(layer, tool);
    if (bytes === undefined || layer.digest === undefined) return [];
    const { mediaType, digest } = layer;
    return [{ layer: { mediaType, digest }, ztoc: { digest: add(bytes), size: bytes.length }, spanSize: SPAN_SIZE }];
  });
  if (ztocs.length === 0) return undefined;
  add(EMPTY_CONFIG);
  const { manifestDigest: digest } = image;
  const of = digest === undefined ? {} : { subject: subjectOf(digest, subject) };
  const manifest = encodeSociIndex({ ztocs, tool, ...of });
  const hasher = createHasher();
  hasher.update(manifest);
  return { manifest, digest: hasher.digest(), blobs, layers: ztocs.length };
}

/** What is written into indexes. */
export function toolName(): string {
  return `Lamina ${packageVersion()}`;
}

/** The descriptor of the image's manifest. */
export function subjectOf(digest: Digest, manifest: Buffer): ShortDescriptor {
  const { mediaType = MANIFEST } = JSON.parse(manifest.toString('utf8')) as { mediaType?: string };
  return { mediaType, digest, size: manifest.length };
}

export function nothingToIndex(image: Image): LaminaError {
  return new LaminaError('USAGE', `No layer of ${image.reference} is worth a ztoc`, {
    hint: `SOCI indexes gzip and plain layers of ${LAYER_MIN / 1024 / 1024} MiB or more that bring no index of their own.`,
  });
}

/** Undefined for a layer that is too small, compressed with zstd, or brings an index. */
function ztocOf({ blob: location, digest, size, toc }: Layer, tool: string): Buffer | undefined {
  if (size < LAYER_MIN || digest === undefined || toc !== undefined) return undefined;
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
export function manifestBytes({ store }: Context, { manifestDigest }: Image): Buffer {
  if (manifestDigest === undefined) return EMPTY_CONFIG;
  return readFileSync(Store.open(store).blobPath(manifestDigest));
}
