/** Redirects (RFC 9110, section 15.4): where they lead to, and which are not followed. */
import { protocolError } from './failures.js';
import type { Answer, Sending } from './transport.js';

export const REDIRECTS_MAX = 10;

/**
 * Where a redirect points, or undefined where the answer is none that may be followed. Throws REGISTRY_PROTOCOL where it leads
 * nowhere, or, where `secure`, away from TLS.
 */
export function redirection(answer: Answer, method: Sending['method'], secure: boolean): URL | undefined {
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
  if (secure && url.protocol === 'https:' && next.protocol !== 'https:') {
    throw protocolError(url.host, `redirects to ${next.host} without TLS`, status);
  }
  return next;
}

export function redirectsTooOften(host: string): Error {
  return protocolError(host, `redirects more than ${REDIRECTS_MAX} times`);
}
