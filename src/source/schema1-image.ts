/**
 * An image of Docker schema 1, of a registry. Its manifest names blobs, but neither their sizes nor their diffIDs: all layers
 * are read once before the image is known. What that gave is kept by the manifest's digest: it follows from blobs that were
 * verified, and indexing checks each diffID once more.
 */
import { setImmediate } from 'node:timers/promises';
import { z } from 'zod';
import { createDecoder, sniffCompression, type StreamDecoder } from '../compress/index.js';
import { createHasher, digestOf, parseDigest, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { MANIFEST_LIMIT } from '../oci/limits.js';
import { DOCKER_LAYER } from '../oci/media-types.js';
import type { Platform } from '../oci/platform.js';
import { readSealed, seal } from '../store/sealed.js';
import type { Store } from '../store/store.js';
import { openBlob, type BlobLocation } from './blob.js';
import type { RegistryAccess } from './fetch/access.js';
import type { Fetcher } from './fetch/fetcher.js';
import { Lane } from './fetch/lanes.js';
import { whileFetching } from './fetch/whole.js';
import type { Image } from './image.js';
import { layerLimit, overLimit } from './limits.js';
import { assembleImage } from './oci-image.js';
import { fetchFooters, registryBlob, unsaid, type Fetching, type RegistryDocuments } from './registry-documents.js';
import { convertSchema1, withDiffIds, type Schema1Image } from './registry/schema1.js';

const CONFIG_TYPE = 'application/vnd.docker.container.image.v1+json';
/** Layers read at once. */
const SIDE_BY_SIDE = 4;
/** Bytes asked for at once. */
const PIECE = 1024 * 1024;
/** Bytes decoded at once: they may become a thousand times as many, and others have this thread too. */
const SLICE = 64 * 1024;

const found = z.object({ digest: z.string(), diffId: z.string(), size: z.int().min(0), gzip: z.boolean() });
const derived = z.object({ manifest: z.string(), layers: z.array(found) });
type Found = z.output<typeof found>;

export interface Schema1Wanted {
  /** In its full form. */
  readonly reference: string;
  readonly platform: Platform;
}

/**
 * Throws what reading a document and fetching a blob throw; MANIFEST_INVALID; BLOB_DIGEST_MISMATCH, COMPRESSION_* and
 * LIMIT_EXCEEDED for a layer; BLOB_MISSING where its layers were not read before and nobody may be asked.
 */
export async function schema1Image(
  documents: RegistryDocuments,
  access: RegistryAccess,
  source: Fetching,
  { reference, platform }: Schema1Wanted,
): Promise<Image> {
  const [descriptor] = documents.entries;
  if (descriptor === undefined) throw new LaminaError('INTERNAL', 'There is no manifest');
  const manifestDigest = parseDigest(descriptor.digest);
  const image = convertSchema1(documents.read(descriptor, `the manifest ${manifestDigest}`, MANIFEST_LIMIT));
  let known = recall(image, manifestDigest, source.store);
  if (known === undefined) {
    known = await readLayers(image, access, source);
    const document: z.output<typeof derived> = { manifest: manifestDigest, layers: [...known] };
    source.store.keep(source.store.derivedPath(manifestDigest), seal([Buffer.from(JSON.stringify(document))]));
  }
  const configBytes = withDiffIds(
    image,
    known.map(({ diffId }) => parseDigest(diffId)),
  );
  const config = { mediaType: CONFIG_TYPE, digest: digestOf(configBytes), size: configBytes.length, ...unsaid };
  const manifest = { config, layers: known.map(layerDescriptor), annotations: {} };
  await fetchFooters(manifest, documents, source);
  return assembleImage(
    documents,
    { manifest, manifestDigest, configBytes },
    { reference, platform: undefined, wanted: platform, warnings: [] },
  );
}

function layerDescriptor({ digest, size, gzip }: Found): Descriptor {
  return { mediaType: gzip ? `${DOCKER_LAYER}.gzip` : DOCKER_LAYER, digest, size, ...unsaid };
}

/** Undefined where it is not there, is damaged, or is not of these layers. */
function recall(image: Schema1Image, manifest: Digest, store: Store): readonly Found[] | undefined {
  try {
    const document = derived.parse(JSON.parse(readSealed(store.derivedPath(manifest)).toString('utf8')));
    const sound =
      document.manifest === manifest &&
      document.layers.length === image.layers.length &&
      document.layers.every(({ digest }, i) => digest === image.layers[i]);
    return sound ? document.layers : undefined;
  } catch {
    return undefined;
  }
}

/** One that comes twice is read once. The first failure ends all. */
async function readLayers(image: Schema1Image, access: RegistryAccess, source: Fetching): Promise<readonly Found[]> {
  if (access.offline === true) {
    throw new LaminaError('BLOB_MISSING', 'its layers have not been read here, and the registry must not be asked', {
      hint: 'Use the image once without --offline.',
    });
  }
  const { fetcher, store } = source;
  const cancel = new AbortController();
  const lane = new Lane(SIDE_BY_SIDE);
  const known = new Map<Digest, Found>();
  const jobs = [...new Set(image.layers)].map((digest) =>
    lane.run(async () => {
      if (cancel.signal.aborted) return;
      try {
        const blob = registryBlob(digest, await fetcher.size(access, digest), access, store);
        known.set(digest, await readLayer(blob, fetcher, cancel.signal));
      } catch (e) {
        cancel.abort(e);
      }
    }),
  );
  await Promise.all(jobs);
  cancel.signal.throwIfAborted();
  return image.layers.flatMap((digest) => known.get(digest) ?? []);
}

type RegistryBlob = BlobLocation & { readonly kind: 'registry' };

function readLayer(blob: RegistryBlob, fetcher: Fetcher, signal: AbortSignal): Promise<Found> {
  return whileFetching(blob, fetcher, signal, async () => {
    const pass = new LayerPass(blob);
    try {
      return await pass.run(fetcher, signal);
    } finally {
      pass.close();
    }
  });
}

/** A layer's blob from front to back, while it comes. */
class LayerPass {
  readonly #blob: RegistryBlob;
  readonly #blobHasher;
  readonly #contentHasher = createHasher();
  readonly #limit = layerLimit();
  #decoder: StreamDecoder | undefined;
  #gzip = false;
  #size = 0;
  /** Why it cannot be decoded. Bytes that are not what the digest says explain that, so it is said only at the end. */
  #undecodable: LaminaError | undefined;

  constructor(blob: RegistryBlob) {
    this.#blob = blob;
    this.#blobHasher = createHasher(blob.digest);
  }

  async run(fetcher: Fetcher, signal: AbortSignal): Promise<Found> {
    const { digest, size } = this.#blob;
    const reader = openBlob(this.#blob);
    try {
      const piece = Buffer.allocUnsafe(Math.min(PIECE, size));
      for (let at = 0; at < size; at += piece.length) {
        const wanted = piece.subarray(0, Math.min(piece.length, size - at));
        await fetcher.want(this.#blob, at, at + wanted.length);
        if (reader.read(at, wanted) < wanted.length) {
          throw new LaminaError('IO', `${this.#blob.path} became shorter while it was read`);
        }
        this.#blobHasher.update(wanted);
        for (let from = 0; from < wanted.length; from += SLICE) {
          this.#decode(wanted.subarray(from, from + SLICE));
          await setImmediate();
          signal.throwIfAborted();
        }
      }
    } finally {
      reader.close();
    }
    this.#guard(() => this.#decoder?.end());
    const got = this.#blobHasher.digest();
    if (got !== digest) throw mismatch(digest, got, this.#blob.access.host);
    if (this.#undecodable !== undefined) throw this.#undecodable;
    return { digest, diffId: this.#contentHasher.digest(), size, gzip: this.#gzip };
  }

  #decode(bytes: Buffer): void {
    if (this.#undecodable !== undefined) return;
    this.#guard(() => {
      if (this.#decoder === undefined) {
        const compression = sniffCompression(bytes);
        this.#gzip = compression === 'gzip';
        this.#decoder = createDecoder(compression);
      }
      this.#decoder.push(bytes, (output) => {
        this.#size += output.length;
        if (this.#size > this.#limit) throw overLimit(this.#limit);
        this.#contentHasher.update(output);
      });
    });
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (e) {
      if (!(e instanceof LaminaError) || !e.code.startsWith('COMPRESSION_')) throw e;
      this.#undecodable ??= e;
    }
  }

  close(): void {
    this.#decoder?.close();
  }
}

function mismatch(wanted: Digest, got: Digest, host: string): LaminaError {
  return new LaminaError(
    'BLOB_DIGEST_MISMATCH',
    `The layer from ${host} does not match its digest (wanted ${wanted}, got ${got})`,
    {
      details: { wanted, got, host },
      hint: 'The image is damaged in the registry, or on the way from there.',
    },
  );
}
