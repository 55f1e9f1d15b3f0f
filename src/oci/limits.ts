/** How large documents may be. */
import { LaminaError } from '../errors.js';

/** Bytes. The cap of the registries (distribution-spec "Pushing Manifests"), and more for configs with a long history. */
export const MANIFEST_LIMIT = 4 * 1024 * 1024;
export const CONFIG_LIMIT = 8 * 1024 * 1024;

export function tooLarge(what: string, size: number, limit: number): LaminaError {
  return new LaminaError('LIMIT_EXCEEDED', `${what} has ${size} bytes; at most ${limit} are read`, {
    details: { size, limit },
  });
}
