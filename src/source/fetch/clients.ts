/**
 * Clients of registries, one for each way to reach one: connections, tokens and the place of a redirect are its. None is kept for
 * long, so what it has read of this machine's configuration is never older than that, and a daemon that has met many does not
 * grow. One that was dropped goes on with what is under way; its connections end when they rest.
 */
import { LRUCache } from 'lru-cache';
import { FileCredentials } from '../registry/auth-file.js';
import { RegistryClient } from '../registry/client.js';
import { ConfiguredEndpoints } from '../registry/configuration.js';
import { FixedCredentials, decodeCredentials, type CredentialSource } from '../registry/credentials.js';
import type { RegistryAccess } from './access.js';
import { TYPED_MAX } from './protocol.js';

const CLIENTS_MAX = 64;
/** Milliseconds after which a client is made anew, in use or not. */
const CLIENT_MS = 10 * 60_000;

export class Clients {
  readonly #userAgent: string;
  readonly #clients: LRUCache<string, RegistryClient>;
  readonly #typed = new LRUCache<string, Readonly<Record<string, string>>>({ max: TYPED_MAX });

  constructor(userAgent: string, lifeMs = CLIENT_MS) {
    this.#userAgent = userAgent;
    this.#clients = new LRUCache({ max: CLIENTS_MAX, ttl: lifeMs });
  }

  /** Credentials that the user has typed, in the form of `encodeCredentials`. */
  keep(name: string, value: Readonly<Record<string, string>>): void {
    this.#typed.set(name, value);
  }

  /** Undefined where nothing may be asked of the network. */
  for(access: RegistryAccess): RegistryClient | undefined {
    if (access.offline === true) return undefined;
    const { host, tlsVerify, places, credentials: name } = access;
    const value = name === undefined ? undefined : this.#typed.get(name);
    const key = JSON.stringify([host, tlsVerify, places, value === undefined ? null : name]);
    let client = this.#clients.get(key);
    if (client === undefined) {
      // What was typed is gone when the supervisor has died too: then what the files say has to do.
      const credentials: CredentialSource =
        value === undefined ? new FileCredentials(places) : new FixedCredentials(host, decodeCredentials(value));
      const endpoints = new ConfiguredEndpoints({ env: { ...process.env, ...places.env }, tlsVerify });
      client = new RegistryClient({ host, credentials, endpoints, userAgent: this.#userAgent });
      this.#clients.set(key, client);
    }
    return client;
  }

  /** Drops those that have had their time. */
  dropOld(): void {
    this.#clients.purgeStale();
  }
}
