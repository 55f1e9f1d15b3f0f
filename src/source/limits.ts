/** What is read of one layer at most, so that a bomb is stopped. */
import { LaminaError } from '../errors.js';

/** Bytes of one layer, uncompressed. */
const LAYER_LIMIT = 256 * 1024 ** 3;

/** Bytes; LAMINA_LAYER_LIMIT sets another number. Throws USAGE. */
export function layerLimit(): number {
  const text = process.env['LAMINA_LAYER_LIMIT'];
  const limit = text === undefined || text === '' ? LAYER_LIMIT : Number(text);
  if (Number.isSafeInteger(limit) && limit > 0) return limit;
  throw new LaminaError('USAGE', `LAMINA_LAYER_LIMIT is not a number of bytes: ${JSON.stringify(text)}`);
}

export function overLimit(limit: number): LaminaError {
  return new LaminaError('LIMIT_EXCEEDED', `The layer has more than ${limit} bytes uncompressed`, {
    details: { limit },
    hint: 'If the image is trustworthy, raise the limit: LAMINA_LAYER_LIMIT (bytes), in the environment of the daemon too.',
  });
}
