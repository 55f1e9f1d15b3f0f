/**
 * References to images in registries: `docker://HOST[:PORT]/NAME[:TAG][@DIGEST]`, or without the prefix and with what
 * Docker adds ("alpine" is "docker.io/library/alpine:latest"; github.com/distribution/reference, normalize.go).
 */
import { parseDigest, type Digest } from '../../digest/form.js';
import { LaminaError } from '../../errors.js';

export interface RegistryName {
  /** As it is written, with the port: "docker.io", "localhost:5000", "[::1]:5000". */
  readonly host: string;
  /** "library/alpine" */
  readonly repository: string;
  /** "latest" where neither a tag nor a digest was given. */
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
  /** In full: "docker://docker.io/library/alpine:latest". */
  readonly text: string;
}

export const DOCKER_HUB = 'docker.io';

const PREFIX = 'docker://';

/** The specification's limit for a name together with its host (distribution-spec "Pulling manifests"). */
const NAME_LENGTH_MAX = 255;

const LABEL = String.raw`[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?`;
const HOST = new RegExp(String.raw`^(?:${LABEL}(?:\.${LABEL})*|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?$`);
const COMPONENT = String.raw`[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`;
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
export const TAG = /^\w[\w.-]{0,127}$/;

/** Throws REFERENCE_INVALID, DIGEST_INVALID, DIGEST_UNSUPPORTED. */
export function parseRegistryName(text: string): RegistryName {
  const name = text.startsWith(PREFIX) ? text.slice(PREFIX.length) : text;
  if (name.length > 512) throw invalid(text, 'it is too long');
  const at = name.indexOf('@');
  const digest = at < 0 ? undefined : parseDigest(name.slice(at + 1));
  const named = at < 0 ? name : name.slice(0, at);
  const colon = named.lastIndexOf(':');
  const hasTag = colon > named.lastIndexOf('/');
  const { host, repository } = splitHost(hasTag ? named.slice(0, colon) : named);
  const [, port] = HOST.exec(host) ?? [];
  if (!HOST.test(host) || Number(port ?? 1) > 65535 || port === '0') throw invalid(text, 'its host is not well formed');
  if (repository !== repository.toLowerCase()) throw invalid(text, 'names of images are in lower case');
  if (!REPOSITORY.test(repository)) throw invalid(text, 'its name is not well formed');
  if (host.length + repository.length + 1 > NAME_LENGTH_MAX) throw invalid(text, 'its name is too long');
  if (hasTag && !TAG.test(named.slice(colon + 1))) throw invalid(text, 'its tag is not well formed');
  const tag = hasTag ? named.slice(colon + 1) : digest === undefined ? 'latest' : undefined;
  const suffix = `${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
  return {
    host,
    repository,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
    text: `${PREFIX}${host}/${repository}${suffix}`,
  };
}

/** The first component is a host when it looks like one, as Docker tells: it has a dot, a colon, a capital, or is localhost. */
function splitHost(name: string): { host: string; repository: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const isHost = /[.:[A-Z]/.test(first) || first === 'localhost';
  const host = isHost ? normalizeHost(first) : DOCKER_HUB;
  const path = isHost ? name.slice(slash + 1) : name;
  return { host, repository: host === DOCKER_HUB && !path.includes('/') ? `library/${path}` : path };
}

/** The name that Docker Hub has in references, whichever of its names is given; others as they are. */
export function normalizeHost(host: string): string {
  return /^(?:index|registry-1)\.docker\.io$/.test(host) ? DOCKER_HUB : host;
}

function invalid(text: string, why: string): LaminaError {
  return new LaminaError('REFERENCE_INVALID', `Cannot use ${JSON.stringify(text.slice(0, 200))} as an image: ${why}`, {
    hint: 'An image in a registry is docker://HOST[:PORT]/NAME[:TAG][@DIGEST].',
  });
}
