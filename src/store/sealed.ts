/**
 * Files that prove themselves: the SHA-256 of everything before stands in the last 32 bytes. Trees are sealed so that
 * a bit that flips in an owner or a size is found before the tree is used, as one in a file's data is.
 */
import { readFileSync } from 'node:fs';
import { createHasher, digestBytes, sha256 } from '../digest/index.js';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';

const SEAL = 32;
/** EROFS counts in blocks of 512 bytes and passes over what is behind its last; the seal fills one. */
const BLOCK = 512;

/** The parts with their seal. They make up whole blocks, and so does the result. */
export function seal(parts: readonly Buffer[]): Buffer[] {
  const padding = Buffer.alloc(BLOCK - SEAL);
  const hasher = createHasher();
  for (const part of [...parts, padding]) hasher.update(part);
  return [...parts, padding, digestBytes(hasher.digest())];
}

/** What was sealed, whole. Throws STORE_CORRUPT, and what a file that cannot be read throws. */
export function readSealed(path: string): Buffer {
  const bytes = readStored(path);
  const end = Math.max(bytes.length - SEAL, 0);
  if (!sha256(bytes.subarray(0, end)).equals(bytes.subarray(end))) throw corrupt(path, 'its checksum does not match');
  return withoutSeal(bytes);
}

/** A file of the store, which is to be there. Throws STORE_CORRUPT where it is not, IO. */
export function readStored(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (e) {
    // What is damaged is made anew; what cannot be read now may be right.
    if (errnoOf(e) !== 'ENOENT') throw toLaminaError(e, `Cannot read ${path}`);
    throw corrupt(path, 'it is not there');
  }
}

/** What was sealed, of a file that has been checked before. */
export function withoutSeal(bytes: Buffer): Buffer {
  return bytes.subarray(0, Math.max(bytes.length - BLOCK, 0));
}

/** False when it is damaged, or not there. */
export function isSealed(path: string): boolean {
  try {
    readSealed(path);
    return true;
  } catch (e) {
    if (e instanceof LaminaError) return false;
    throw e;
  }
}

function corrupt(path: string, why: string): LaminaError {
  return new LaminaError('STORE_CORRUPT', `Cannot use ${path}: ${why}`, {
    details: { path },
    hint: 'The next mount of the image makes it anew.',
  });
}
