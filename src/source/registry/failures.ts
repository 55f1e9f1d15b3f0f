/**
 * What goes wrong between us and a registry, as {@link LaminaError}s. Their details say `host`, `status` where there was
 * an answer, and `transient` where the same request may work later.
 */
import { LaminaError, type ErrorCode } from '../../errors.js';
import type { Answer } from './transport.js';

/** Whether the same request may work later: no connection, cut off, overloaded, rate limited. */
export function isTransient(e: unknown): boolean {
  return e instanceof LaminaError && e.details['transient'] === true;
}

/** Nothing answered: not even with an error. */
export function isUnreachable(e: unknown): e is LaminaError {
  return e instanceof LaminaError && e.code === 'REGISTRY_UNREACHABLE' && statusOf(e) === undefined;
}

/**
 * Whether a request was given up because nothing came, and not because nobody wants it any more: then `signal` has a reason
 * as of a registry that cannot be reached now. Whoever was asked is treated as one that does not answer.
 */
export function isSilence(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true && isUnreachable(signal.reason) && isTransient(signal.reason);
}

/** Milliseconds that the registry asked to wait, where it did. */
export function retryAfterOf(e: unknown): number | undefined {
  const wait = e instanceof LaminaError ? e.details['retryAfterMs'] : undefined;
  return typeof wait === 'number' ? wait : undefined;
}

export function statusOf(e: unknown): number | undefined {
  const status = e instanceof LaminaError ? e.details['status'] : undefined;
  return typeof status === 'number' ? status : undefined;
}

/** Codes of OpenSSL and Node for a certificate that is not trusted. */
const CERTIFICATE =
  /^(?:CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_TLS_CERT_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)/;
const NOT_TLS = /^(?:EPROTO|ERR_SSL_)/;

const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was cut',
  EPIPE: 'the connection was cut',
  UND_ERR_SOCKET: 'the connection was cut',
  UND_ERR_CLOSED: 'the client was closed',
  UND_ERR_DESTROYED: 'the client was closed',
  ENOTFOUND: 'there is no such host',
  EAI_AGAIN: 'its name cannot be resolved now',
  EHOSTUNREACH: 'there is no route to it',
  ENETUNREACH: 'the network is down',
  ETIMEDOUT: 'it does not answer',
  UND_ERR_CONNECT_TIMEOUT: 'no connection was made in time',
  UND_ERR_HEADERS_TIMEOUT: 'it did not answer in time',
  UND_ERR_BODY_TIMEOUT: 'it stopped sending',
};

/** What it listens for at an address is no TLS, or it does not listen there. */
export function isWithoutTls(e: LaminaError): boolean {
  const { cause } = e.details;
  return typeof cause === 'string' && (cause === 'ECONNREFUSED' || NOT_TLS.test(cause));
}

/** Not worth a second attempt soon. */
const LASTING = new Set(['ENOTFOUND', 'UND_ERR_CLOSED', 'UND_ERR_DESTROYED', 'UND_ERR_INVALID_ARG']);

/** The system's or undici's code for what a connection failed with. */
export function networkCode(e: unknown): string {
  for (let at = e; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string') return at.code;
  }
  return '';
}

/** A connection that could not be made or was cut. */
export function unreachable(e: unknown, host: string): LaminaError {
  const code = networkCode(e);
  const certificate = CERTIFICATE.test(code);
  const notTls = NOT_TLS.test(code);
  const text = e instanceof Error ? e.message.slice(0, 200) : '';
  const why = certificate
    ? `its certificate is not trusted (${code})`
    : notTls
      ? 'it does not speak TLS'
      : (WORDS[code] ?? (text || code || 'the connection failed'));
  return new LaminaError('REGISTRY_UNREACHABLE', `Cannot reach ${host}: ${why}`, {
    hint: certificate
      ? `Put its CA into /etc/containers/certs.d/${host}/ca.crt, or say --tls-verify=false where nobody can be in between.`
      : notTls
        ? 'If it is a registry without TLS, say --tls-verify=false, or configure it as insecure.'
        : 'Check the name and the network (HTTP_PROXY, HTTPS_PROXY and NO_PROXY are obeyed), and try again.',
    details: { host, cause: code, transient: !certificate && !notTls && !LASTING.has(code) },
    cause: e,
  });
}

/** Answers that make no sense. */
export function protocolError(host: string, what: string, status?: number): LaminaError {
  return new LaminaError('REGISTRY_PROTOCOL', `${host} ${what}`, {
    hint: 'A proxy in between may be the cause; if not, the registry does not follow the distribution specification.',
    details: { host, ...(status === undefined ? {} : { status }) },
  });
}

/** Compressed on the way, although every request asks for "identity": bytes and ranges are not those of what was asked for. */
export function encodedError(answer: Answer): LaminaError {
  const encoding = JSON.stringify(oneLine(answer.encoding ?? '', 40));
  return protocolError(answer.host, `answers in an encoding that was not asked for (${encoding})`, answer.status);
}

export interface Doing {
  /** "read library/alpine:latest" */
  readonly what: string;
  /** The code for 404. */
  readonly missing: ErrorCode;
}

/** Bytes of an answer that are looked at for its message. */
const MESSAGE_LIMIT = 64 * 1024;

/**
 * The error for an answer of a status that was not wanted. Reads its body. `registry`: the host by which users know the
 * registry, for hints; the answer may be a mirror's or a CDN's.
 */
export async function statusError(answer: Answer, doing: Doing, registry: string): Promise<LaminaError> {
  const { status, host } = answer;
  const { code: said, message } = await registryMessage(answer);
  const { code, hint, transient } = meaning(status, said, doing.missing, registry);
  const retryAfterMs = parseRetryAfter(answer.header('retry-after'), Date.now());
  const text = `Cannot ${doing.what}: ${host} answers ${status}${message === '' ? '' : `: ${message}`}`;
  return new LaminaError(code, text, {
    hint,
    details: {
      host,
      status,
      ...(transient ? { transient } : {}),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      ...(said === '' ? {} : { registryCode: said }),
    },
  });
}

interface Meaning {
  readonly code: ErrorCode;
  readonly hint?: string;
  readonly transient: boolean;
}

function meaning(status: number, said: string, missing: ErrorCode, host: string): Meaning {
  switch (status) {
    case 401:
      return {
        code: 'REGISTRY_AUTH',
        hint: `Log in: lamina login ${host}. Some registries answer so for an image that does not exist.`,
        transient: false,
      };
    case 403:
      return {
        code: 'REGISTRY_DENIED',
        hint: `Ask for the right, or log in as another: lamina login ${host}`,
        transient: false,
      };
    case 404:
      return { code: said === 'NAME_UNKNOWN' ? 'IMAGE_NOT_FOUND' : missing, hint: 'Check the name.', transient: false };
    case 416:
      return { code: 'BLOB_SIZE_MISMATCH', transient: false };
    case 429:
      return {
        code: 'REGISTRY_RATE_LIMITED',
        hint: `Wait, or log in for a higher limit: lamina login ${host}`,
        transient: true,
      };
    case 408:
    case 500:
    case 502:
    case 503:
    case 504:
      return { code: 'REGISTRY_UNREACHABLE', hint: 'Try again later.', transient: true };
    default:
      // Others above 500 are from proxies and CDNs (520 to 530), but for what is not implemented.
      if (status > 505) return { code: 'REGISTRY_UNREACHABLE', hint: 'Try again later.', transient: true };
      return { code: 'REGISTRY_PROTOCOL', transient: false };
  }
}

/** The first of the errors in the registry's own form (distribution-spec "Error Codes"), cut to a line. */
async function registryMessage(answer: Answer): Promise<{ code: string; message: string }> {
  let text: string;
  try {
    text = (await answer.read(MESSAGE_LIMIT)).toString('utf8');
  } catch {
    return { code: '', message: '' };
  }
  let code = '';
  let message = '';
  try {
    const document = JSON.parse(text) as { errors?: { code?: unknown; message?: unknown }[]; message?: unknown };
    const [first] = Array.isArray(document.errors) ? document.errors : [];
    if (typeof first?.code === 'string') code = first.code;
    const words = first?.message ?? document.message;
    if (typeof words === 'string') message = words;
  } catch {
    if (answer.header('content-type')?.startsWith('text/plain') === true) message = text;
  }
  return { code: oneLine(code, 40), message: oneLine([code, message].filter((s) => s !== '').join(': '), 300) };
}

/** Control characters become spaces: what a registry says goes to a terminal. */
export function oneLine(text: string, length: number): string {
  const line = text.replace(/[\p{Cc}\p{Cf}\s]+/gu, ' ').trim();
  return line.length > length ? `${line.slice(0, length)}...` : line;
}

/** Seconds or a date (RFC 9110, section 10.2.3), as milliseconds from `now`; never negative. */
export function parseRetryAfter(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^\s*\d{1,9}\s*$/.test(header)) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
