/** Options of commands that speak to registries. */
import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import type { MountRequestInput } from '../daemon/protocol.js';
import { packageVersion } from '../daemon/version.js';
import { LaminaError } from '../errors.js';
import { placesOf, pullPolicies, type PullPolicy, type RegistryAccess } from '../source/fetch/access.js';
import type { AuthPlaces } from '../source/registry/auth-file.js';
import { encodeCredentials, parseCredentials } from '../source/registry/credentials.js';
import { parseRegistryName } from '../source/registry/name.js';
import type { Context } from './context.js';

export interface RegistryOptions {
  readonly authfile?: string;
  /** As it is written; see {@link tlsVerify}. */
  readonly tlsVerify?: 'true' | 'false';
}

/** Of commands that take an image, which may be in a registry. */
export interface PullOptions extends RegistryOptions {
  readonly pull?: PullPolicy;
  readonly offline?: boolean;
  readonly creds?: string;
}

/** `--pull`, `--offline`, `--creds`, and those below. */
export function addPullOptions(command: Command): Command {
  command
    .addOption(
      new Option(
        '--pull <when>',
        'when a registry is asked what a tag means: each time, where it was not asked before, never (default: missing)',
      ).choices(pullPolicies),
    )
    .option('--offline', 'ask no registry for anything: the store has to have it')
    .option('--creds <user:password>', 'who we are to the registry (better: lamina login)');
  return addRegistryOptions(command);
}

/** How the daemon shall: as whoever mounts. */
export function registryRequest(context: Context, options: PullOptions): MountRequestInput['registry'] {
  const { creds, pull } = options;
  return {
    ...(pull === undefined ? {} : { pull }),
    access: accessOf(context, options),
    ...(creds === undefined ? {} : { credentials: encodeCredentials(parseCredentials(creds)) }),
  };
}

export function accessOf(context: Context, options: PullOptions): Omit<RegistryAccess, 'host' | 'repository'> {
  const verify = tlsVerify(options);
  return {
    ...(verify === undefined ? {} : { tlsVerify: verify }),
    ...(options.offline === true ? { offline: true } : {}),
    places: placesOf(context.env, authPlaces(context, options)),
  };
}

/** `--authfile`, `--tls-verify` */
export function addRegistryOptions(command: Command): Command {
  return command
    .option('--authfile <file>', 'where credentials are (REGISTRY_AUTH_FILE)')
    .addOption(
      new Option(
        '--tls-verify <bool>',
        'whether the registry must have TLS and a trusted certificate (default: unless it is on this machine)',
      ).choices(['true', 'false']),
    );
}

export function authPlaces({ cwd, env }: Context, { authfile }: Pick<RegistryOptions, 'authfile'>): AuthPlaces {
  const authFile = authfile === undefined ? undefined : resolve(cwd, authfile);
  return { authFile, env, uid: process.getuid?.() ?? 0 };
}

export function tlsVerify({ tlsVerify }: RegistryOptions): boolean | undefined {
  return tlsVerify === undefined ? undefined : tlsVerify === 'true';
}

export const userAgent = (): string => `lamina/${packageVersion()}`;

/**
 * "HOST", or "HOST/PART" for credentials of a part of a registry, as users write it. Throws USAGE for what is no host that
 * a reference could name.
 */
export function parseRegistryHost(text: string): { readonly host: string; readonly key: string } {
  const bare = text.replace(/^https?:\/\//, '').replace(/\/+$/, '');
  try {
    const { host, repository } = parseRegistryName(bare.includes('/') ? bare : `${bare}/any/name`);
    // Docker reads "name/any" as a repository of its Hub.
    if (host !== 'docker.io' || /^(?:[\w-]+\.)?docker\.io(?:\/|$)/.test(bare)) {
      return { host, key: bare.includes('/') ? `${host}/${repository}` : host };
    }
  } catch (e) {
    if (!(e instanceof LaminaError)) throw e;
  }
  throw new LaminaError('USAGE', `${JSON.stringify(text.slice(0, 200))} is no host of a registry`, {
    hint: 'It is HOST[:PORT], such as quay.io, localhost:5000 or docker.io.',
  });
}
