/** Writing to a registry (distribution-spec "Push"): blobs in one piece, manifests, and lists of referrers. */
import { z } from 'zod';
import { digestOf, parseDigest, type Digest } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import { parseJson } from '../../oci/json.js';
import { MANIFEST_LIMIT } from '../../oci/limits.js';
import type { BlobReader } from './blobs.js';
import type { Call, Exchange } from './exchange.js';
import { protocolError, statusOf } from './failures.js';
import { fetchManifest, manifestCall, referrersTag, type CallOptions } from './manifests.js';
import type { Answer, Body } from './transport.js';

export interface PushedBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Called once for each attempt; the bytes need not be in memory. */
  readonly bytes: () => Body;
}

export interface PushOptions extends CallOptions {
  /** Another repository of the registry that has the blob already. */
  readonly mountFrom?: string | undefined;
}

/** Whether the blob had to be sent. Throws BLOB_DIGEST_MISMATCH where the registry says so, and what Exchange.run throws. */
export async function pushBlob(
  exchange: Exchange,
  blobs: BlobReader,
  repository: string,
  blob: PushedBlob,
  options: PushOptions,
): Promise<boolean> {
  if ((await blobs.pushedSize(repository, blob.digest, options)) !== undefined) return false;
  const { mountFrom } = options;
  const mount = mountFrom === undefined ? '' : `?mount=${blob.digest}&from=${encodeURIComponent(mountFrom)}`;
  const call = pushCall(
    'POST',
    repository,
    `blobs/uploads/${mount}`,
    `push blob ${blob.digest} to ${repository}`,
    options,
  );
  return exchange.run({ ...call, headers: { 'content-length': '0' } }, async (answer, endpoint) => {
    if (answer.status === 201) {
      await answer.cancel();
      return false;
    }
    if (answer.status !== 202) throw await exchange.refusal(answer, call);
    const upload = uploadLocation(answer);
    upload.searchParams.set('digest', blob.digest);
    await answer.cancel();
    const sent = await exchange.sendTo(upload, endpoint, {
      ...call,
      method: 'PUT',
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(blob.size) },
      body: blob.bytes,
    });
    if (sent.status !== 201) throw refused(await exchange.refusal(sent, call), blob.digest);
    await sent.cancel();
    return true;
  });
}

function uploadLocation(answer: Answer): URL {
  const location = answer.header('location');
  if (location === undefined || !URL.canParse(location, answer.url.href)) {
    throw protocolError(answer.host, 'takes an upload, but does not say where', answer.status);
  }
  const url = new URL(location, answer.url);
  if (answer.url.protocol === 'https:' && url.protocol !== 'https:') {
    throw protocolError(answer.host, `wants an upload without TLS, at ${url.host}`, answer.status);
  }
  return url;
}

function refused(e: LaminaError, digest: Digest): LaminaError {
  if (e.details['registryCode'] !== 'DIGEST_INVALID') return e;
  return new LaminaError('BLOB_DIGEST_MISMATCH', e.message, { details: { ...e.details, wanted: digest }, cause: e });
}

const referring = z.object({
  subject: z.object({ digest: z.string() }).nullish(),
  artifactType: z.string().nullish(),
  config: z.object({ mediaType: z.string() }).nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
});

/**
 * `tag`: absent, it can be had by its digest only. A manifest with a `subject` is added to the list of that where the
 * registry does not keep such lists itself. Throws MANIFEST_INVALID and what {@link Exchange.run} throws.
 */
export async function pushManifest(
  exchange: Exchange,
  repository: string,
  manifest: { readonly bytes: Uint8Array; readonly mediaType: string; readonly tag?: string | undefined },
  options: CallOptions,
): Promise<Digest> {
  const { bytes, mediaType } = manifest;
  const digest = digestOf(bytes);
  const reference = manifest.tag ?? digest;
  const what = `push ${repository}${manifest.tag === undefined ? '@' : ':'}${reference}`;
  const call = pushCall('PUT', repository, `manifests/${reference}`, what, options);
  const document = { what: 'the manifest', code: 'MANIFEST_INVALID', limit: MANIFEST_LIMIT } as const;
  const { subject, ...facts } = parseJson(bytes, referring, document);
  const listed = await exchange.run(
    { ...call, headers: { 'content-type': mediaType }, body: () => bytes },
    async (answer) => {
      if (answer.status !== 201) throw await exchange.refusal(answer, call);
      await answer.cancel();
      return answer.header('oci-subject') !== undefined;
    },
  );
  if (subject !== undefined && subject !== null && !listed) {
    const artifactType = facts.artifactType ?? facts.config?.mediaType;
    const annotations = facts.annotations ?? undefined;
    const entry = { mediaType, digest, size: bytes.length, artifactType, annotations };
    await addToList(exchange, repository, parseDigest(subject.digest), entry, options);
  }
  return digest;
}

const list = z.object({ manifests: z.array(z.looseObject({ digest: z.string() })) });

/** Two that do this at once may lose one entry: the specification has no lock. */
async function addToList(
  exchange: Exchange,
  repository: string,
  subject: Digest,
  entry: { readonly digest: string },
  options: CallOptions,
): Promise<void> {
  const tag = referrersTag(subject);
  const before = await readList(exchange, repository, tag, options);
  if (before.some(({ digest }) => digest === entry.digest)) return;
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const index = { schemaVersion: 2, mediaType, manifests: [...before, entry] };
  await pushManifest(exchange, repository, { bytes: Buffer.from(JSON.stringify(index)), mediaType, tag }, options);
}

async function readList(
  exchange: Exchange,
  repository: string,
  tag: string,
  options: CallOptions,
): Promise<readonly { readonly digest: string }[]> {
  try {
    // From where it will be written to: a mirror may be behind.
    const call: Call = { ...manifestCall('GET', repository, tag, options), capability: 'push', actions: 'pull,push' };
    const { bytes } = await fetchManifest(exchange, call, tag);
    const document = { what: 'the list of referrers', code: 'MANIFEST_INVALID', limit: MANIFEST_LIMIT } as const;
    return parseJson(bytes, list, document).manifests;
  } catch (e) {
    if (statusOf(e) === 404) return [];
    throw e;
  }
}

function pushCall(
  method: Call['method'],
  repository: string,
  path: string,
  what: string,
  { signal, retry }: CallOptions,
): Call {
  const doing = { what, missing: 'IMAGE_NOT_FOUND' } as const;
  return { method, repository, path, actions: 'pull,push', capability: 'push', doing, signal, retry };
}
