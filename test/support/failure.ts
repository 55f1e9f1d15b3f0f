/** What a call that should fail fails with. */
import { LaminaError } from '../../src/errors.js';

/** The code of the LaminaError that `act` throws, "no error", or a text that no code equals. */
export function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (e) {
    return e instanceof LaminaError ? e.code : `not a LaminaError: ${String(e)}`;
  }
  return 'no error';
}

/** The same for what a promise is rejected with. */
export async function codeOfRejection(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (e) {
    return codeOf(() => {
      throw e;
    });
  }
  return 'no error';
}

/** The LaminaError that a promise is rejected with; anything else fails the test. */
export async function failure(promise: Promise<unknown>): Promise<LaminaError> {
  try {
    await promise;
  } catch (e) {
    if (e instanceof LaminaError) return e;
    throw e;
  }
  throw new Error('It did not fail');
}
