/**
 * One request of the distribution API, from the choice of an endpoint to the answer: authorization, redirects, mirrors,
 * retries. What the answer means is for the caller.
 */
import { Authorizer, type Scope } from './auth.js';
import type { CredentialSource } from './credentials.js';
import type { Capability, Endpoint, EndpointSource } from './endpoints.js';
import { toLaminaError, type LaminaError } from '../../errors.js';
import {
  isSilence,
  isUnreachable,
  isWithoutTls,
  protocolError,
  statusError,
  unreachable,
  type Doing,
} from './failures.js';
import { REDIRECTS_MAX, redirection, redirectsTooOften } from './redirect.js';
import { retrying, type RetryOptions } from './retry.js';
import type { Answer, Body, Sending, Transport } from './transport.js';

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
   * is no redirect and no refusal that could be helped; it throws what {@link refusal} makes of those that it does not
   * want. Throws that, or the error of the last endpoint.
   */
  run<T>(call: Call, use: (answer: Answer, endpoint: Endpoint) => Promise<T>): Promise<T> {
    const { retry } = this.#options;
    return retrying(() => this.#everywhere(call, use), { ...retry, ...call.retry }, call.signal);
  }

  /** The error for an answer that was not wanted. Reads its body. */
  refusal(answer: Answer, { doing, repository }: Call): Promise<LaminaError> {
    const { endpoints, host } = this.#options;
    // Credentials are kept under the name that the configuration gives it.
    return statusError(answer, doing, endpoints.endpoints(host, repository || undefined).at(-1)?.name ?? host);
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

  /** A mirror that does not answer, or not to the end, is passed over for a while. */
  rest(endpoint: Endpoint): void {
    if (endpoint.mirror) this.#resting.set(endpointKey(endpoint), performance.now() + MIRROR_REST_MS);
  }

  async #everywhere<T>(call: Call, use: (answer: Answer, endpoint: Endpoint) => Promise<T>): Promise<T> {
    let failure: Error | undefined;
    for (const endpoint of this.endpointsFor(call)) {
      try {
        return await use(await this.send(endpoint, call), endpoint);
      } catch (e) {
        if (isSilence(call.signal)) this.rest(endpoint);
        call.signal?.throwIfAborted();
        failure = toLaminaError(e);
        // What the registry itself says is final; a mirror may lack an image, refuse us or be broken.
        if (!endpoint.mirror) throw e;
        if (isUnreachable(e)) this.rest(endpoint);
      }
    }
    throw failure ?? protocolError(this.#options.host, `is configured for nothing that could ${call.doing.what}`);
  }

  /** One request to one endpoint, redirects followed. Throws as {@link Transport.send} and {@link Authorizer.renew} do. */
  async send(endpoint: Endpoint, call: Call): Promise<Answer> {
    const origin = await unlessAborted(this.#origin(endpoint), call.signal);
    const { prefix, repository } = endpoint;
    const url = new URL(`${origin}${prefix}/${repository === undefined ? '' : `${repository}/`}${call.path}`);
    if (endpoint.namespace !== undefined) url.searchParams.set('ns', endpoint.namespace);
    return this.sendTo(url, endpoint, call);
  }

  /** The same for a URL that the endpoint has given: an upload's, the next page's. */
  async sendTo(start: URL, endpoint: Endpoint, call: Call): Promise<Answer> {
    const origin = await unlessAborted(this.#origin(endpoint), call.signal);
    const authorizer = this.#authorizer(endpoint, origin);
    const scope = { repository: endpoint.repository, actions: call.actions };
    let url = start;
    let renewed = false;
    for (let redirects = 0; redirects <= REDIRECTS_MAX;) {
      const ours = url.origin === origin;
      // Nothing of what proves who we are goes to another origin than the endpoint's.
      const authorization = ours ? await unlessAborted(authorizer.header(scope, call.signal), call.signal) : undefined;
      let answer = await this.#sendOnce(url, endpoint, call, ours, authorization);
      if ((answer.status === 401 || answer.status === 403) && ours && !renewed) {
        renewed = true;
        const renewal = await authorizer.renew(answer, authorization, scope, call.signal);
        if (renewal !== undefined) answer = await this.#sendOnce(url, endpoint, call, ours, renewal);
      }
      // What speaks TLS now did not when it was asked first (nginx, Apache and Go answer so).
      if (answer.status === 400 && ours && url.protocol === 'http:') this.#origins.delete(endpointKey(endpoint));
      const next = redirection(answer, call.method, endpoint.tls.verify);
      if (next === undefined) return answer;
      await answer.cancel();
      url = next;
      redirects++;
    }
    throw redirectsTooOften(endpoint.host);
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
      origin = this.#probe(endpoint, key);
      this.#origins.set(key, origin);
      origin.catch(() => this.#origins.delete(key));
    }
    return origin;
  }

  /** Without a signal: others may wait for it too, and its time is limited. */
  async #probe({ host, schemes, tls }: Endpoint, key: string): Promise<string> {
    let failure: LaminaError | undefined;
    for (const scheme of schemes) {
      const url = new URL(`${scheme}://${host}/v2/`);
      // Nothing speaks against going on without TLS where there is none.
      const sure = failure === undefined || isWithoutTls(failure);
      try {
        const answer = await this.#options.transport.send(url, { method: 'GET', tls });
        if (scheme === 'https' || answer.status === 200 || answer.status === 401) {
          await answer.cancel();
          if (!sure) this.#origins.delete(key);
          return url.origin;
        }
        // A registry with TLS answers 400 to what comes without, and something else may be here.
        const doing = { what: `use ${host} without TLS`, missing: 'REGISTRY_PROTOCOL' } as const;
        throw await statusError(answer, doing, this.#options.host);
      } catch (e) {
        if (sure) failure = toLaminaError(e);
      }
    }
    throw failure ?? unreachable(undefined, host);
  }
}

/** What `promise` gives, or the reason of `signal`; others may wait for the promise too. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let abort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason as Error);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function endpointKey({ host, prefix, schemes }: Endpoint): string {
  return `${schemes.join()} ${host}${prefix}`;
}
