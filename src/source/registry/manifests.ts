/** Reading manifests, indexes and what refers to them (distribution-spec "Pulling manifests", "Listing Referrers"). */
import { digestOf, parseDigest, type Digest } from '../../digest/index.js';
import { LaminaError } from '../../errors.js';
import type { Descriptor } from '../../oci/descriptor.js';
import { parseIndex } from '../../oci/index-document.js';
import { MANIFEST_LIMIT } from '../../oci/limits.js';
import { isSchema1Type } from '../../oci/media-types.js';
import type { Call, Exchange } from './exchange.js';
import { encodedError, protocolError, statusOf } from './failures.js';
import { nextPage } from './pages.js';
import { signedPayload } from './schema1.js';
import type { RetryOptions } from './retry.js';
import type { Answer } from './transport.js';

export interface FetchedManifest {
  /** As they came. */
  readonly bytes: Buffer;
  readonly mediaType: string;
  /** Verified. Of a signed manifest of schema 1 that of what is signed, as registries count it. */
  readonly digest: Digest;
}

export interface ResolvedManifest {
  readonly mediaType: string;
  /** What the registry says; verified when the manifest is read. */
  readonly digest: Digest;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** What is different from the client's own. */
  readonly retry?: Partial<RetryOptions> | undefined;
}

const ACCEPTED = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.oci.artifact.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.5',
  'application/vnd.docker.distribution.manifest.v1+json;q=0.5',
];
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';

export function manifestCall(
  method: Call['method'],
  repository: string,
  reference: string,
  { signal, retry }: CallOptions,
): Call {
  const isDigest = reference.includes(':');
  return {
    method,
    repository,
    path: `manifests/${reference}`,
    actions: 'pull',
    capability: isDigest ? 'pull' : 'resolve',
    headers: { accept: ACCEPTED.join(', ') },
    doing: {
      what: `read ${repository}${isDigest ? '@' : ':'}${reference}`,
      missing: isDigest ? 'IMAGE_NOT_FOUND' : 'TAG_NOT_FOUND',
    },
    signal,
    retry,
  };
}

/** Throws TAG_NOT_FOUND, IMAGE_NOT_FOUND, BLOB_DIGEST_MISMATCH, LIMIT_EXCEEDED and what {@link Exchange.run} throws. */
export function fetchManifest(exchange: Exchange, call: Call, reference: string): Promise<FetchedManifest> {
  return exchange.run(call, async (answer) => {
    if (answer.status !== 200) throw await exchange.refusal(answer, call);
    if (answer.encoding !== undefined) {
      await answer.cancel();
      throw encodedError(answer);
    }
    const bytes = await answer.read(MANIFEST_LIMIT, `the manifest of ${call.repository}`);
    const mediaType = mediaTypeOf(answer, bytes);
    const wanted = reference.includes(':') ? parseDigest(reference) : undefined;
    const said = saidDigest(answer);
    const payload = isSchema1Type(mediaType) ? signedPayload(bytes) : bytes;
    const digest = digestOf(payload, wanted ?? said ?? 'sha256');
    for (const expected of [wanted, said]) {
      if (expected === undefined || expected === digest || !sameAlgorithm(expected, digest)) continue;
      throw new LaminaError(
        'BLOB_DIGEST_MISMATCH',
        `The manifest of ${call.repository} from ${answer.host} does not match its digest`,
        { details: { host: answer.host, wanted: expected, got: digest } },
      );
    }
    return { bytes, mediaType, digest };
  });
}

/** By HEAD; undefined where the registry does not tell. Throws as {@link fetchManifest} does. */
export function headManifest(exchange: Exchange, call: Call): Promise<ResolvedManifest | undefined> {
  return exchange.run(call, async (answer) => {
    if (answer.status !== 200) throw await exchange.refusal(answer, call);
    await answer.cancel();
    const digest = saidDigest(answer);
    const mediaType = contentType(answer);
    return digest === undefined || mediaType === undefined ? undefined : { digest, mediaType };
  });
}

function saidDigest(answer: Answer): Digest | undefined {
  const text = answer.header('docker-content-digest');
  if (text === undefined) return undefined;
  try {
    return parseDigest(text);
  } catch {
    throw protocolError(answer.host, 'answers with a Docker-Content-Digest that is none', answer.status);
  }
}

const sameAlgorithm = (a: Digest, b: Digest): boolean => a.split(':')[0] === b.split(':')[0];

function contentType(answer: Answer): string | undefined {
  return answer.header('content-type')?.split(';')[0]?.trim().toLowerCase();
}

/** As the answer says; where that says nothing in particular, as the document does. */
function mediaTypeOf(answer: Answer, bytes: Buffer): string {
  const said = contentType(answer) ?? '';
  if (said !== '' && !/^(?:application\/(?:json|octet-stream)|text\/plain)$/.test(said)) return said;
  try {
    const document = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
    if (typeof document['mediaType'] === 'string') return document['mediaType'];
    if (document['manifests'] !== undefined) return INDEX_TYPE;
    if (document['fsLayers'] !== undefined) return 'application/vnd.docker.distribution.manifest.v1+prettyjws';
    if (document['config'] !== undefined) return 'application/vnd.oci.image.manifest.v1+json';
  } catch {
    // no document
  }
  throw protocolError(answer.host, `answers with what is no manifest (${JSON.stringify(said.slice(0, 100))})`, 200);
}

/** Pages of one list. */
const PAGES_MAX = 1000;

/**
 * What refers to `subject`, of `artifactType` where that is given; from the tag that stands in for it where the registry
 * has no such API. Throws MANIFEST_INVALID and what {@link Exchange.run} throws.
 */
export async function listReferrers(
  exchange: Exchange,
  repository: string,
  subject: Digest,
  artifactType: string | undefined,
  options: CallOptions,
): Promise<Descriptor[]> {
  const query = artifactType === undefined ? '' : `?artifactType=${encodeURIComponent(artifactType)}`;
  const call: Call = {
    ...manifestCall('GET', repository, subject, options),
    path: `referrers/${subject}${query}`,
    headers: { accept: INDEX_TYPE },
    doing: { what: `list what refers to ${repository}@${subject}`, missing: 'IMAGE_NOT_FOUND' },
  };
  const found = (await byApi(exchange, call)) ?? (await byTag(exchange, repository, subject, options));
  return artifactType === undefined ? found : found.filter((d) => d.artifactType === artifactType);
}

/** Undefined where the registry lacks the API, or answers with something else (many send a page for people). */
async function byApi(exchange: Exchange, call: Call): Promise<Descriptor[] | undefined> {
  try {
    return await exchange.run(call, async (answer, endpoint) => {
      const all: Descriptor[] = [];
      let page = answer;
      for (let n = 0; n < PAGES_MAX; n++) {
        if (page.status !== 200) throw await exchange.refusal(page, call);
        if (contentType(page) !== INDEX_TYPE) throw protocolError(page.host, 'lists no referrers', 404);
        const next = nextPage(page);
        const listed = parseIndex(await page.read(MANIFEST_LIMIT), undefined, 'the list of referrers');
        for (const descriptor of listed) all.push(descriptor);
        if (next === undefined) return all;
        page = await exchange.sendTo(next, endpoint, call);
      }
      throw protocolError(answer.host, 'lists referrers without an end');
    });
  } catch (e) {
    if ([400, 404, 405].includes(statusOf(e) ?? 0)) return undefined;
    throw e;
  }
}

/** distribution-spec "Referrers Tag Schema". */
export function referrersTag(subject: Digest): string {
  const [algorithm = '', encoded = ''] = subject.split(':');
  return `${algorithm.slice(0, 32)}-${encoded.slice(0, 64)}`;
}

async function byTag(
  exchange: Exchange,
  repository: string,
  subject: Digest,
  options: CallOptions,
): Promise<Descriptor[]> {
  const tag = referrersTag(subject);
  try {
    const { bytes, mediaType } = await fetchManifest(exchange, manifestCall('GET', repository, tag, options), tag);
    return mediaType === INDEX_TYPE ? [...parseIndex(bytes, mediaType, 'the list of referrers')] : [];
  } catch (e) {
    if (statusOf(e) === 404) return [];
    throw e;
  }
}
