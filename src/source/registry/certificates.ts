/**
 * Certificates for hosts, in directories named after them (containers-certs.d(5); Docker, "Verify repository client with
 * certificates"): `*.crt` are CAs, `NAME.cert` and `NAME.key` prove who we are.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { LaminaError, errnoOf, toLaminaError } from '../../errors.js';
import type { TlsSettings } from './transport.js';

export type Certificates = Pick<TlsSettings, 'ca' | 'client'>;

export const noCertificates: Certificates = { ca: [], client: [] };

/** Those of the first of the directories that exists. Throws CONFIG_INVALID for a .cert without .key, PERMISSION_DENIED, IO. */
export function findCertificates(directories: readonly string[]): Certificates {
  for (const directory of directories) {
    let names: string[];
    try {
      names = readdirSync(directory).sort();
    } catch (e) {
      if (errnoOf(e) === 'ENOENT' || errnoOf(e) === 'ENOTDIR') continue;
      throw toLaminaError(e, 'Cannot look for certificates');
    }
    return {
      ca: names.filter((name) => name.endsWith('.crt')).map((name) => join(directory, name)),
      client: names
        .filter((name) => name.endsWith('.cert'))
        .map((name) => {
          const key = name.replace(/\.cert$/, '.key');
          if (names.includes(key)) return { cert: join(directory, name), key: join(directory, key) };
          throw new LaminaError('CONFIG_INVALID', `${join(directory, name)} has no key: there is no ${key} beside it`);
        }),
    };
  }
  return noCertificates;
}
