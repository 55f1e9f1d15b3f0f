/**
 * The manifest of an appc image (ACI), and what it says as an image config. After appc spec v0.8.11, spec/aci.md and
 * spec/types.md; unknown fields are passed over, as its own tools do.
 */
import { z } from 'zod';
import { parseDigest, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import type { AppcApp, ImageConfig } from './config.js';
import { optional, parseJson } from './json.js';
import { MANIFEST_LIMIT } from './limits.js';
import { normalizePlatform, type Platform } from './platform.js';

export interface AciDependency {
  readonly imageName: string;
  /** Of the uncompressed archive. */
  readonly imageId: Digest | undefined;
  readonly labels: ReadonlyMap<string, string>;
}

export interface AciManifest {
  readonly name: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly app: z.output<typeof app> | undefined;
  /** The first is the lowest. */
  readonly dependencies: readonly AciDependency[];
  /** Absolute paths, raw bytes in latin1; empty: everything. */
  readonly pathWhitelist: readonly string[];
  readonly annotations: ReadonlyMap<string, string>;
}

const identifier = z.string().regex(/^[a-z0-9]+(?:[-._~/][a-z0-9]+)*$/, 'not an AC Identifier');
const acName = z.string().regex(/^[a-z0-9]+(?:-[a-z0-9]+)*$/, 'not an AC Name');
const imageId = z.string().regex(/^sha512-[0-9a-f]{128}$/, 'not an image ID (sha512-HEX)');
const absolute = z.string().startsWith('/', 'not an absolute path');

/** A list of names with values, each name once. */
function pairs(name: z.ZodType<string>) {
  return optional(z.array(z.object({ name, value: z.string() }))).transform((list = [], context) => {
    const map = new Map(list.map((pair) => [pair.name, pair.value]));
    if (map.size < list.length) context.addIssue('a name stands there twice');
    return map;
  });
}

const labels = pairs(identifier.refine((name) => name !== 'name', 'a label must not be called "name"'));

const app = z.object({
  exec: optional(z.array(z.string())),
  user: z.string().min(1),
  group: z.string().min(1),
  supplementaryGIDs: optional(z.array(z.int().min(0).max(0xffff_fffe))),
  eventHandlers: optional(z.array(z.object({ name: z.enum(['pre-start', 'post-stop']), exec: z.array(z.string()) }))),
  workingDirectory: optional(z.union([z.literal(''), absolute])),
  environment: optional(
    z.array(z.object({ name: z.string().regex(/^[A-Za-z_][A-Za-z0-9_.-]*$/, 'no variable name'), value: z.string() })),
  ),
  isolators: optional(z.array(z.object({ name: identifier }))),
  mountPoints: optional(z.array(z.object({ name: acName, path: z.string().min(1), readOnly: optional(z.boolean()) }))),
  ports: optional(
    z.array(
      z.object({
        name: acName,
        protocol: z.string().min(1),
        port: z.int().min(1).max(65535),
        count: optional(z.int().min(1).max(65535)),
      }),
    ),
  ),
});

const schema = z.object({
  acKind: z.literal('ImageManifest'),
  acVersion: z.string().regex(/^\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?$/, 'not a version'),
  name: identifier,
  labels,
  app: optional(app),
  dependencies: optional(z.array(z.object({ imageName: identifier, imageID: optional(imageId), labels }))),
  pathWhitelist: optional(z.array(z.string().min(1))),
  annotations: pairs(identifier),
});

/** Throws MANIFEST_INVALID, LIMIT_EXCEEDED. */
export function parseAciManifest(bytes: Uint8Array): AciManifest {
  const document = parseJson(bytes, schema, { what: 'the manifest', code: 'MANIFEST_INVALID', limit: MANIFEST_LIMIT });
  if (!document.acVersion.startsWith('0.')) {
    throw new LaminaError('MANIFEST_INVALID', `the manifest has acVersion ${document.acVersion}; 0.x is known`);
  }
  return {
    name: document.name,
    labels: document.labels,
    app: document.app,
    dependencies: (document.dependencies ?? []).map((dependency) => ({
      imageName: dependency.imageName,
      imageId: dependency.imageID === undefined ? undefined : parseDigest(dependency.imageID.replace('-', ':')),
      labels: dependency.labels,
    })),
    pathWhitelist: (document.pathWhitelist ?? []).map((path) => Buffer.from(path, 'utf8').toString('latin1')),
    annotations: document.annotations,
  };
}

/** What its labels say; "" for what they do not. */
export function aciPlatform(of: AciManifest): Platform {
  const os = of.labels.get('os') ?? '';
  // "arch is meaningful only if os is provided".
  const arch = os === '' ? '' : (of.labels.get('arch') ?? '');
  const [, version] = /^armv([567])[lb]?$/.exec(arch) ?? [];
  const variant = version === undefined ? {} : { variant: `v${version}` };
  return normalizePlatform({ os, architecture: version === undefined ? arch : 'arm', ...variant });
}

const ARCHITECTURES: Readonly<Record<string, string>> = { '386': 'i386', arm64: 'aarch64' };

/** A platform as the labels that images for it have (spec/aci.md, "labels"). */
export function platformLabels({ os, architecture, variant }: Platform): Map<string, string> {
  const arch = architecture === 'arm' ? `arm${variant ?? 'v7'}l` : (ARCHITECTURES[architecture] ?? architecture);
  return new Map([
    ['os', os],
    ['arch', arch],
  ]);
}

/** Recognised annotations by the keys that OCI has for them. */
const annotationKeys: readonly (readonly [appc: string, oci: string])[] = [
  ['homepage', 'org.opencontainers.image.url'],
  ['documentation', 'org.opencontainers.image.documentation'],
];

/** The manifest as the config of an image with these layers. */
export function aciConfig(manifest: AciManifest, diffIds: readonly Digest[]): ImageConfig {
  const { annotations } = manifest;
  const { os, architecture, variant } = aciPlatform(manifest);
  const run = manifest.app;
  const version = manifest.labels.get('version');
  const known = annotationKeys.flatMap(([from, to]) => {
    const value = annotations.get(from);
    return value === undefined ? [] : [[to, value] as const];
  });
  return {
    os,
    architecture,
    variant,
    diffIds,
    user: run === undefined ? '' : `${run.user}:${run.group}`,
    env: (run?.environment ?? []).map(({ name, value }) => `${name}=${value}`),
    entrypoint: [],
    cmd: run?.exec ?? [],
    workingDir: run?.workingDirectory ?? '',
    labels: Object.fromEntries([
      ['org.opencontainers.image.title', manifest.name],
      ...(version === undefined ? [] : [['org.opencontainers.image.version', version] as const]),
      ...known,
    ]),
    volumes: (run?.mountPoints ?? []).map(({ path }) => path),
    exposedPorts: (run?.ports ?? []).map(
      ({ port, count = 1, protocol }) => `${port}${count > 1 ? `-${port + count - 1}` : ''}/${protocol}`,
    ),
    author: annotations.get('authors'),
    created: annotations.get('created'),
    history: [],
    appc: run === undefined ? undefined : appcApp(run),
  };
}

function appcApp(run: z.output<typeof app>): AppcApp {
  return {
    user: run.user,
    group: run.group,
    supplementaryGids: run.supplementaryGIDs ?? [],
    mountPoints: (run.mountPoints ?? []).map(({ name, path, readOnly = false }) => ({ name, path, readOnly })),
    ignored: [
      ...(run.isolators ?? []).map(({ name }) => `isolator ${name}`),
      ...(run.eventHandlers ?? []).map(({ name }) => `event handler ${name}`),
    ],
  };
}
