import { LaminaError } from '../../errors.js';

/** `what` is what was read: "the ztoc", "the SOCI index". */
export function sociInvalid(what: string, why: string): LaminaError {
  return new LaminaError('SOCI_INVALID', `Cannot use ${what}: ${why}`);
}
