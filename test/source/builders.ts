/** Image layouts and archives for tests, made by hand from JSON, node:crypto and tar-stream. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Test } from 'tap';
import { pack, type Header } from 'tar-stream';

export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const INDEX = 'application/vnd.oci.image.index.v1+json';
export const CONFIG = 'application/vnd.oci.image.config.v1+json';
export const LAYER_GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const REF_NAME = 'org.opencontainers.image.ref.name';
export const CONTAINERD_NAME = 'io.containerd.image.name';

/** A new directory, at every call another, until the test ends. */
export function newDirectory(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'lamina-source-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

export function sha256(bytes: string | Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export interface Desc {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  platform?: Record<string, unknown>;
  [more: string]: unknown;
}

/** The files of a layout, by name. */
export class LayoutBuilder {
  readonly files = new Map<string, Buffer>([['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')]]);
  readonly entries: Desc[] = [];
  #finished = false;

  blob(mediaType: string, content: string | Buffer, more: Partial<Desc> = {}): Desc {
    const bytes = Buffer.from(content);
    const digest = more.digest ?? sha256(bytes);
    this.files.set(`blobs/${digest.replace(':', '/')}`, bytes);
    return { mediaType, size: bytes.length, ...more, digest };
  }

  json(mediaType: string, document: unknown, more: Partial<Desc> = {}): Desc {
    return this.blob(mediaType, JSON.stringify(document), more);
  }

  /** A manifest with `layers` small layers whose content depends on `seed`. */
  image({
    seed = 'x',
    layers = 1,
    config = {},
    configType = CONFIG,
    manifest = {},
    mediaType = MANIFEST,
    more = {},
  }: {
    seed?: string;
    layers?: number;
    config?: Record<string, unknown>;
    configType?: string;
    manifest?: Record<string, unknown>;
    mediaType?: string;
    more?: Partial<Desc>;
  } = {}): Desc {
    const tars = Array.from({ length: layers }, (_, i) => Buffer.from(`${seed}-${i}`.padEnd(1024, '\0')));
    const configDesc = this.json(configType, {
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: tars.map(sha256) },
      ...config,
    });
    return this.json(
      mediaType,
      {
        schemaVersion: 2,
        mediaType,
        config: configDesc,
        layers: tars.map((tar) => this.blob(LAYER_GZIP, gzipSync(tar))),
        ...manifest,
      },
      more,
    );
  }

  index(manifests: readonly Desc[], more: Partial<Desc> = {}): Desc {
    return this.json(INDEX, { schemaVersion: 2, mediaType: INDEX, manifests }, more);
  }

  /** Adds an entry to index.json; with a name as its ref.name. */
  add(entry: Desc, name?: string): Desc {
    const named = name === undefined ? entry : { ...entry, annotations: { ...entry.annotations, [REF_NAME]: name } };
    this.entries.push(named);
    return named;
  }

  /** Adds index.json, at the first call. */
  finish(): Map<string, Buffer> {
    if (!this.#finished) {
      this.#finished = true;
      this.files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: this.entries })));
    }
    return this.files;
  }

  write(directory: string): string {
    for (const [name, bytes] of this.finish()) {
      mkdirSync(dirname(join(directory, name)), { recursive: true });
      writeFileSync(join(directory, name), bytes);
    }
    return directory;
  }
}

export type Member = Partial<Header> & { name: string; body?: string | Buffer };

export async function tarOf(members: Iterable<Member>): Promise<Buffer> {
  const tar = pack();
  for (const { body = '', ...header } of members) tar.entry(header, Buffer.from(body));
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(Buffer.from(chunk as Uint8Array));
  return Buffer.concat(chunks);
}

export function members(files: Iterable<[string, Buffer]>, prefix = ''): Member[] {
  return [...files].map(([name, body]) => ({ name: prefix + name, body }));
}
