/**
 * A registry over the distribution API (distribution-spec v1.1). One client is for one registry, its mirrors and the places
 * that it redirects to; it holds connections, tokens and what it has learned of them. Everything runs in one thread and
 * nothing blocks it.
 *
 *     client -> manifests, pages, blobs, push   what is asked for and what the answers mean
 *            -> exchange                        endpoints in turn, authorization, redirects, retries
 *            -> endpoints, auth, credentials    where, and as whom
 *            -> transport                       undici: connections, TLS, proxies, time limits
 *
 * Manifests are verified here; blobs are not, since parts of them come: their reader does that. Errors are those of
 * `failures.ts`: `isTransient` tells which may pass. An aborted `signal` makes everything throw its reason.
 */
import type { Digest } from '../../digest/index.js';
import type { Descriptor } from '../../oci/descriptor.js';
import { BlobReader, type BlobAnswer, type BlobOptions } from './blobs.js';
import { noCredentials, type CredentialSource } from './credentials.js';
import { DirectEndpoints, type EndpointSource } from './endpoints.js';
import { Exchange } from './exchange.js';
import {
  fetchManifest,
  headManifest,
  listReferrers,
  manifestCall,
  type CallOptions,
  type FetchedManifest,
  type ResolvedManifest,
} from './manifests.js';
import { listTags } from './pages.js';
import { pushBlob, pushManifest, type PushedBlob, type PushOptions } from './push.js';
import { defaultRetry, type RetryOptions } from './retry.js';
import { Transport, type TransportTimes } from './transport.js';

export interface RegistryOptions {
  /** The registry as it is written in references: "docker.io", "localhost:5000". */
  readonly host: string;
  /** Default: none. */
  readonly credentials?: CredentialSource | undefined;
  /** Default: the registry itself, with TLS unless it is on this machine. */
  readonly endpoints?: EndpointSource | undefined;
  /** For HTTP_PROXY, HTTPS_PROXY and NO_PROXY. Default: those of the process. */
  readonly env?: NodeJS.ProcessEnv | undefined;
  /** "lamina/1.0.0" */
  readonly userAgent?: string | undefined;
  readonly retry?: Partial<RetryOptions> | undefined;
  readonly times?: TransportTimes | undefined;
}

export class RegistryClient {
  readonly host: string;
  readonly #transport: Transport;
  readonly #exchange: Exchange;
  readonly #blobs: BlobReader;

  constructor(options: RegistryOptions) {
    const { host, env = process.env, userAgent = 'lamina', times, retry } = options;
    this.host = host;
    this.#transport = new Transport({ env, userAgent, times });
    this.#exchange = new Exchange({
      transport: this.#transport,
      endpoints: options.endpoints ?? new DirectEndpoints(),
      credentials: options.credentials ?? noCredentials,
      retry: { ...defaultRetry, ...retry },
      host,
    });
    this.#blobs = new BlobReader(this.#exchange);
  }

  /** Whether the registry answers and takes the credentials. Throws REGISTRY_AUTH and what {@link manifest} throws. */
  ping(options: CallOptions = {}): Promise<void> {
    return this.#exchange.ping(options.signal);
  }

  /** Throws TAG_NOT_FOUND, IMAGE_NOT_FOUND, BLOB_DIGEST_MISMATCH, LIMIT_EXCEEDED, REGISTRY_*. */
  manifest(repository: string, tagOrDigest: string, options: CallOptions = {}): Promise<FetchedManifest> {
    return fetchManifest(this.#exchange, manifestCall('GET', repository, tagOrDigest, options), tagOrDigest);
  }

  /** What a tag points at, without reading it where the registry can say that. Throws as {@link manifest} does. */
  async resolve(repository: string, tagOrDigest: string, options: CallOptions = {}): Promise<ResolvedManifest> {
    const said = await headManifest(this.#exchange, manifestCall('HEAD', repository, tagOrDigest, options));
    return said ?? this.manifest(repository, tagOrDigest, options);
  }

  /**
   * A blob or a part of it, not verified. Once it has been begun to be read, nothing is retried here: ask for the rest anew.
   * Throws BLOB_MISSING, BLOB_SIZE_MISMATCH (nothing at `offset`: 416), REGISTRY_*.
   */
  blob(repository: string, digest: Digest, options: BlobOptions = {}): Promise<BlobAnswer> {
    return this.#blobs.read(repository, digest, options);
  }

  /** Bytes of a blob; undefined where there is none. Throws REGISTRY_*. */
  blobSize(repository: string, digest: Digest, options: CallOptions = {}): Promise<number | undefined> {
    return this.#blobs.size(repository, digest, options);
  }

  /** What refers to a manifest, of `artifactType` where given. Throws MANIFEST_INVALID, REGISTRY_*. */
  referrers(
    repository: string,
    digest: Digest,
    artifactType?: string,
    options: CallOptions = {},
  ): Promise<Descriptor[]> {
    return listReferrers(this.#exchange, repository, digest, artifactType, options);
  }

  /** All tags of a repository, in the registry's order. Throws IMAGE_NOT_FOUND, LIMIT_EXCEEDED, REGISTRY_*. */
  tags(repository: string, options: CallOptions = {}): Promise<string[]> {
    const call = manifestCall('GET', repository, '', options);
    const doing = { what: `list the tags of ${repository}`, missing: 'IMAGE_NOT_FOUND' } as const;
    return listTags(this.#exchange, { ...call, path: 'tags/list?n=1000', headers: {}, doing });
  }

  /** False where the registry has it already. Throws BLOB_DIGEST_MISMATCH, REGISTRY_*. */
  pushBlob(repository: string, blob: PushedBlob, options: PushOptions = {}): Promise<boolean> {
    return pushBlob(this.#exchange, this.#blobs, repository, blob, options);
  }

  /**
   * With a tag, or by its digest only. One with a `subject` is in {@link referrers} from then on, whatever the registry can
   * do. Throws MANIFEST_INVALID, REGISTRY_*.
   */
  pushManifest(
    repository: string,
    manifest: { readonly bytes: Uint8Array; readonly mediaType: string; readonly tag?: string | undefined },
    options: CallOptions = {},
  ): Promise<Digest> {
    return pushManifest(this.#exchange, repository, manifest, options);
  }

  /** Cuts all connections; what is under way fails. */
  close(): Promise<void> {
    return this.#transport.close();
  }
}
