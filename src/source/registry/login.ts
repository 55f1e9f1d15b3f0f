/** What `lamina login` and `lamina logout` change: podman's auth.json, or what a credential helper keeps. */
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import { toLaminaError } from '../../errors.js';
import { helperFor, normalizeKey, primaryAuthFile, readAuthFile, type AuthFile, type AuthPlaces } from './auth-file.js';
import { eraseFromHelper, storeInHelper } from './credential-helper.js';
import type { Credentials } from './credentials.js';

/** Where it has been kept: a file, or a helper's name. `key`: a host, or a host and a part of it ("quay.io/ns"). */
export async function storeCredentials(
  places: AuthPlaces,
  key: string,
  credentials: Extract<Credentials, { kind: 'password' }>,
): Promise<string> {
  const path = primaryAuthFile(places);
  const file = readAuthFile(path) ?? ({} as AuthFile);
  const helper = helperFor(file, key);
  if (helper !== undefined) {
    await storeInHelper(helper.name, helper.server, credentials, places.env);
    return `docker-credential-${helper.name}`;
  }
  const { username, password } = credentials;
  const auth = Buffer.from(`${username}:${password.reveal()}`).toString('base64');
  const entry = { auth, identitytoken: undefined, registrytoken: undefined };
  writeAuthFile(path, { ...file, auths: { ...file.auths, [normalizeKey(key)]: entry } });
  return path;
}

/** Of one registry, or of all (`undefined`). The names of those that are gone. */
export async function eraseCredentials(places: AuthPlaces, key: string | undefined): Promise<string[]> {
  const path = primaryAuthFile(places);
  const file = readAuthFile(path);
  if (file === undefined) return [];
  const wanted = key === undefined ? undefined : normalizeKey(key);
  const gone = new Set<string>();
  const kept: NonNullable<AuthFile['auths']> = {};
  for (const [name, entry] of Object.entries(file.auths ?? {})) {
    if (wanted === undefined || normalizeKey(name) === wanted) gone.add(name);
    else kept[name] = entry;
  }
  const helped = wanted === undefined ? [...Object.keys(file.credHelpers ?? {}), ...gone] : [wanted];
  for (const name of helped) {
    const helper = helperFor(file, normalizeKey(name));
    if (helper === undefined) continue;
    await eraseFromHelper(helper.name, helper.server, places.env);
    gone.add(normalizeKey(name));
  }
  if (Object.keys(file.auths ?? {}).length !== Object.keys(kept).length) writeAuthFile(path, { ...file, auths: kept });
  return [...gone];
}

/** Atomically, and for the owner alone. Throws PERMISSION_DENIED, DISK_FULL, IO. */
function writeAuthFile(path: string, file: AuthFile): void {
  const temporary = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeFileSync(temporary, `${JSON.stringify(file, undefined, '\t')}\n`, { mode: 0o600, flag: 'wx' });
    chmodSync(temporary, 0o600);
    renameSync(temporary, path);
  } catch (e) {
    rmSync(temporary, { force: true });
    throw toLaminaError(e, `Cannot keep the credentials in ${path}`);
  }
}
