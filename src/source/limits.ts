/** Limits that the environment may set: what is read of one layer at most, how long a registry is waited for, what is kept. */
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

const FETCH_TIMEOUT_S = 60;

/**
 * Milliseconds without a byte from a registry after which a read fails; LAMINA_FETCH_TIMEOUT sets another number of
 * seconds. Throws USAGE.
 */
export function fetchTimeout(): number {
  const text = process.env['LAMINA_FETCH_TIMEOUT'];
  const seconds = text === undefined || text === '' ? FETCH_TIMEOUT_S : Number(text);
  if (seconds > 0 && seconds <= 86_400) return seconds * 1000;
  throw new LaminaError('USAGE', `LAMINA_FETCH_TIMEOUT is not a number of seconds: ${JSON.stringify(text)}`);
}

/**
 * Bytes a second at which layers are completed that nobody reads; LAMINA_BACKGROUND_RATE sets it, 0 for not at all. Without it
 * as fast as they come. Throws USAGE.
 */
export function backgroundRate(): number {
  const text = process.env['LAMINA_BACKGROUND_RATE'];
  const rate = text === undefined || text === '' ? Infinity : Number(text);
  if (rate >= 0) return rate;
  throw new LaminaError('USAGE', `LAMINA_BACKGROUND_RATE is not a number of bytes: ${JSON.stringify(text)}`);
}

const CACHE_TIME_S = 120;

/**
 * Milliseconds that what the kernel has cached of layers is kept after the last mount; LAMINA_CACHE_TIME sets another number of
 * seconds. Throws USAGE.
 */
export function cacheTime(): number {
  const text = process.env['LAMINA_CACHE_TIME'];
  const seconds = text === undefined || text === '' ? CACHE_TIME_S : Number(text);
  if (seconds >= 0) return seconds * 1000;
  throw new LaminaError('USAGE', `LAMINA_CACHE_TIME is not a number of seconds: ${JSON.stringify(text)}`);
}

export function overLimit(limit: number): LaminaError {
  return new LaminaError('LIMIT_EXCEEDED', `The layer has more than ${limit} bytes uncompressed`, {
    details: { limit },
    hint: 'If the image is trustworthy, raise the limit: LAMINA_LAYER_LIMIT (bytes), in the environment of the daemon too.',
  });
}
