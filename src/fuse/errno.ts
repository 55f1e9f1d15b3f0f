/** Which errno a reader sees for which failure: the one table. What is not in it is EIO, and worth a log line. */
import { constants } from 'node:os';
import { LaminaError, type ErrorCode } from '../errors.js';

const { EIO, ENOENT, ENOMEM, EFBIG } = constants.errno;

const table: Partial<Record<ErrorCode, number>> = {
  PATH_NOT_FOUND: ENOENT,
  LIMIT_EXCEEDED: EFBIG,
};

/** A positive errno. */
export function errnoFor(e: unknown): number {
  if (e instanceof LaminaError) return table[e.code] ?? EIO;
  if (e instanceof RangeError && /allocation/.test(e.message)) return ENOMEM;
  return EIO;
}
