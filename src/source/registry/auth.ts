/**
 * The Authorization header for one endpoint (distribution, spec/auth/token.md and oauth.md; RFC 7617). A registry says
 * by its first 401 what it wants; from then on a token is asked for before the request.
 */
import { z } from 'zod';
import { LaminaError } from '../../errors.js';
import { parseJson } from '../../oci/json.js';
import { parseChallenges, type Challenge } from './challenge.js';
import { sameCredentials, type Credentials } from './credentials.js';
import { oneLine, protocolError, statusError, statusOf } from './failures.js';
import { REDIRECTS_MAX, redirection, redirectsTooOften } from './redirect.js';
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
  /** As they were found, unless they have been refused since: there may be others now. */
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
   * What to send instead of `sent` after a 401 or 403; undefined where there is nothing else to send, and then the body of
   * `answer` is still to be read. Throws, from the token server, REGISTRY_AUTH, REGISTRY_UNREACHABLE, REGISTRY_DENIED, REGISTRY_RATE_LIMITED, REGISTRY_PROTOCOL.
   */
  async renew(
    answer: Answer,
    sent: string | undefined,
    scope: Scope,
    signal?: AbortSignal,
  ): Promise<string | undefined> {
    if (answer.status === 403) return this.#renewDenied(answer, sent, scope, signal);
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

  /** Some say by a 403 that a password is not good any more (Amazon ECR), or know only then what is private. */
  async #renewDenied(
    answer: Answer,
    sent: string | undefined,
    scope: Scope,
    signal: AbortSignal | undefined,
  ): Promise<string | undefined> {
    const scheme = this.#scheme;
    if (scheme === undefined || sent === undefined) return undefined;
    const before = this.#credentials(scope.repository);
    this.#drop(scope.repository, before);
    const same = sameCredentials(await before, await this.#credentials(scope.repository));
    if (!same && scheme.kind === 'bearer') this.#forget(scheme, scopeText(scope), sent);
    const header = await this.header(scope, signal);
    if (header === undefined || header === sent) return undefined;
    await answer.cancel();
    return header;
  }

  /** What `use` makes of who we are; of who we are now, where that is refused and there has been a login since, or a logout. */
  async #asKnown<T>(
    repository: string | undefined,
    use: (credentials: Credentials | undefined) => Promise<T>,
  ): Promise<T> {
    const before = this.#credentials(repository);
    try {
      return await use(await before);
    } catch (e) {
      if (!isRefusal(e)) throw e;
      this.#drop(repository, before);
      const now = this.#credentials(repository);
      try {
        if (sameCredentials(await before, await now)) throw e;
        return await use(await now);
      } catch (again) {
        this.#drop(repository, now);
        throw again;
      }
    }
  }

  /** Unless others have been found already. */
  #drop(repository: string | undefined, refused: Promise<Credentials | undefined>): void {
    if (this.#known.get(repository) === refused) this.#known.delete(repository);
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

  #bearer(
    scheme: BearerScheme,
    wanted: string,
    { repository }: Scope,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    return this.#asKnown(repository, (credentials) =>
      credentials?.kind === 'bearer'
        ? Promise.resolve(`Bearer ${credentials.token.reveal()}`)
        : this.#token(scheme, wanted, credentials, signal),
    );
  }

  /** As a header. */
  async #token(
    scheme: BearerScheme,
    wanted: string,
    credentials: Exclude<Credentials, { kind: 'bearer' }> | undefined,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const key = tokenKey(scheme, wanted);
    for (let entry = this.#tokens.get(key); entry !== undefined; entry = this.#tokens.get(key)) {
      // Whoever asked may have given up; the first to see that asks anew. A refusal is for all who waited for it.
      const token = await entry.pending.catch((e: unknown) => {
        if (isRefusal(e)) throw e;
        return undefined;
      });
      if (token !== undefined && performance.now() < token.until) return bearerHeader(token);
      if (this.#tokens.get(key) === entry) this.#tokens.delete(key);
    }
    const entry: Entry = { pending: this.#fetch(scheme, wanted, credentials, signal), header: undefined };
    this.#tokens.set(key, entry);
    try {
      entry.header = bearerHeader(await entry.pending);
    } catch (e) {
      if (this.#tokens.get(key) === entry) this.#tokens.delete(key);
      throw e;
    }
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
    credentials: Exclude<Credentials, { kind: 'bearer' }> | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Token> {
    const asked = performance.now();
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
    const answer = await this.#follow(url, { ...sending, signal });
    if (answer.status !== 200) {
      throw await statusError(answer, { what: 'get a token', missing: 'REGISTRY_AUTH' }, this.#options.host);
    }
    return parseToken(await answer.read(TOKEN_LIMIT), answer.host, asked);
  }

  /** A redirect is followed without the password to another origin; with what is in a body, not at all. */
  async #follow(start: URL, sending: Omit<Sending, 'tls'>): Promise<Answer> {
    const { transport, tlsOf, host } = this.#options;
    let url = start;
    let headers = sending.headers ?? {};
    for (let redirects = 0; redirects <= REDIRECTS_MAX; redirects++) {
      const answer = await transport.send(url, { ...sending, headers, tls: tlsOf(url) });
      const next = sending.method === 'GET' ? redirection(answer, 'GET', true) : undefined;
      if (next === undefined) return answer;
      await answer.cancel();
      if (next.origin !== url.origin) headers = {};
      url = next;
    }
    throw redirectsTooOften(host);
  }
}

/** By a token server: OAuth 2 says so by 400 (RFC 6749, section 5.2). */
function isRefusal(e: unknown): boolean {
  const status = statusOf(e);
  return status === 400 || status === 401 || status === 403;
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
