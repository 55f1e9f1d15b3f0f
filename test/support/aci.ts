/** appc images for tests, made without Lamina's own code (appc spec v0.8.11, spec/aci.md). */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { gzipSync } from 'node:zlib';
import { makeTar, type TarPart } from './tar.js';

export interface AciSpec {
  /** Put over a manifest that has acKind, acVersion and name. */
  readonly manifest?: Readonly<Record<string, unknown>>;
  /** The manifest's bytes, whatever `manifest` is; null: there is none. */
  readonly manifestBytes?: string | null;
  /** Names from the root of the archive: "rootfs/etc/passwd". `rootfs/` comes by itself before them. */
  readonly entries?: readonly TarPart[];
  /** Entries alone, in place of everything else. */
  readonly only?: readonly TarPart[];
  /** Default gzip. */
  readonly compression?: 'none' | 'gzip';
  /** Default last, where the tools of appc write it. */
  readonly manifestFirst?: boolean;
}

export interface MadeAci {
  readonly path: string;
  /** "sha512-HEX" of the uncompressed tar. */
  readonly id: string;
  readonly tar: Buffer;
}

export async function makeAci(path: string, spec: AciSpec = {}): Promise<MadeAci> {
  const document = { acKind: 'ImageManifest', acVersion: '0.8.11', name: 'example.com/app', ...spec.manifest };
  const bytes = spec.manifestBytes === undefined ? JSON.stringify(document) : spec.manifestBytes;
  const manifest = bytes === null ? [] : [{ name: 'manifest', content: bytes }];
  const rootfs = [{ name: 'rootfs/', type: 'directory' as const }, ...(spec.entries ?? [])];
  const parts = spec.manifestFirst === true ? [...manifest, ...rootfs] : [...rootfs, ...manifest];
  const tar = await makeTar(spec.only ?? parts);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, spec.compression === 'none' ? tar : gzipSync(tar));
  return { path, id: `sha512-${createHash('sha512').update(tar).digest('hex')}`, tar };
}

/** A file below rootfs/. */
export function file(name: string, content: string | Uint8Array = '', mode = 0o644): TarPart {
  return { name: `rootfs/${name}`, content, mode };
}

/** A directory below rootfs/. */
export function directory(name: string, mode = 0o755): TarPart {
  return { name: `rootfs/${name}/`, type: 'directory', mode };
}
