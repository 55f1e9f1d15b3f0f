/**
 * Which engine serves a mount, and why. `kernel`: EROFS in the kernel over blobfs; `fuse`: our own server. Probed, not
 * assumed: the kernel's version says only what cannot be tried without mounting.
 */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { LaminaError } from '../errors.js';

export type Engine = 'kernel' | 'fuse';

export interface EngineChoice {
  readonly engine: Engine;
  /** For people: "EROFS in the kernel (Linux 6.18)". */
  readonly reason: string;
}

/** File-backed EROFS mounts (fs/erofs/fileio.c) came with Linux 6.12. */
const EROFS_FILE_BACKED = [6, 12] as const;
/** extra_devices of the superblock is 16 bits wide. */
const DEVICES_MAX = 0xffff;

/** Why the kernel engine cannot be had here; undefined where it can. */
export function kernelEngineObstacle(
  system: { uid: number; release: string; filesystems: string } = probe(),
  layers = 0,
): string | undefined {
  if (system.uid !== 0) return 'mounting EROFS needs root';
  const [major = 0, minor = 0] = system.release.split('.').map((part) => parseInt(part, 10));
  const [needMajor, needMinor] = EROFS_FILE_BACKED;
  if (major < needMajor || (major === needMajor && minor < needMinor)) {
    return `Linux ${system.release} cannot mount EROFS from a file (${needMajor}.${needMinor} can)`;
  }
  if (!/\berofs$/m.test(system.filesystems)) return 'the kernel has no EROFS (modprobe erofs)';
  if (layers > DEVICES_MAX) return `${layers} layers are more than EROFS takes (${DEVICES_MAX})`;
  return undefined;
}

function probe(): { uid: number; release: string; filesystems: string } {
  return {
    uid: process.geteuid?.() ?? 0,
    release: release(),
    filesystems: readFileSync('/proc/filesystems', 'utf8'),
  };
}

/** What speaks FUSE with the kernel: our own code, or the package fuse-native with libfuse 2.9. */
export type Transport = 'dev-fuse' | 'fuse-native';

/** Throws USAGE, and ENGINE_UNAVAILABLE when `kernel` is asked for and cannot be had. */
export function chooseEngine(wanted: Engine | 'auto', layers: number, transport: Transport = 'dev-fuse'): EngineChoice {
  if (transport === 'fuse-native') {
    if (wanted !== 'kernel') return { engine: 'fuse', reason: 'fuse-native was asked for' };
    throw new LaminaError('USAGE', 'fuse-native is a transport of the fuse engine, not of the kernel engine', {
      hint: 'Leave out --engine kernel.',
    });
  }
  if (wanted === 'fuse') return { engine: 'fuse', reason: 'asked for' };
  const obstacle = kernelEngineObstacle(probe(), layers);
  if (obstacle === undefined) {
    const why = `EROFS in the kernel (Linux ${release().replace(/-.*/, '')})`;
    return { engine: 'kernel', reason: wanted === 'kernel' ? 'asked for' : why };
  }
  if (wanted === 'kernel') {
    throw new LaminaError('ENGINE_UNAVAILABLE', `Cannot use the kernel engine: ${obstacle}`, {
      hint: 'Use --engine fuse, or leave the choice to Lamina with --engine auto.',
    });
  }
  return { engine: 'fuse', reason: `our FUSE server: ${obstacle}` };
}
