/** OCI image layouts for tests, made without Lamina's own code (image-spec: image-layout.md, manifest.md, config.md). */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { blake3 } from '@noble/hashes/blake3.js';
import { makeTar, type TarPart } from './tar.js';

export type LayerCompression = 'none' | 'gzip' | 'zstd';
type HashName = 'sha256' | 'sha512' | 'blake3';

export interface LayerSpec {
  /** What the layer's tar consists of; or give the whole `tar`. */
  readonly entries?: readonly TarPart[];
  readonly tar?: Uint8Array;
  /** Default gzip. */
  readonly compression?: LayerCompression;
  /** Of gzip, 1 to 9. Default 6. */
  readonly level?: number;
  /** The blob's bytes, whatever the tar is. */
  readonly blob?: Uint8Array;
  readonly mediaType?: string;
  /** Algorithm of the blob's digest. */
  readonly algorithm?: HashName;
  /** Said instead of the truth. */
  readonly digest?: string;
  readonly size?: number;
  readonly diffId?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface ImageSpec {
  readonly layers: readonly LayerSpec[];
  /** The image config's `config` object: Cmd, Env, User, ... */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Put over the finished config document. */
  readonly document?: Readonly<Record<string, unknown>>;
  /** Put over the finished manifest. */
  readonly manifest?: Readonly<Record<string, unknown>>;
  readonly platform?: { readonly os: string; readonly architecture: string; readonly variant?: string };
  /** Default "latest"; null: the index names no tag. */
  readonly tag?: string | null;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

export interface MadeLayer {
  readonly descriptor: Descriptor;
  readonly diffId: string;
  readonly tar: Buffer;
  readonly blob: Buffer;
}

export interface MadeImage {
  readonly directory: string;
  /** "oci:DIR:TAG" */
  readonly reference: string;
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  /** Base first. */
  readonly layers: readonly MadeLayer[];
}

const MEDIA = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  index: 'application/vnd.oci.image.index.v1+json',
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
} as const;

const HOST_ARCHITECTURE: Partial<Record<string, string>> = {
  x64: 'amd64',
  arm64: 'arm64',
  arm: 'arm',
  riscv64: 'riscv64',
};

/** "sha256:ab.." of bytes. */
export function digest(bytes: Uint8Array, algorithm: HashName = 'sha256'): string {
  if (algorithm === 'blake3') return `blake3:${Buffer.from(blake3(bytes)).toString('hex')}`;
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
}

/** Where a layout keeps a blob. */
export function blobPath(directory: string, blobDigest: string): string {
  return join(directory, 'blobs', blobDigest.replace(':', '/'));
}

/** Writes an image into a layout, which is made if there is none; an image that it has already stays before it. */
export async function makeLayout(directory: string, spec: ImageSpec): Promise<MadeImage> {
  const layers: MadeLayer[] = [];
  for (const layer of spec.layers) layers.push(await makeLayer(directory, layer));

  const platform = spec.platform ?? { os: 'linux', architecture: HOST_ARCHITECTURE[process.arch] ?? process.arch };
  const config = writeJson(directory, MEDIA.config, {
    ...platform,
    config: spec.config ?? {},
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
    ...spec.document,
  });
  const manifest = writeJson(directory, MEDIA.manifest, {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config,
    layers: layers.map((layer) => layer.descriptor),
    ...spec.manifest,
  });
  const tag = spec.tag === undefined ? 'latest' : spec.tag;
  const annotations = tag === null ? {} : { annotations: { 'org.opencontainers.image.ref.name': tag } };
  addToIndex(directory, { ...manifest, platform, ...annotations });
  return { directory, reference: `oci:${directory}${tag === null ? '' : `:${tag}`}`, manifest, config, layers };
}

async function makeLayer(directory: string, spec: LayerSpec): Promise<MadeLayer> {
  const tar = Buffer.from(spec.tar ?? (await makeTar(spec.entries ?? [])));
  const compression = spec.compression ?? 'gzip';
  const blob = Buffer.from(spec.blob ?? compress(tar, compression, spec.level));
  const written = writeBlob(directory, spec.mediaType ?? MEDIA[compression], blob, spec.algorithm);
  const descriptor = {
    ...written,
    digest: spec.digest ?? written.digest,
    size: spec.size ?? written.size,
    ...(spec.annotations === undefined ? {} : { annotations: spec.annotations }),
  };
  return { descriptor, diffId: spec.diffId ?? digest(tar), tar, blob };
}

/** zstd by its command. */
export function compress(bytes: Uint8Array, compression: LayerCompression, level = 6): Uint8Array {
  if (compression === 'none') return bytes;
  if (compression === 'gzip') return gzipSync(bytes, { level });
  return execFileSync('zstd', ['-q', '-c', '-3'], { input: bytes, maxBuffer: 1 << 30 });
}

/** Writes bytes into a layout under their digest. */
export function writeBlob(directory: string, mediaType: string, bytes: Uint8Array, algorithm?: HashName): Descriptor {
  const blobDigest = digest(bytes, algorithm);
  const path = blobPath(directory, blobDigest);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, bytes);
  return { mediaType, digest: blobDigest, size: bytes.length };
}

export function writeJson(directory: string, mediaType: string, document: unknown): Descriptor {
  return writeBlob(directory, mediaType, Buffer.from(JSON.stringify(document)));
}

/** Adds a descriptor to the layout's index.json, making both when they are not there. */
export function addToIndex(directory: string, descriptor: Descriptor): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  const path = join(directory, 'index.json');
  const manifests = existsSync(path)
    ? (JSON.parse(readFileSync(path, 'utf8')) as { manifests: unknown[] }).manifests
    : [];
  writeFileSync(
    path,
    JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.index, manifests: [...manifests, descriptor] }),
  );
}
