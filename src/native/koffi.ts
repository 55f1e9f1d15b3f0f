/** koffi, loaded when it is first needed: what needs no native call works without it, and what does says what is missing. */
import { createRequire } from 'node:module';
import type koffiModule from 'koffi';
import { LaminaError } from '../errors.js';

type Koffi = typeof koffiModule;

let loaded: Koffi | undefined;

/** Throws NATIVE_UNAVAILABLE. */
export function koffi(): Koffi {
  if (loaded !== undefined) return loaded;
  try {
    loaded = createRequire(import.meta.url)('koffi') as Koffi;
    return loaded;
  } catch (e) {
    throw new LaminaError('NATIVE_UNAVAILABLE', `Cannot load koffi, which makes native calls: ${reasonOf(e)}`, {
      cause: e,
      hint: 'npm ci installs it, prebuilt for Linux on x64 and arm64, glibc and musl; its file must be on a file system without noexec.',
    });
  }
}

/** The first line: the rest is where Node has looked. */
function reasonOf(e: unknown): string {
  return (e instanceof Error ? e.message : String(e)).split('\n')[0] ?? '';
}
