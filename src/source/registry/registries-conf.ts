/** podman's registries.conf, version 2 (containers-registries.conf(5)): mirrors, other places, blocked names. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { LaminaError, errnoOf, toLaminaError } from '../../errors.js';
import { readToml } from './toml.js';

const mirrorSchema = z.object({
  location: z.string().min(1),
  insecure: z.boolean().optional(),
  'pull-from-mirror': z.enum(['all', 'digest-only', 'tag-only', '']).optional(),
});

const registrySchema = z.object({
  prefix: z.string().optional(),
  location: z.string().optional(),
  insecure: z.boolean().optional(),
  blocked: z.boolean().optional(),
  'mirror-by-digest-only': z.boolean().optional(),
  mirror: z.array(mirrorSchema).optional(),
});

const schema = z.object({ registry: z.array(registrySchema).optional() });

export interface RegistryEntry {
  /** "quay.io", "quay.io/ns" or "*.example.com". */
  readonly prefix: string;
  /** What stands for the prefix; undefined: the prefix itself. */
  readonly location: string | undefined;
  readonly insecure: boolean;
  readonly mirrors: readonly { readonly location: string; readonly insecure: boolean; readonly digestOnly: boolean }[];
  readonly blocked: boolean;
  readonly path: string;
}

export interface ConfPlaces {
  /** The directory that holds /etc: "/". */
  readonly root: string;
  readonly env: NodeJS.ProcessEnv;
}

/** Of the user's or the system's file and all in `registries.conf.d`; the last with a prefix counts. Throws CONFIG_INVALID. */
export function readRegistriesConf({ root, env }: ConfPlaces): readonly RegistryEntry[] {
  const system = join(root, 'etc/containers');
  const config = env['XDG_CONFIG_HOME'] ?? (env['HOME'] === undefined ? '' : join(env['HOME'], '.config'));
  const own = config === '' ? undefined : join(config, 'containers');
  const named = env['CONTAINERS_REGISTRIES_CONF'] ?? '';
  const main =
    named !== '' ? [named] : [own, system].filter((d) => d !== undefined).map((d) => join(d, 'registries.conf'));
  const directories = [system, own].filter((d) => d !== undefined).map((d) => join(d, 'registries.conf.d'));
  const files = [...main.filter((file) => existsSync(file)).slice(0, 1), ...directories.flatMap(confFiles)];
  const entries = new Map<string, RegistryEntry>();
  for (const path of files) {
    for (const one of readToml(path, schema)?.registry ?? []) {
      const prefix = one.prefix || one.location;
      if (prefix === undefined || prefix === '') {
        throw new LaminaError('CONFIG_INVALID', `${path}: a registry has neither a prefix nor a location`);
      }
      entries.set(prefix, {
        prefix,
        location: one.location || undefined,
        insecure: one.insecure === true,
        blocked: one.blocked === true,
        mirrors: (one.mirror ?? []).map((mirror) => ({
          location: mirror.location,
          insecure: mirror.insecure === true,
          digestOnly: one['mirror-by-digest-only'] === true || mirror['pull-from-mirror'] === 'digest-only',
        })),
        path,
      });
    }
  }
  return [...entries.values()];
}

function confFiles(directory: string): string[] {
  try {
    const names = readdirSync(directory).filter((name) => name.endsWith('.conf'));
    return names.sort().map((name) => join(directory, name));
  } catch (e) {
    if (errnoOf(e) === 'ENOENT' || errnoOf(e) === 'ENOTDIR') return [];
    throw toLaminaError(e, 'Cannot read the configuration of registries');
  }
}

/** The entry with the longest prefix of "HOST/REPOSITORY", and what follows that prefix. */
export function findEntry(
  entries: readonly RegistryEntry[],
  name: string,
): { readonly entry: RegistryEntry; readonly matched: string; readonly rest: string } | undefined {
  let best: { entry: RegistryEntry; matched: string; rest: string } | undefined;
  for (const entry of entries) {
    const matched = matchedPart(entry.prefix, name);
    if (matched === undefined || (best !== undefined && best.entry.prefix.length >= entry.prefix.length)) continue;
    best = { entry, matched, rest: name.slice(matched.length) };
  }
  return best;
}

function matchedPart(prefix: string, name: string): string | undefined {
  if (prefix.startsWith('*.')) {
    const [host = ''] = name.split('/');
    return host.replace(/:\d+$/, '').endsWith(prefix.slice(1)) || host.endsWith(prefix.slice(1)) ? host : undefined;
  }
  return name === prefix || name.startsWith(`${prefix}/`) ? prefix : undefined;
}
