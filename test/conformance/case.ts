/**
 * What a conformance case is, and how its layers are written down.
 *
 * A case is a small image and the tree that it must give, or the error. Layers come from tar-stream, from raw header
 * bytes or from GNU tar, never from Lamina's own code.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { temporaryPrefix } from '../../scripts/leftovers.js';
import type { ErrorCode } from '../../src/errors.js';
import { makeLayout, type ImageSpec, type LayerSpec, type MadeImage } from '../support/images.js';
import type { TarPart } from '../support/tar.js';

/** An entry in short (see {@link part}), an entry in full, bytes as they stand in the stream, or a whole layer. */
export type Part = string | TarPart;
export type LayerOfCase = readonly Part[] | LayerSpec;

/** Content that a tree names as `<name>`; of a large file only the head and the tail are compared. */
export type Content = string | Buffer | { readonly size: number; readonly head: Buffer; readonly tail: Buffer };

interface Observation {
  /** Run in the mountpoint. */
  readonly command: readonly string[];
  /** What it must print. */
  readonly prints: RegExp;
}

export interface Case {
  /** Letter of the area and number, "T001"; variants of one number add a lower-case letter. */
  readonly id: string;
  /** What the image has. */
  readonly what: string;
  /** Base first. */
  readonly layers?: readonly LayerOfCase[] | (() => readonly LayerOfCase[]);
  /** Instead of layers: the whole image, for what is not about tars; it may write into the layout's directory. */
  readonly image?: (directory: string) => ImageSpec | Promise<ImageSpec>;
  /** The tree, a line per path, as expected.ts reads it. Either this or `error`. */
  readonly tree?: string;
  readonly contents?: Readonly<Record<string, Content>>;
  readonly error?: ErrorCode;
  /** What one of the notes about oddities says; without it there must be none. */
  readonly note?: RegExp;
  /** Default "spec". */
  readonly compat?: 'overlay';
  /** What other tools must see in the mount, where it shows no tree line. */
  readonly observe?: readonly Observation[];
  /** Who among umoci, containerd, moby, containers/storage, go-containerregistry and overlayfs does what, and why we do what we do. */
  readonly differs?: string;
}

/** "path/" a directory, "path -> target" a symlink, "path => target" a hard link, "path=content" or "path" a file. */
function part(text: string): TarPart {
  const [link = '', linkTarget] = text.split(' => ');
  if (linkTarget !== undefined) return { name: link, type: 'link', linkname: linkTarget };
  const [symlink = '', target] = text.split(' -> ');
  if (target !== undefined) return { name: symlink, type: 'symlink', linkname: target };
  if (text.endsWith('/')) return { name: text, type: 'directory' };
  const equals = text.indexOf('=');
  return equals < 0 ? { name: text } : { name: text.slice(0, equals), content: text.slice(equals + 1) };
}

/** Writes the case's image into a layout below `directory`. */
export async function makeCase(c: Case, directory: string): Promise<MadeImage> {
  const { id, layers = [], image } = c;
  const place = join(directory, id);
  const list = typeof layers === 'function' ? layers() : layers;
  return makeLayout(place, image === undefined ? { layers: list.map(layerSpec) } : await image(place));
}

function layerSpec(layer: LayerOfCase): LayerSpec {
  if (!isParts(layer)) return layer;
  return { entries: layer.map((p) => (typeof p === 'string' ? part(p) : p)) };
}

function isParts(layer: LayerOfCase): layer is readonly Part[] {
  return Array.isArray(layer);
}

/** A layer of exactly these bytes. */
export function raw(...blocks: readonly Uint8Array[]): LayerSpec {
  return { tar: Buffer.concat(blocks) };
}

/**
 * What GNU tar makes of the files that `script` (sh) makes in an empty directory, owned by root and with mtime 0.
 * `options` end with the names.
 */
export function gnuTar(script: string, ...options: readonly string[]): LayerSpec {
  const directory = mkdtempSync(join(tmpdir(), temporaryPrefix('gnutar')));
  try {
    execFileSync('sh', ['-ec', script], { cwd: directory });
    const common = ['--owner=0', '--group=0', '--numeric-owner', '--mtime=@0', '--sort=name', '--mode=u=rwX,go=rX'];
    return { tar: execFileSync('tar', [...common, '-cf', '-', ...options], { cwd: directory, maxBuffer: 1 << 30 }) };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** `count` layers; layer N writes N into one of 52 files. */
export function manyLayers(count: number): LayerOfCase[] {
  return Array.from({ length: count }, (_, i) => [`f${String(i % 52).padStart(2, '0')}=${i}`]);
}
