/**
 * Endpoints as this machine is configured. The first that has something to say of a name counts: containerd's hosts.toml of
 * the registry, an entry of registries.conf, containerd's hosts.toml of "_default"; else the registry itself. What the
 * files say is read once in the life of a {@link ConfiguredEndpoints}.
 */
import { join } from 'node:path';
import { LaminaError } from '../../errors.js';
import { findCertificates, noCertificates, type Certificates } from './certificates.js';
import {
  apiHost,
  directEndpoint,
  directOptions,
  type DirectOptions,
  type Endpoint,
  type EndpointSource,
} from './endpoints.js';
import { hostDirectories, readHosts } from './hosts-toml.js';
import { findEntry, readRegistriesConf, type RegistryEntry } from './registries-conf.js';
import type { TlsSettings } from './transport.js';

export interface ConfigurationOptions {
  readonly env: NodeJS.ProcessEnv;
  /** `--tls-verify`, for the registry itself: true asks for TLS with a trusted certificate even where it is this machine's. */
  readonly tlsVerify?: boolean | undefined;
  /** The directory that holds /etc. Default "/". */
  readonly root?: string | undefined;
}

export class ConfiguredEndpoints implements EndpointSource {
  readonly #root: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #tlsVerify: boolean | undefined;
  #entries: readonly RegistryEntry[] | undefined;
  readonly #endpoints = new Map<string, readonly Endpoint[]>();
  readonly #certificates = new Map<string, Certificates>();

  constructor({ env, tlsVerify, root = '/' }: ConfigurationOptions) {
    this.#env = env;
    this.#tlsVerify = tlsVerify;
    this.#root = root;
  }

  endpoints(host: string, repository: string | undefined): readonly Endpoint[] {
    const key = `${host}/${repository ?? ''}`;
    let endpoints = this.#endpoints.get(key);
    if (endpoints === undefined) {
      endpoints = this.#hosts(host, host, repository) ??
        this.#registriesConf(host, repository) ??
        this.#hosts('_default', host, repository) ?? [this.#direct(host, repository, false)];
      this.#endpoints.set(key, endpoints);
    }
    return endpoints;
  }

  tlsOf(url: URL): TlsSettings {
    return this.#options(url.host, undefined).tls;
  }

  #hosts(directory: string, host: string, repository: string | undefined): readonly Endpoint[] | undefined {
    const root = join(this.#root, 'etc/containerd/certs.d');
    for (const place of directory === host ? hostDirectories(root, host) : [join(root, directory)]) {
      const endpoints = readHosts(place, host, repository, this.#tlsVerify);
      // With no certificates of its own, a host may have some in the other directories.
      if (endpoints !== undefined) return endpoints.map((e) => this.#withCertificates(e));
    }
    return undefined;
  }

  #withCertificates(endpoint: Endpoint): Endpoint {
    const { tls, host } = endpoint;
    if (tls.ca.length > 0 || tls.client.length > 0) return endpoint;
    return { ...endpoint, tls: { ...tls, ...this.#certificatesOf(host) } };
  }

  #registriesConf(host: string, repository: string | undefined): readonly Endpoint[] | undefined {
    this.#entries ??= readRegistriesConf({ root: this.#root, env: this.#env });
    const found = findEntry(this.#entries, repository === undefined ? host : `${host}/${repository}`);
    if (found === undefined) return undefined;
    const { entry, matched, rest } = found;
    if (entry.blocked) {
      throw new LaminaError('REGISTRY_DENIED', `${host}/${repository ?? ''} is blocked by ${entry.path}`, {
        hint: `Take "blocked" out of the entry for ${entry.prefix} if that is not meant.`,
        details: { host },
      });
    }
    const mirrors = entry.mirrors.map(({ location, insecure, digestOnly }): Endpoint => ({
      ...this.#located(location + rest, insecure),
      mirror: true,
      // What has a digest, and blobs; names only where the mirror may answer for them.
      capabilities: digestOnly ? ['pull'] : ['pull', 'resolve'],
    }));
    return [...mirrors, this.#located((entry.location ?? matched) + rest, entry.insecure, true)];
  }

  /** `name`: "HOST/REPOSITORY" as the file has rewritten it. */
  #located(name: string, insecure: boolean, itself = false): Endpoint {
    const slash = name.indexOf('/');
    const host = slash < 0 ? name : name.slice(0, slash);
    return this.#direct(host, slash < 0 ? undefined : name.slice(slash + 1), insecure, itself);
  }

  #direct(host: string, repository: string | undefined, insecure: boolean, itself = true): Endpoint {
    const verify = itself ? this.#tlsVerify : undefined;
    return directEndpoint(host, repository, this.#options(apiHost(host), verify ?? (insecure ? false : undefined)));
  }

  #options(host: string, tlsVerify: boolean | undefined): DirectOptions {
    const certificates = this.#certificatesOf(host);
    // Whoever names a CA for a host wants it to be asked for, on this machine too.
    const { tls, plain } = directOptions(host, tlsVerify ?? (certificates.ca.length > 0 ? true : undefined));
    return { tls: { ...tls, ...certificates }, plain };
  }

  #certificatesOf(host: string): Certificates {
    let certificates = this.#certificates.get(host);
    if (certificates === undefined) {
      const home = this.#env['HOME'];
      const roots = ['etc/containers/certs.d', 'etc/docker/certs.d', 'etc/containerd/certs.d'];
      certificates = findCertificates([
        ...(home === undefined ? [] : [join(home, '.config/containers/certs.d', host)]),
        ...roots.map((directory) => join(this.#root, directory, host)),
      ]);
      this.#certificates.set(host, certificates);
    }
    return certificates ?? noCertificates;
  }
}
