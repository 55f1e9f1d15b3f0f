/**
 * Image names as Docker writes them, in full: "alpine" is "docker.io/library/alpine:latest"
 * (github.com/distribution/reference, normalize.go).
 */

const NAME =
  /^(?:[A-Za-z0-9.-]+(?::\d+)?\/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^\w[\w.-]{0,127}$/;

/** The full form, without a digest where there is also a tag; undefined when `text` is no name. */
export function fullName(text: string): string | undefined {
  if (text.length > 512) return undefined;
  const at = text.indexOf('@');
  const digest = at < 0 ? '' : text.slice(at);
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.lastIndexOf(':');
  const hasTag = colon > named.lastIndexOf('/');
  const name = hasTag ? named.slice(0, colon) : named;
  const tag = hasTag ? named.slice(colon + 1) : undefined;
  if (!NAME.test(name) || (tag !== undefined && !TAG.test(tag))) return undefined;
  return withDomain(name) + (tag !== undefined ? `:${tag}` : digest || ':latest');
}

function withDomain(name: string): string {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const isDomain = /[.:A-Z]/.test(first) || first === 'localhost';
  const domain = isDomain && first !== 'index.docker.io' ? first : 'docker.io';
  const path = isDomain ? name.slice(slash + 1) : name;
  return domain === 'docker.io' && !path.includes('/') ? `docker.io/library/${path}` : `${domain}/${path}`;
}
