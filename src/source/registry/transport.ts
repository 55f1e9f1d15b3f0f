/**
 * HTTP itself: undici with a pool of connections per origin, proxies from the environment, TLS settings per host, and time
 * limits. It follows no redirects, retries nothing and knows nothing of registries.
 */
import { existsSync, readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { Agent, Pool, ProxyAgent, request, type Dispatcher } from 'undici';
import { LaminaError, toLaminaError } from '../../errors.js';
import { tooLarge } from '../../oci/limits.js';
import { unreachable } from './failures.js';
import { proxyFor } from './proxies.js';

/** Milliseconds in which a connection must be made, TLS included. */
const CONNECT_MS = 10_000;
/** Milliseconds in which an answer must begin. */
const HEADERS_MS = 30_000;
/** Milliseconds without a byte of a body after which it is given up. */
const IDLE_MS = 30_000;
/** Milliseconds that an idle connection is kept. */
const KEEP_ALIVE_MS = 30_000;
/** Connections to one origin; more requests wait. Whoever reads ahead should stay well below. */
const CONNECTIONS = 64;

/** Bytes, and milliseconds, that a body may still have for its connection to be worth keeping. */
const CANCEL_LIMIT = 64 * 1024;
const CANCEL_MS = 500;

export interface TransportTimes {
  readonly connectMs?: number;
  readonly headersMs?: number;
  readonly idleMs?: number;
}

/** How a server proves who it is, and we who we are. */
export interface TlsSettings {
  /** False: any certificate will do. */
  readonly verify: boolean;
  /** Files with certificates of CAs, beside those of the system. */
  readonly ca: readonly string[];
  /** Files with our own certificates and their keys. */
  readonly client: readonly { readonly cert: string; readonly key: string }[];
}

export type Body = Uint8Array | AsyncIterable<Uint8Array>;

export interface Sending {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Body | undefined;
  readonly tls: TlsSettings;
  readonly signal?: AbortSignal | undefined;
}

export interface TransportOptions {
  /** For proxies, and SSL_CERT_FILE and NODE_EXTRA_CA_CERTS. */
  readonly env: NodeJS.ProcessEnv;
  readonly userAgent: string;
  readonly times?: TransportTimes | undefined;
}

export class Transport {
  readonly #options: TransportOptions;
  readonly #dispatchers = new Map<string, Dispatcher>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** Throws REGISTRY_UNREACHABLE, CONFIG_INVALID for certificates and proxies that cannot be used, and the reason of `signal`. */
  async send(url: URL, { method, headers = {}, body, tls, signal }: Sending): Promise<Answer> {
    signal?.throwIfAborted();
    const dispatcher = this.#dispatcher(url, tls);
    const { userAgent, times = {} } = this.#options;
    const controller = new AbortController();
    const abort = (): void => controller.abort(signal?.reason);
    signal?.addEventListener('abort', abort);
    const release = (): void => signal?.removeEventListener('abort', abort);
    // Over undici's own limits, which do not hold for what waits for a connection. A stream may take long to send.
    const late = setTimeout(
      () => controller.abort(LATE),
      (times.connectMs ?? CONNECT_MS) + (times.headersMs ?? HEADERS_MS),
    );
    if (body !== undefined && !(body instanceof Uint8Array)) clearTimeout(late);
    try {
      const answer = await request(url, {
        dispatcher,
        method,
        headers: { 'user-agent': userAgent, 'accept-encoding': 'identity', ...headers },
        body:
          body === undefined || body instanceof Uint8Array
            ? (body ?? null)
            : Readable.from(body, { objectMode: false }),
        signal: controller.signal,
      });
      answer.body.once('close', release);
      return new Answer(url, answer, signal);
    } catch (e) {
      release();
      throw failed(e, url.host, signal);
    } finally {
      clearTimeout(late);
    }
  }

  /** Cuts every connection. */
  async close(): Promise<void> {
    const all = [...this.#dispatchers.values()];
    this.#dispatchers.clear();
    await Promise.all(all.map((dispatcher) => dispatcher.destroy()));
  }

  #dispatcher(url: URL, tls: TlsSettings): Dispatcher {
    const proxy = proxyFor(url, this.#options.env);
    const key = JSON.stringify([proxy, url.protocol, tls]);
    let dispatcher = this.#dispatchers.get(key);
    if (dispatcher === undefined) {
      dispatcher = this.#createDispatcher(proxy, url.protocol === 'https:' ? tls : undefined);
      this.#dispatchers.set(key, dispatcher);
    }
    return dispatcher;
  }

  #createDispatcher(proxy: URL | undefined, tls: TlsSettings | undefined): Dispatcher {
    const { env, times = {} } = this.#options;
    const connect = {
      timeout: times.connectMs ?? CONNECT_MS,
      ...(tls === undefined ? {} : { secureContext: secureContext(tls, env), rejectUnauthorized: tls.verify }),
    };
    const options: Agent.Options = {
      connect,
      connections: CONNECTIONS,
      headersTimeout: times.headersMs ?? HEADERS_MS,
      bodyTimeout: times.idleMs ?? IDLE_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
    };
    if (proxy === undefined) return new Agent(options);
    return new ProxyAgent({
      ...options,
      uri: proxy.href,
      requestTls: connect,
      // A proxy for plain HTTP is asked as such: many refuse CONNECT to other ports than 443.
      proxyTunnel: false,
      clientFactory: (origin, settings) => new ProxyPool(origin, settings),
    });
  }
}

/**
 * Connections to a proxy. When it cuts one instead of answering, undici asks again and again, without an end: for a
 * UND_ERR_SOCKET it keeps the request (lib/dispatcher/client.js, onError).
 */
class ProxyPool extends Pool {
  constructor(origin: URL, options: object) {
    super(origin, options);
    const connect: (options: Dispatcher.ConnectOptions) => Promise<Dispatcher.ConnectData> = this.connect.bind(this);
    // Of the overloads only this one is used (lib/dispatcher/proxy-agent.js).
    this.connect = (options: Dispatcher.ConnectOptions) =>
      connect(options).catch((e: unknown) => {
        throw Object.assign(new Error('the proxy cut the connection'), { code: 'ECONNRESET', cause: e });
      });
  }
}

/** What a server answers. Its body must be read, or cancelled. */
export class Answer {
  readonly url: URL;
  readonly status: number;
  readonly #answer: Dispatcher.ResponseData;
  readonly #signal: AbortSignal | undefined;

  constructor(url: URL, answer: Dispatcher.ResponseData, signal: AbortSignal | undefined) {
    this.url = url;
    this.status = answer.statusCode;
    this.#answer = answer;
    this.#signal = signal;
    // A body that is cancelled ends with an error, of which nobody needs to hear.
    answer.body.on('error', () => undefined);
  }

  /** With the port, where it is not the usual one. */
  get host(): string {
    return this.url.host;
  }

  /** By its name in lower case; several of the same name with ", " between. */
  header(name: string): string | undefined {
    const value = this.#answer.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  }

  /** Of the body; undefined where it is as it was asked for. */
  get encoding(): string | undefined {
    const encoding = this.header('content-encoding') ?? '';
    return encoding === '' || /^identity$/i.test(encoding) ? undefined : encoding;
  }

  /** The bytes of the body as they come. Throws REGISTRY_UNREACHABLE, also where fewer come than `length`. */
  async *stream(length?: number): AsyncGenerator<Uint8Array, void, undefined> {
    let received = 0;
    try {
      for await (const bytes of this.#answer.body as AsyncIterable<Buffer>) {
        received += bytes.length;
        yield bytes;
      }
    } catch (e) {
      throw failed(e, this.host, this.#signal);
    }
    if (length !== undefined && received < length) throw unreachable(CUT_OFF, this.host);
  }

  /** The whole body. Throws LIMIT_EXCEEDED where it has more than `limit` bytes, REGISTRY_UNREACHABLE. */
  async read(limit: number, what = `the answer of ${this.host}`): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const bytes of this.stream()) {
      size += bytes.length;
      if (size > limit) throw tooLarge(what, size, limit);
      parts.push(bytes);
    }
    return Buffer.concat(parts);
  }

  /** Gives up the body; a short one is read, to keep the connection. */
  async cancel(): Promise<void> {
    const signal = AbortSignal.timeout(CANCEL_MS);
    await this.#answer.body.dump({ limit: CANCEL_LIMIT, signal }).catch(() => undefined);
  }
}

const LATE = Object.assign(new Error('no answer in time'), { code: 'UND_ERR_HEADERS_TIMEOUT' });
const CUT_OFF = Object.assign(new Error('the answer was cut off'), { code: 'ECONNRESET' });

function failed(e: unknown, host: string, signal: AbortSignal | undefined): unknown {
  return signal?.aborted === true ? signal.reason : unreachable(e, host);
}

/** Where Debian, Red Hat and Alpine keep the certificates that the administrator trusts. */
const SYSTEM_CA = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/cert.pem'];

/** Those of the system, or where it has none Node's, and `ca`. */
function trusted(ca: readonly string[], env: NodeJS.ProcessEnv): string[] {
  const system = env['SSL_CERT_FILE'] || SYSTEM_CA.find((file) => existsSync(file));
  const files = [system, env['NODE_EXTRA_CA_CERTS'], ...ca].filter((file) => file !== undefined && file !== '');
  const certificates = files.map((file) => readFileSync(file as string, 'latin1'));
  return system === undefined ? [...rootCertificates, ...certificates] : certificates;
}

/** Throws CONFIG_INVALID. */
function secureContext({ verify, ca, client }: TlsSettings, env: NodeJS.ProcessEnv): SecureContext {
  try {
    return createSecureContext({
      ...(verify ? { ca: trusted(ca, env) } : {}),
      cert: client.map(({ cert }) => readFileSync(cert)),
      key: client.map(({ key }) => readFileSync(key)),
    });
  } catch (e) {
    const files = [...ca, ...client.flatMap(({ cert, key }) => [cert, key])].join(', ') || 'of this machine';
    throw new LaminaError('CONFIG_INVALID', `Cannot use the certificates ${files}: ${toLaminaError(e).message}`, {
      cause: e,
    });
  }
}
