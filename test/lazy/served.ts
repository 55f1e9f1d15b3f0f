/** An image with a lazy layer in a registry, behind a proxy that can misbehave, and a daemon: what the tests of this folder begin with. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtempSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import type { LayerContent, MountContent } from '../../src/daemon/protocol.js';
import { loadFuseNative } from '../../src/mount/fuse-native.js';
import { commandExists } from '../support/commands.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { makeEstargz, type EstargzOptions } from '../support/estargz.js';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { push, startRegistry } from '../support/registry.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import type { Entry } from '../support/tar.js';

const needed = ['skopeo', 'docker-registry', 'umoci'];
const missing = needed.filter((name) => !commandExists(name));
const canMount = isRoot && existsSync('/dev/fuse');
export const engines = ['kernel', 'fuse'] as const;
/** Nothing comes but what is read. */
export const NO_BACKGROUND = { LAMINA_BACKGROUND_RATE: '0', LAMINA_FETCH_TIMEOUT: '4' };

export function cannotRun(t: Test): boolean {
  return (
    skipUnless(t, canMount, 'mounting needs root and /dev/fuse') ||
    skipUnless(t, missing.length === 0, `commands are missing: ${missing.join(', ')} (scripts/install-peers)`)
  );
}

export function cannotLoadFuseNative(t: Test): boolean {
  try {
    loadFuseNative();
    return false;
  } catch (e) {
    return skipUnless(t, false, (e as Error).message);
  }
}

/** Bytes that no compressor makes smaller. */
export function noise(size: number, seed: string): Buffer {
  const parts: Buffer[] = [];
  for (let i = 0; i * 32 < size; i++) parts.push(createHash('sha256').update(`${seed} ${i}`).digest());
  return Buffer.concat(parts).subarray(0, size);
}

export const LARGE = noise(6_000_000, 'large');

export const entries: readonly Entry[] = [
  { name: 'd/', type: 'directory', mode: 0o750, uid: 3, gid: 4, mtime: new Date(1_600_000_000_000) },
  ...Array.from({ length: 300 }, (_, i) => ({ name: `d/small-${i}`, content: noise(700 + 13 * i, `small ${i}`) })),
  { name: '.no.prefetch.landmark', content: '\x0f' },
  { name: 'large', content: LARGE },
  { name: 'hard', type: 'link', linkname: 'large' },
  { name: 'link', type: 'symlink', linkname: 'd/small-1' },
  { name: 'empty', content: '' },
  { name: 'ünïcode', content: 'name' },
  { name: 'other', content: noise(3_000_000, 'other') },
];

interface Served {
  readonly image: MadeImage;
  readonly reference: string;
  readonly proxy: FaultProxy;
  readonly daemon: TestDaemon;
  /** Of the eStargz layer. */
  readonly digest: string;
  /** Byte of it where its table of contents begins. */
  readonly tocAt: number;
}

/** An image of two layers, the upper one an eStargz, behind a proxy, and a daemon. */
export async function serveEstargz(t: Test, options: EstargzOptions = {}): Promise<Served> {
  const registry = await startRegistry(t);
  const layer = await makeEstargz(entries, { chunkSize: 256 * 1024, ...options });
  const image = await makeLayout(tempDir(t), {
    layers: [
      {
        entries: [
          { name: 'base', content: 'plain gzip' },
          { name: 'd/small-1', content: 'hidden by the upper layer' },
        ],
      },
      { tar: layer.tar, blob: layer.blob, annotations: layer.annotations },
    ],
  });
  push(image.reference, registry.host, 'lazy:1');
  const proxy = await startFaultProxy(t, registry.host);
  const daemon = await startDaemon(t, undefined, NO_BACKGROUND);
  const { digest } = image.layers[1]!.descriptor;
  return { image, reference: `docker://${proxy.host}/lazy:1`, proxy, daemon, digest, tocAt: layer.tocAt };
}

/** Waits until nothing has been asked of a registry for a second. */
export async function quiet(proxy: FaultProxy): Promise<void> {
  for (let before = -1; before !== proxy.seen.length;) {
    before = proxy.seen.length;
    await sleep(1000);
  }
}

/** Bytes decompressed for the first of a daemon's mounts. */
export async function filled(daemon: TestDaemon): Promise<number> {
  const { stdout } = await daemon.lamina(['mounts', '--json']);
  return (JSON.parse(stdout) as { bytes: { filled: number } }[])[0]!.bytes.filled;
}

export async function mounted(daemon: TestDaemon, reference: string, ...flags: string[]): Promise<string> {
  const mountpoint = mkdtempSync(join(daemon.directory, 'mnt-'));
  const { code, stderr } = await daemon.lamina(['mount', ...flags, reference, mountpoint]);
  if (code !== 0) throw new Error(stderr);
  return mountpoint;
}

export async function contents(daemon: TestDaemon): Promise<readonly LayerContent[]> {
  const { stdout } = await daemon.lamina(['status', '--json']);
  return (JSON.parse(stdout) as MountContent[]).flatMap(({ layers }) => layers);
}

/** Mounts an image whose one layer is of {@link entries} and more, and is known as `how` says: little of it has been fetched. */
export async function mountedLazily(t: Test, daemon: TestDaemon, reference: string, how: object): Promise<string> {
  const mountpoint = await mounted(daemon, reference, '--engine', 'fuse');
  const [lazy] = await contents(daemon);
  t.match(lazy, how);
  t.ok(lazy!.fetched < lazy!.size / 20, `${lazy!.fetched} of ${lazy!.size} bytes`);
  t.ok((await readFile(join(mountpoint, 'd/small-7'))).equals(noise(700 + 13 * 7, 'small 7')));
  return mountpoint;
}
