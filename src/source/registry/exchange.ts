/**
 * One request of the distribution API, from the choice of an endpoint to the answer: authorization, redirects, mirrors,
 * retries. What the answer means is for the caller.
 */
import { Authorizer, type Scope } from './auth.js';
import type { CredentialSource } from './credentials.js';
import type { Capability, Endpoint, EndpointSource } from './endpoints.js';
import { LaminaError, toLaminaError } from '../../errors.js';
import { protocolError, statusError, statusOf, unreachable, type Doing } from './failures.js';
import { retrying, type RetryOptions } from './retry.js';
import type { Answer, Body, Sending, Transport } from './transport.js';

const REDIRECTS_MAX = 10;
/** Milliseconds for which a mirror that could not be reached is passed over. */
const MIRROR_REST_MS = 30_000;

export interface Call {
  readonly method: Sending['method'];
  readonly repository: string;
  /** Below the repository, such as "manifests/latest", with its query. */
  readonly path: string;
  readonly actions: Scope['actions'];
  readonly capability: Capability;
  readonly headers?: Readonly<Record<string, string>>;
  /** Called for each attempt. */
  readonly body?: () => Body;
  readonly doing: Doing;
  readonly signal?: AbortSignal | undefined;
  /** Instead of the client's. */
  readonly retry?: Partial<RetryOptions> | undefined;
}

export interface ExchangeOptions {
  readonly transport: Transport;
  readonly endpoints: EndpointSource;
  readonly credentials: CredentialSource;
  readonly retry: RetryOptions;
  /** Of the registry. */
  readonly host: string;
}

export class Exchange {
  readonly #options: ExchangeOptions;
  readonly #authorizers = new Map<string, Authorizer>();
  readonly #origins = new Map<string, Promise<string>>();
  /** Until when mirrors are passed over, on the clock of performance.now(). */
  readonly #resting = new Map<string, number>();

  constructor(options: ExchangeOptions) {
    this.#options = options;
  }

  /**
   * Asks the endpoints in turn, and all of them again where that may help, until `use` returns. `use` gets every answer that
   * is no redirect and no 401 that could be helped; it throws what {@link refusal} makes of those that it does not
   * want. Throws that, or the error of the last endpoint.
   */
  run<T>(call: Call, use: (answer: Answer, endpoint: Endpoint) => Promise<T>): Promise<T> {
    const { retry } = this.#options;
    return retrying(() => this.#everywhere(call, use), { ...retry, ...call.retry }, call.signal);
  }

  /** The error for an answer that was not wanted. Reads its body. */
  refusal(answer: Answer, { doing }: Call): Promise<LaminaError> {
    return statusError(answer, doing, this.#options.host);
  }

  /** Whether the registry itself answers to us at all. Throws as {@link run} does. */
  async ping(signal: AbortSignal | undefined): Promise<void> {
    const { host, endpoints, retry } = this.#options;
    const endpoint = endpoints.endpoints(host, undefined).at(-1);
    if (endpoint === undefined) throw protocolError(host, 'is configured for nothing');
    const doing = { what: `use ${host}`, missing: 'REGISTRY_PROTOCOL' } as const;
    const call: Call = { method: 'GET', repository: '', path: '', actions: 'pull', capability: 'pull', doing, signal };
    await retrying(
      async () => {
        const answer = await this.send(endpoint, call);
        if (answer.status !== 200) throw await this.refusal(answer, call);
        await answer.cancel();
      },
      retry,
      signal,
    );
  }

  /** Those that can do what the call needs, in order; mirrors that were down a moment ago are left out. */
  endpointsFor({ repository, capability }: Pick<Call, 'repository' | 'capability'>): readonly Endpoint[] {
    const now = performance.now();
    return this.#options.endpoints
      .endpoints(this.#options.host, repository)
      .filter((e) => e.capabilities.includes(capability))
      .filter((e) => !e.mirror || now >= (this.#resting.get(endpointKey(e)) ?? 0));
  }

  async #everywhere<T>(call: Call, use: (answer: Answer, endpoint: Endpoint) => Promise<T>): Promise<T> {
    let failure: Error | undefined;
    for (const endpoint of this.endpointsFor(call)) {
      try {
        return await use(await this.send(endpoint, call), endpoint);
      } catch (e) {
        call.signal?.throwIfAborted();
        failure = toLaminaError(e);
        // What the registry itself says is final; a mirror may lack an image, refuse us or be broken.
        if (!endpoint.mirror) throw e;
        if (wasUnreachable(e)) this.#resting.set(endpointKey(endpoint), performance.now() + MIRROR_REST_MS);
      }
    }
    throw failure ?? protocolError(this.#options.host, `is configured for nothing that could ${call.doing.what}`);
  }

  /** One request to one endpoint, redirects followed. Throws as {@link Transport.send} and {@link Authorizer.renew} do. */
  async send(endpoint: Endpoint, call: Call): Promise<Answer> {
    const origin = await this.#origin(endpoint);
    const { prefix, repository } = endpoint;
    const url = new URL(`${origin}${prefix}/${repository === undefined ? '' : `${repository}/`}${call.path}`);
    if (endpoint.namespace !== undefined) url.searchParams.set('ns', endpoint.namespace);
    return this.sendTo(url, endpoint, call);
  }

  /** The same for a URL that the endpoint has given: an upload's, the next page's. */
  async sendTo(start: URL, endpoint: Endpoint, call: Call): Promise<Answer> {
    const origin = await this.#origin(endpoint);
    const authorizer = this.#authorizer(endpoint, origin);
    const scope = { repository: endpoint.repository, actions: call.actions };
    let url = start;
    let renewed = false;
    for (let redirects = 0; redirects <= REDIRECTS_MAX;) {
      const ours = url.origin === origin;
      // Nothing of what proves who we are goes to another origin than the endpoint's.
      const authorization = ours ? await authorizer.header(scope, call.signal) : undefined;
      let answer = await this.#sendOnce(url, endpoint, call, ours, authorization);
      if (answer.status === 401 && ours && !renewed) {
        renewed = true;
        const renewal = await authorizer.renew(answer, authorization, scope, call.signal);
        if (renewal !== undefined) answer = await this.#sendOnce(url, endpoint, call, ours, renewal);
      }
      const next = redirection(answer, call.method);
      if (next === undefined) return answer;
      await answer.cancel();
      if (endpoint.tls.verify && url.protocol === 'https:' && next.protocol !== 'https:') {
        throw protocolError(url.host, `redirects to ${next.host} without TLS`, answer.status);
      }
      url = next;
      redirects++;
    }
    throw protocolError(endpoint.host, `redirects more than ${REDIRECTS_MAX} times`);
  }

  #sendOnce(
    url: URL,
    endpoint: Endpoint,
    { method, headers, body, signal }: Call,
    ours: boolean,
    authorization: string | undefined,
  ): Promise<Answer> {
    const { transport, endpoints } = this.#options;
    return transport.send(url, {
      method,
      headers: {
        ...headers,
        ...(ours ? endpoint.headers : {}),
        ...(authorization === undefined ? {} : { authorization }),
      },
      body: body?.(),
      tls: ours ? endpoint.tls : endpoints.tlsOf(url),
      signal,
    });
  }

  #authorizer(endpoint: Endpoint, origin: string): Authorizer {
    const key = endpointKey(endpoint);
    let authorizer = this.#authorizers.get(key);
    if (authorizer === undefined) {
      const { transport, endpoints, credentials } = this.#options;
      const tlsOf = (url: URL) => (url.origin === origin ? endpoint.tls : endpoints.tlsOf(url));
      const { name } = endpoint;
      const find = (repository: string | undefined) => credentials.find(name, repository);
      authorizer = new Authorizer({ transport, host: name, tlsOf, credentials: find });
      this.#authorizers.set(key, authorizer);
    }
    return authorizer;
  }

  /** Found out once where it may be with or without TLS. */
  #origin(endpoint: Endpoint): Promise<string> {
    const { host, schemes } = endpoint;
    const [only = 'https', other] = schemes;
    if (other === undefined) return Promise.resolve(new URL(`${only}://${host}`).origin);
    const key = endpointKey(endpoint);
    let origin = this.#origins.get(key);
    if (origin === undefined) {
      origin = this.#probe(endpoint);
      this.#origins.set(key, origin);
      origin.catch(() => this.#origins.delete(key));
    }
    return origin;
  }

  /** Without a signal: others may wait for it too, and its time is limited. */
  async #probe({ host, schemes, tls }: Endpoint): Promise<string> {
    let failure: Error | undefined;
    for (const scheme of schemes) {
      const url = new URL(`${scheme}://${host}/v2/`);
      try {
        const answer = await this.#options.transport.send(url, { method: 'GET', tls });
        await answer.cancel();
        return url.origin;
      } catch (e) {
        failure = toLaminaError(e);
      }
    }
    throw failure ?? unreachable(undefined, host);
  }
}

function wasUnreachable(e: unknown): boolean {
  return e instanceof LaminaError && e.code === 'REGISTRY_UNREACHABLE' && statusOf(e) === undefined;
}

function endpointKey({ host, prefix, schemes }: Endpoint): string {
  return `${schemes.join()} ${host}${prefix}`;
}

/** Where a redirect points, or undefined where the answer is none that may be followed. */
function redirection(answer: Answer, method: Sending['method']): URL | undefined {
  const { status, url } = answer;
  const kept = status === 307 || status === 308;
  if (!kept && !(status === 301 || status === 302 || status === 303)) return undefined;
  // With these a client would go on with GET.
  if (!kept && method !== 'GET' && method !== 'HEAD') return undefined;
  const location = answer.header('location');
  if (location === undefined || !URL.canParse(location, url.href)) {
    throw protocolError(url.host, 'redirects to nowhere', status);
  }
  const next = new URL(location, url);
  if (!/^https?:$/.test(next.protocol)) throw protocolError(url.host, `redirects to ${next.protocol}`, status);
  return next;
}
