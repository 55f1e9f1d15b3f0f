/**
 * Files that hold credentials: auth.json of podman and skopeo (containers-auth.json(5)) and config.json of Docker. Each says
 * for a registry, or for a part of one, a password or token, or which credential helper knows them.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { LaminaError, errnoOf, toLaminaError } from '../../errors.js';
import { optional, parseJson } from '../../oci/json.js';
import { getFromHelper } from './credential-helper.js';
import type { Credentials, CredentialSource } from './credentials.js';
import { DOCKER_HUB, normalizeHost } from './name.js';
import { Secret } from './secret.js';

const AUTH_FILE_LIMIT = 4 * 1024 * 1024;

/** Under this name Docker keeps the credentials of its Hub. */
const DOCKER_HUB_URL = 'https://index.docker.io/v1/';

const text = optional(z.string());

const entrySchema = z.looseObject({ auth: text, identitytoken: text, registrytoken: text });
type Entry = z.output<typeof entrySchema>;

const fileSchema = z.looseObject({
  auths: optional(z.record(z.string(), optional(entrySchema))),
  credHelpers: optional(z.record(z.string(), z.string())),
  credsStore: text,
});
export type AuthFile = z.output<typeof fileSchema>;

export interface AuthPlaces {
  /** `--authfile`, absolute. */
  readonly authFile?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly uid: number;
}

/** Where `login` writes: the same file as podman's. */
export function primaryAuthFile({ authFile, env, uid }: AuthPlaces): string {
  const chosen = authFile ?? env['REGISTRY_AUTH_FILE'] ?? '';
  if (chosen !== '') return chosen;
  const runtime = env['XDG_RUNTIME_DIR'] ?? '';
  return runtime === '' ? `/run/containers/${uid}/auth.json` : join(runtime, 'containers', 'auth.json');
}

/** The files that are read, in this order. One that is named explicitly is the only one. */
function authFiles(places: AuthPlaces): readonly string[] {
  const { authFile, env } = places;
  const primary = primaryAuthFile(places);
  if (authFile !== undefined || (env['REGISTRY_AUTH_FILE'] ?? '') !== '') return [primary];
  const home = env['HOME'] ?? '';
  const config = env['XDG_CONFIG_HOME'] ?? (home === '' ? '' : join(home, '.config'));
  const docker = env['DOCKER_CONFIG'] ?? (home === '' ? '' : join(home, '.docker'));
  return [
    primary,
    ...(config === '' ? [] : [join(config, 'containers', 'auth.json')]),
    ...(docker === '' ? [] : [join(docker, 'config.json')]),
  ];
}

/** Undefined where there is no file. Throws CONFIG_INVALID (nothing is quoted), PERMISSION_DENIED, IO. */
export function readAuthFile(path: string): AuthFile | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (e) {
    if (errnoOf(e) === 'ENOENT' || errnoOf(e) === 'ENOTDIR') return undefined;
    throw toLaminaError(e, `Cannot read the credentials in ${path}`);
  }
  // An empty file is what `touch` and `mktemp` leave for podman to fill.
  if (bytes.length === 0) return {} as AuthFile;
  return parseJson(bytes, fileSchema, { what: path, code: 'CONFIG_INVALID', limit: AUTH_FILE_LIMIT });
}

/** Credentials as they are on this machine. The files are read each time: a login meanwhile counts. */
export class FileCredentials implements CredentialSource {
  readonly #places: AuthPlaces;

  constructor(places: AuthPlaces) {
    this.#places = places;
  }

  /** Throws what {@link readAuthFile} throws; IO where `--authfile` is not there; REGISTRY_AUTH where a helper fails. */
  async find(host: string, repository: string | undefined): Promise<Credentials | undefined> {
    const { authFile, env } = this.#places;
    for (const path of authFiles(this.#places)) {
      const file = readAuthFile(path);
      if (file === undefined && path === authFile) {
        throw new LaminaError('IO', `There is no file ${path} with credentials`, {
          hint: `Make it: lamina login --authfile ${path} ${host}`,
        });
      }
      const found = file === undefined ? undefined : await findInFile(file, host, repository, env);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

async function findInFile(
  file: AuthFile,
  host: string,
  repository: string | undefined,
  env: NodeJS.ProcessEnv,
): Promise<Credentials | undefined> {
  const helper = helperFor(file, host);
  if (helper?.only === true) return getFromHelper(helper.name, helper.server, env);
  const byKey = new Map<string, Entry>();
  for (const [key, entry] of Object.entries(file.auths ?? {})) {
    // Where two keys mean the same the one that is written so comes first.
    const normal = normalizeKey(key);
    if (entry !== undefined && (normal === key || !byKey.has(normal))) byKey.set(normal, entry);
  }
  for (const key of keysFor(host, repository)) {
    const entry = byKey.get(key);
    const credentials = entry === undefined ? undefined : credentialsOf(entry);
    if (credentials !== undefined) return credentials;
  }
  return helper === undefined ? undefined : getFromHelper(helper.name, helper.server, env);
}

/** The most specific first: "quay.io/ns/app", "quay.io/ns", "quay.io". */
function keysFor(host: string, repository: string | undefined): string[] {
  const parts = [normalizeHost(host), ...(repository?.split('/') ?? [])];
  return parts.map((_, i) => parts.slice(0, parts.length - i).join('/'));
}

/** "https://index.docker.io/v1/" and "docker.io" are the same; a key with a scheme is that of a host. */
export function normalizeKey(key: string): string {
  const [, fromUrl] = /^https?:\/\/([^/]+)/.exec(key) ?? [];
  if (fromUrl !== undefined) return normalizeHost(fromUrl);
  const slash = key.indexOf('/');
  return slash < 0 ? normalizeHost(key) : normalizeHost(key.slice(0, slash)) + key.slice(slash).replace(/\/$/, '');
}

export interface Helper {
  /** Of the program: "docker-credential-NAME". */
  readonly name: string;
  /** What the helper knows the registry as. */
  readonly server: string;
  /** It was named for this registry: the file's own entries do not count. */
  readonly only: boolean;
}

/** The credential helper that a file names for a host, or for all. */
export function helperFor({ credHelpers = {}, credsStore }: AuthFile, host: string): Helper | undefined {
  const wanted = normalizeHost(host);
  const [server, name] = Object.entries(credHelpers).find(([key]) => normalizeKey(key) === wanted) ?? [];
  if (server !== undefined && name !== undefined) return { name, server, only: true };
  if (credsStore === undefined || credsStore === '') return undefined;
  return { name: credsStore, server: wanted === DOCKER_HUB ? DOCKER_HUB_URL : wanted, only: false };
}

/** Undefined for an entry that only says that a helper has them. */
function credentialsOf({ auth, identitytoken, registrytoken }: Entry): Credentials | undefined {
  if (identitytoken) return { kind: 'identity', token: new Secret(identitytoken) };
  if (registrytoken) return { kind: 'bearer', token: new Secret(registrytoken) };
  const decoded = Buffer.from(auth ?? '', 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon <= 0) return undefined;
  // Docker pads with zeros.
  const password = new Secret(decoded.slice(colon + 1).replace(/\0+$/, ''));
  return { kind: 'password', username: decoded.slice(0, colon), password };
}
