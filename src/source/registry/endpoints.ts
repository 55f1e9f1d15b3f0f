/** Where a repository of a registry is asked for, and in which order: mirrors, then the registry itself. */
import { DOCKER_HUB } from './name.js';
import { isLoopback } from './loopback.js';
import type { TlsSettings } from './transport.js';

export type Capability = 'pull' | 'resolve' | 'push';

export interface Endpoint {
  /** With the port: "registry-1.docker.io". */
  readonly host: string;
  /** By which users know it, and its credentials are kept: "docker.io". */
  readonly name: string;
  /** The first that answers is used. */
  readonly schemes: readonly ('https' | 'http')[];
  /** Before "/NAME/manifests/..": "/v2" or what a mirror has instead. */
  readonly prefix: string;
  /** The repository's name there; undefined: the registry itself is meant. */
  readonly repository: string | undefined;
  /** It may lack what the registry has. */
  readonly mirror: boolean;
  readonly capabilities: readonly Capability[];
  readonly tls: TlsSettings;
  /** Sent with each request. They may be secrets. */
  readonly headers: Readonly<Record<string, string>>;
  /** Whether to say for which registry it stands in (containerd's "?ns="). */
  readonly namespace: string | undefined;
}

export interface EndpointSource {
  /** In the order in which to ask. Throws REGISTRY_DENIED where the configuration blocks the name; CONFIG_INVALID. */
  endpoints(host: string, repository: string | undefined): readonly Endpoint[];
  /** The settings for a host that is met on the way: of a redirect or of a token. */
  tlsOf(url: URL): TlsSettings;
}

/** The host that answers for a registry. */
export function apiHost(name: string): string {
  return name === DOCKER_HUB ? 'registry-1.docker.io' : name;
}

export const everything: readonly Capability[] = ['pull', 'resolve', 'push'];

export interface DirectOptions {
  readonly tls: TlsSettings;
  /** Whether it may be spoken to without TLS. */
  readonly plain: boolean;
}

/** The registry itself. */
export function directEndpoint(name: string, repository: string | undefined, { tls, plain }: DirectOptions): Endpoint {
  return {
    host: apiHost(name),
    name,
    schemes: plain ? ['https', 'http'] : ['https'],
    prefix: '/v2',
    repository,
    mirror: false,
    capabilities: everything,
    tls,
    headers: {},
    namespace: undefined,
  };
}

/**
 * What is so without a word from anyone, as in Docker: TLS with a certificate that the system trusts; on this machine any
 * certificate, or no TLS. `tlsVerify` true or false says how it is for the registry wherever it is.
 */
export function directOptions(host: string, tlsVerify: boolean | undefined): DirectOptions {
  const here = isLoopback(new URL(`https://${host}`).hostname);
  const careless = tlsVerify === false || (tlsVerify === undefined && here);
  return { tls: { verify: !careless, ca: [], client: [] }, plain: careless };
}

/** Without any configuration. */
export class DirectEndpoints implements EndpointSource {
  readonly #tlsVerify: boolean | undefined;

  constructor(tlsVerify?: boolean) {
    this.#tlsVerify = tlsVerify;
  }

  endpoints(host: string, repository: string | undefined): readonly Endpoint[] {
    return [directEndpoint(host, repository, directOptions(apiHost(host), this.#tlsVerify))];
  }

  tlsOf(url: URL): TlsSettings {
    return directOptions(url.host, undefined).tls;
  }
}
