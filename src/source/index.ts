/**
 * From a reference to an image: where its documents and layers are, which image is meant, and that everything but the
 * layers' own bytes is what its digest says.
 *
 *     reference  oci:DIR, oci-archive:FILE, docker-archive:FILE, aci:FILE, docker://HOST/NAME, or a path
 *     files      a directory, or an archive's members where they are
 *     appc       by name, over discovery pages, into the store
 *     registry   the documents, kept in the store; layers are fetched by who reads them
 *     layout     index.json and blobs;  docker-archive  manifest.json;  aci  manifest and dependencies
 *     select     by name, digest and platform
 *
 * Documents are hashed as raw bytes, then parsed, then validated. Layers are hashed by who indexes them.
 */
import { LaminaError, toLaminaError } from '../errors.js';
import { hostPlatform, type Platform } from '../oci/platform.js';
import { aciImage } from './aci.js';
import { readAci } from './aci-archive.js';
import { appcImage } from './appc-image.js';
import { Archive } from './archive.js';
import { dockerImage } from './docker-archive.js';
import { openDirectory } from './files.js';
import type { Image } from './image.js';
import { Layout } from './layout.js';
import { ociImage } from './oci-image.js';
import { isRemote, type Reference } from './reference.js';
import { registryImage, type RegistrySource } from './registry-image.js';
import { selectManifest } from './select.js';

export interface ResolveOptions {
  /** This machine's when it is omitted. */
  readonly platform?: Platform | undefined;
  /** Directories with what appc images depend on, absolute. */
  readonly aciPath?: readonly string[] | undefined;
  /** How registries are asked; without it their images cannot be had. */
  readonly registry?: RegistrySource | undefined;
  /** A registry lets us wait: called once. */
  readonly onWait?: (() => void) | undefined;
  /** Nobody wants the image any more. What a registry has been asked for ends by itself. */
  readonly signal?: AbortSignal | undefined;
}

/** Milliseconds after which whoever looks on should be told what we wait for. */
const WAIT_MS = 2000;

/**
 * Throws IMAGE_NOT_FOUND, TAG_NOT_FOUND, PLATFORM_NOT_FOUND, IMAGE_AMBIGUOUS, NOT_AN_IMAGE, LAYOUT_INVALID,
 * ARCHIVE_INVALID, MANIFEST_INVALID, COMPRESSION_*, CONFIG_INVALID, BLOB_*, DIGEST_*, REGISTRY_*, LIMIT_EXCEEDED,
 * PERMISSION_DENIED, IO; an AbortError when `signal` says so.
 */
export async function resolveImage(reference: Reference, options: ResolveOptions = {}): Promise<Image> {
  const { onWait, signal } = options;
  const timer = onWait === undefined || !isRemote(reference) ? undefined : setTimeout(onWait, WAIT_MS);
  try {
    const registry = options.registry === undefined ? undefined : { ...options.registry, signal };
    return await unlessAborted(findImage(reference, { ...options, registry }), signal);
  } finally {
    clearTimeout(timer);
  }
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason instanceof Error ? signal.reason : new Error('Aborted'));
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

async function findImage(
  reference: Reference,
  { platform = hostPlatform(), aciPath = [], registry }: ResolveOptions,
): Promise<Image> {
  try {
    if (reference.kind === 'aci')
      return await aciImage(await readAci(reference.path), { reference: reference.text, aciPath, platform });
    if (reference.kind === 'docker-archive') {
      const { text, tag, index, path } = reference;
      return dockerImage(Archive.open(path), { reference: text, tag, index, platform });
    }
    if (reference.kind === 'appc') return await appcImage(reference, { aciPath, platform }, registry);
    if (reference.kind === 'docker') return await registryImage(reference, platform, registry);
    const files = reference.kind === 'oci' ? openDirectory(reference.path) : Archive.open(reference.path);
    const layout = Layout.open(files);
    const { descriptor, platform: said, warnings } = selectManifest(layout, { ...reference, platform });
    return ociImage(layout, descriptor, {
      reference: reference.text,
      platform: said,
      wanted: platform,
      warnings: [...(files instanceof Archive ? files.warnings : []), ...layout.warnings, ...warnings],
    });
  } catch (e) {
    const { code, message, hint, details } = toLaminaError(e);
    throw new LaminaError(code, `Cannot open ${reference.text}: ${message}`, { hint, details, cause: e });
  }
}
