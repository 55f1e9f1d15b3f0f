/** Who we are to a registry, and where that is known from. */
import { LaminaError } from '../../errors.js';
import { normalizeHost } from './name.js';
import { Secret } from './secret.js';

export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: Secret }
  /** An OAuth 2 refresh token (Docker's "identitytoken"): exchanged for an access token each time. */
  | { readonly kind: 'identity'; readonly token: Secret }
  /** A bearer token, used as it is (Docker's "registrytoken"). */
  | { readonly kind: 'bearer'; readonly token: Secret };

export interface CredentialSource {
  /** For a repository of a registry. Undefined: none are known, which is no error. */
  find(host: string, repository: string | undefined): Promise<Credentials | undefined>;
}

export function sameCredentials(a: Credentials | undefined, b: Credentials | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  if (a.kind === 'password') {
    return b.kind === 'password' && a.username === b.username && a.password.reveal() === b.password.reveal();
  }
  return a.kind === b.kind && a.token.reveal() === b.token.reveal();
}

export const noCredentials: CredentialSource = { find: () => Promise.resolve(undefined) };

/** The same for everything on one host, and none for others. */
export class FixedCredentials implements CredentialSource {
  readonly #host: string;
  readonly #credentials: Credentials;

  constructor(host: string, credentials: Credentials) {
    this.#host = normalizeHost(host);
    this.#credentials = credentials;
  }

  find(host: string): Promise<Credentials | undefined> {
    return Promise.resolve(normalizeHost(host) === this.#host ? this.#credentials : undefined);
  }
}

/** `--creds USER[:PASSWORD]`. Throws USAGE, without the text. */
export function parseCredentials(text: string): Credentials {
  const colon = text.indexOf(':');
  if (colon <= 0) throw new LaminaError('USAGE', '--creds needs USER:PASSWORD');
  return { kind: 'password', username: text.slice(0, colon), password: new Secret(text.slice(colon + 1)) };
}

/** What {@link decodeCredentials} reads: for the way to the daemon over its socket only. It has the secrets. */
export function encodeCredentials(credentials: Credentials): Record<string, string> {
  return credentials.kind === 'password'
    ? { kind: 'password', username: credentials.username, secret: credentials.password.reveal() }
    : { kind: credentials.kind, secret: credentials.token.reveal() };
}

/** Throws USAGE where it is nothing that {@link encodeCredentials} writes. */
export function decodeCredentials(document: Readonly<Record<string, string>>): Credentials {
  const { kind, username, secret } = document;
  if (secret !== undefined) {
    if (kind === 'password' && username !== undefined) return { kind, username, password: new Secret(secret) };
    if (kind === 'identity' || kind === 'bearer') return { kind, token: new Secret(secret) };
  }
  throw new LaminaError('USAGE', 'Credentials of an unknown form');
}
