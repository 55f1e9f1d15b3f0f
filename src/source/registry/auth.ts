/**
 * The Authorization header for one endpoint (distribution, spec/auth/token.md and oauth.md; RFC 7617). A registry says
 * by its first 401 what it wants; from then on a token is asked for before the request.
 */
import { z } from 'zod';
import { LaminaError } from '../../errors.js';
import { parseJson } from '../../oci/json.js';
import { parseChallenges, type Challenge } from './challenge.js';
import type { Credentials } from './credentials.js';
import { oneLine, protocolError, statusError } from './failures.js';
import { Secret } from './secret.js';
import type { Answer, Sending, Transport, TlsSettings } from './transport.js';

/** Bytes of a token answer. */
const TOKEN_LIMIT = 1024 * 1024;
/** Seconds that a token lives where the answer does not say (token.md). */
const LIFETIME_S = 60;
/** A token is asked for anew when less than this is left of its life: seconds, and share of the life. */
const MARGIN_S = 10;
const MARGIN_SHARE = 0.25;

const tokenAnswer = z.object({
  token: z.string().nullish(),
  access_token: z.string().nullish(),
  expires_in: z.number().nullish(),
});

export interface AuthorizerOptions {
  readonly transport: Transport;
  /** By which users know the registry. */
  readonly host: string;
  /** The settings for the host of a realm. */
  readonly tlsOf: (url: URL) => TlsSettings;
  readonly credentials: (repository: string | undefined) => Promise<Credentials | undefined>;
}

/** What a request needs the right for: "repository:NAME:pull"; undefined for the registry itself. */
export interface Scope {
  readonly repository: string | undefined;
  readonly actions: 'pull' | 'pull,push';
}

interface Token {
  readonly token: Secret;
  /** On the clock of performance.now(). */
  readonly until: number;
}

interface Entry {
  readonly pending: Promise<Token>;
  /** When it has come. */
  header: string | undefined;
}

interface BearerScheme {
  readonly kind: 'bearer';
  readonly realm: URL;
  readonly service: string | undefined;
}

type Scheme = { readonly kind: 'basic' } | BearerScheme;

export class Authorizer {
  readonly #options: AuthorizerOptions;
  #scheme: Scheme | undefined;
  /** By realm, service and scope; pending ones too, so that many requests ask once. */
  readonly #tokens = new Map<string, Entry>();
  /** As they were found; looked for anew after a 401. */
  readonly #known = new Map<string | undefined, Promise<Credentials | undefined>>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  /** What to send with a request to `url`; undefined: nothing, or nothing yet. Throws as {@link renew} does. */
  async header(scope: Scope, signal?: AbortSignal): Promise<string | undefined> {
    const scheme = this.#scheme;
    if (scheme === undefined) return undefined;
    if (scheme.kind === 'basic') return this.#basic(scope);
    return this.#bearer(scheme, scopeText(scope), scope, signal);
  }

  /**
   * What to send instead of `sent` after a 401; undefined where there is nothing else to send, and then the body of `answer`
   * is still to be read. Throws, from the token server, REGISTRY_AUTH, REGISTRY_UNREACHABLE, REGISTRY_DENIED, REGISTRY_RATE_LIMITED, REGISTRY_PROTOCOL.
   */
  async renew(
    answer: Answer,
    sent: string | undefined,
    scope: Scope,
    signal?: AbortSignal,
  ): Promise<string | undefined> {
    this.#known.clear();
    const challenges = parseChallenges(answer.header('www-authenticate') ?? '');
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer !== undefined) {
      await answer.cancel();
      const scheme = this.#bearerScheme(bearer, answer.url);
      this.#scheme = scheme;
      const wanted = bearer.params.get('scope') ?? scopeText(scope);
      this.#forget(scheme, wanted, sent);
      if (wanted !== scopeText(scope)) this.#forget(scheme, scopeText(scope), sent);
      return this.#bearer(scheme, wanted, scope, signal);
    }
    if (!challenges.some(({ scheme }) => scheme === 'basic')) return undefined;
    this.#scheme = { kind: 'basic' };
    const header = await this.#basic(scope);
    if (header === undefined || header === sent) return undefined;
    await answer.cancel();
    return header;
  }

  #credentials(repository: string | undefined): Promise<Credentials | undefined> {
    let known = this.#known.get(repository);
    if (known === undefined) {
      known = this.#options.credentials(repository);
      this.#known.set(repository, known);
      known.catch(() => this.#known.delete(repository));
    }
    return known;
  }

  async #basic({ repository }: Scope): Promise<string | undefined> {
    const credentials = await this.#credentials(repository);
    if (credentials?.kind === 'password') return basicHeader(credentials.username, credentials.password);
    return credentials?.kind === 'bearer' ? `Bearer ${credentials.token.reveal()}` : undefined;
  }

  #bearerScheme({ params }: Challenge, from: URL): BearerScheme {
    const text = params.get('realm') ?? '';
    const realm = URL.canParse(text) ? new URL(text) : undefined;
    if (realm === undefined || !/^https?:$/.test(realm.protocol)) {
      throw protocolError(from.host, `names no address to get a token at (${JSON.stringify(oneLine(text, 100))})`, 401);
    }
    // A password must not leave TLS because a registry says so.
    if (from.protocol === 'https:' && realm.protocol !== 'https:') {
      throw protocolError(from.host, `wants a token got without TLS, at ${realm.host}`, 401);
    }
    return { kind: 'bearer', realm, service: params.get('service') };
  }

  async #bearer(
    scheme: BearerScheme,
    wanted: string,
    { repository }: Scope,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const credentials = await this.#credentials(repository);
    if (credentials?.kind === 'bearer') return `Bearer ${credentials.token.reveal()}`;
    const key = tokenKey(scheme, wanted);
    for (let entry = this.#tokens.get(key); entry !== undefined; entry = this.#tokens.get(key)) {
      const token = await entry.pending.catch(() => undefined);
      if (token !== undefined && performance.now() < token.until) return bearerHeader(token);
      // Whoever asked may have given up; the first to see that asks anew.
      if (this.#tokens.get(key) === entry) this.#tokens.delete(key);
    }
    const entry: Entry = { pending: this.#fetch(scheme, wanted, credentials, signal), header: undefined };
    this.#tokens.set(key, entry);
    const token = await entry.pending;
    entry.header = bearerHeader(token);
    return entry.header;
  }

  /** Unless another request has renewed it already. */
  #forget(scheme: BearerScheme, wanted: string, sent: string | undefined): void {
    const key = tokenKey(scheme, wanted);
    if (sent !== undefined && this.#tokens.get(key)?.header === sent) this.#tokens.delete(key);
  }

  async #fetch(
    { realm, service }: BearerScheme,
    wanted: string,
    credentials: Credentials | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Token> {
    const asked = performance.now();
    const { transport, tlsOf, host } = this.#options;
    const url = new URL(realm);
    const query = new URLSearchParams(service === undefined ? {} : { service });
    let sending: Pick<Sending, 'method' | 'headers' | 'body'> = { method: 'GET' };
    if (credentials?.kind === 'identity') {
      if (wanted !== '') query.set('scope', wanted);
      query.set('grant_type', 'refresh_token');
      query.set('client_id', 'lamina');
      query.set('refresh_token', credentials.token.reveal());
      const headers = { 'content-type': 'application/x-www-form-urlencoded' };
      sending = { method: 'POST', headers, body: Buffer.from(query.toString()) };
    } else {
      for (const scope of wanted.split(' ').filter((s) => s !== '')) query.append('scope', scope);
      if (credentials?.kind === 'password') {
        query.set('account', credentials.username);
        const authorization = basicHeader(credentials.username, credentials.password);
        sending = { method: 'GET', headers: { authorization } };
      }
      for (const [name, value] of query) url.searchParams.append(name, value);
    }
    const answer = await transport.send(url, { ...sending, tls: tlsOf(url), signal });
    if (answer.status !== 200) throw await statusError(answer, { what: 'get a token', missing: 'REGISTRY_AUTH' }, host);
    return parseToken(await answer.read(TOKEN_LIMIT), answer.host, asked);
  }
}

/** Throws REGISTRY_PROTOCOL. Nothing of the answer is quoted. */
function parseToken(bytes: Buffer, host: string, asked: number): Token {
  const document = { what: `the token of ${host}`, code: 'REGISTRY_PROTOCOL', limit: TOKEN_LIMIT } as const;
  const { token, access_token, expires_in } = parseJson(bytes, tokenAnswer, document);
  const text = token || access_token;
  // It becomes a header: what cannot be one would be an error of undici's, with the token in it.
  if (!text || !/^[\x21-\x7e]+$/.test(text)) {
    throw new LaminaError('REGISTRY_PROTOCOL', `${host} answers without a token`, { details: { host } });
  }
  const lifetime = expires_in !== undefined && expires_in !== null && expires_in > 0 ? expires_in : LIFETIME_S;
  const until = asked + (lifetime - Math.min(MARGIN_S, lifetime * MARGIN_SHARE)) * 1000;
  return { token: new Secret(text), until };
}

function bearerHeader({ token }: Token): string {
  return `Bearer ${token.reveal()}`;
}

function basicHeader(username: string, password: Secret): string {
  return `Basic ${Buffer.from(`${username}:${password.reveal()}`).toString('base64')}`;
}

function scopeText({ repository, actions }: Scope): string {
  return repository === undefined ? '' : `repository:${repository}:${actions}`;
}

function tokenKey({ realm, service }: BearerScheme, wanted: string): string {
  return JSON.stringify([realm.href, service, wanted]);
}
