/**
 * Computing digests. The only importer of node:crypto hashing and of @noble/hashes. SHA-256 and SHA-512 come from node:crypto
 * (about ten times faster); BLAKE3, which OCI registers and node:crypto lacks, from @noble/hashes.
 */
import { createHash, hash as hashOnce } from 'node:crypto';
import { blake3 } from '@noble/hashes/blake3.js';
import { algorithmOf, type Digest } from './form.js';

export interface Hasher {
  update(bytes: Uint8Array): void;
  /** Ends the computation; the hasher must not be used again. */
  digest(): Digest;
}

/** A running computation of the algorithm that `like` is or names (sha256 when it is omitted). */
export function createHasher(like: Digest | 'sha256' | 'sha512' = 'sha256'): Hasher {
  const algorithm = like === 'sha256' || like === 'sha512' ? like : algorithmOf(like);
  if (algorithm === 'blake3') {
    const h = blake3.create();
    return {
      update: (bytes) => void h.update(bytes),
      digest: () => `blake3:${Buffer.from(h.digest()).toString('hex')}` as Digest,
    };
  }
  const h = createHash(algorithm);
  return {
    update: (bytes) => void h.update(bytes),
    digest: () => `${algorithm}:${h.digest('hex')}` as Digest,
  };
}

/** The digest of `bytes`, by the algorithm that `like` names. */
export function digestOf(bytes: Uint8Array, like: Digest | 'sha256' = 'sha256'): Digest {
  const h = createHasher(like);
  h.update(bytes);
  return h.digest();
}

/** Raw SHA-256, 32 bytes: the form in which chunk digests are stored. */
export function sha256(bytes: Uint8Array): Buffer {
  return hashOnce('sha256', bytes, 'buffer');
}
