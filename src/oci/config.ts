/** Image configs (image-spec config.md; Docker's image JSON is the same for what is read here). */
import { z } from 'zod';
import { parseDigest, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { optional, parseJson, stringMap } from './json.js';
import { CONFIG_LIMIT } from './limits.js';

export interface HistoryEntry {
  /** RFC 3339, as it is written. */
  readonly created?: string | undefined;
  readonly createdBy?: string | undefined;
  readonly author?: string | undefined;
  readonly comment?: string | undefined;
  /** It made no layer. */
  readonly emptyLayer: boolean;
}

/** What only an appc image's app says (appc spec, spec/aci.md); the rest is in the fields that mean the same. */
export interface AppcApp {
  /** A name, a number, or the absolute path of a file whose owner is meant. */
  readonly user: string;
  /** The same. */
  readonly group: string;
  readonly supplementaryGids: readonly number[];
  readonly mountPoints: readonly { readonly name: string; readonly path: string; readonly readOnly: boolean }[];
  /** What it asks for that a runtime config of ours does not have. */
  readonly ignored: readonly string[];
}

/** Strings are as they are written, but for an empty one where absent means the same. */
export interface ImageConfig {
  /** "" where the config does not say. */
  readonly os: string;
  /** "" where the config does not say. */
  readonly architecture: string;
  readonly variant?: string | undefined;
  readonly osVersion?: string | undefined;
  readonly osFeatures?: readonly string[] | undefined;
  /** Digests of the uncompressed layers, base first. */
  readonly diffIds: readonly Digest[];
  /** `user`, `uid`, `user:group` and so on; "" where the config does not say. */
  readonly user: string;
  /** `NAME=VALUE`; not checked. */
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  /** "" where the config does not say. */
  readonly workingDir: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
  /** `PORT[/PROTOCOL]`. */
  readonly exposedPorts: readonly string[];
  readonly stopSignal?: string | undefined;
  readonly author?: string | undefined;
  /** RFC 3339, as it is written. */
  readonly created?: string | undefined;
  readonly history: readonly HistoryEntry[];
  readonly appc?: AppcApp | undefined;
}

const text = optional(z.string());
const list = optional(z.array(z.string()));
/** Docker took a command as one string too (moby, strslice.go). */
const command = optional(z.union([z.array(z.string()), z.string().transform((s) => [s])]));
/** A set, written as an object with empty values. */
const set = optional(z.record(z.string(), z.unknown()).transform((o) => Object.keys(o)));

const schema = z.object({
  os: text,
  architecture: text,
  variant: text,
  'os.version': text,
  'os.features': list,
  author: text,
  created: text,
  rootfs: optional(z.object({ type: z.string(), diff_ids: list })),
  config: optional(
    z.object({
      User: text,
      Env: list,
      Entrypoint: command,
      Cmd: command,
      WorkingDir: text,
      Labels: optional(stringMap),
      Volumes: set,
      ExposedPorts: set,
      StopSignal: text,
    }),
  ),
  history: optional(
    z.array(
      z.object({
        created: text,
        created_by: text,
        author: text,
        comment: text,
        empty_layer: optional(z.boolean()),
      }),
    ),
  ),
});

/** Throws CONFIG_INVALID, LIMIT_EXCEEDED, DIGEST_INVALID, DIGEST_UNSUPPORTED. */
export function parseConfig(bytes: Uint8Array): ImageConfig {
  const document = parseJson(bytes, schema, { what: 'the config', code: 'CONFIG_INVALID', limit: CONFIG_LIMIT });
  const { rootfs } = document;
  if (rootfs === undefined) {
    throw new LaminaError('CONFIG_INVALID', 'the config has no rootfs: it is not that of a container image', {
      hint: 'Artifacts are stored like images, often with an empty config. They have no file system to mount.',
    });
  }
  if (rootfs.type !== 'layers') {
    throw new LaminaError('CONFIG_INVALID', 'the config has a rootfs.type other than "layers"');
  }
  const run = document.config;
  return {
    os: document.os ?? '',
    architecture: document.architecture ?? '',
    variant: document.variant || undefined,
    osVersion: document['os.version'] || undefined,
    osFeatures: document['os.features'],
    diffIds: (rootfs.diff_ids ?? []).map(parseDigest),
    user: run?.User ?? '',
    env: run?.Env ?? [],
    entrypoint: run?.Entrypoint ?? [],
    cmd: run?.Cmd ?? [],
    workingDir: run?.WorkingDir ?? '',
    labels: run?.Labels ?? {},
    volumes: run?.Volumes ?? [],
    exposedPorts: run?.ExposedPorts ?? [],
    stopSignal: run?.StopSignal || undefined,
    author: document.author || undefined,
    created: document.created || undefined,
    history: (document.history ?? []).map((entry) => ({
      created: entry.created,
      createdBy: entry.created_by,
      author: entry.author,
      comment: entry.comment,
      emptyLayer: entry.empty_layer ?? false,
    })),
  };
}
