/**
 * Digests as OCI writes them, `algorithm:hex` (image-spec descriptor.md). The only importer of node:crypto hashing and
 * of @noble/hashes. SHA-256 and SHA-512 come from node:crypto (about ten times faster); BLAKE3, which OCI registers and
 * node:crypto lacks, from @noble/hashes.
 */
import { createHash, hash as hashOnce } from 'node:crypto';
import { blake3 } from '@noble/hashes/blake3.js';
import { LaminaError } from '../errors.js';

/** A digest whose algorithm we can compute and whose hex part has the right form. */
export type Digest = string & { readonly brand: 'Digest' };

const HEX_LENGTH = { sha256: 64, sha512: 128, blake3: 64 } as const;
type Algorithm = keyof typeof HEX_LENGTH;

const GRAMMAR = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;

/** Checks the grammar and that we can verify the algorithm. Throws DIGEST_INVALID or DIGEST_UNSUPPORTED. */
export function parseDigest(text: string): Digest {
  if (text.length > 512 || !GRAMMAR.test(text)) {
    throw new LaminaError('DIGEST_INVALID', `Not a digest: ${JSON.stringify(text.slice(0, 100))}`);
  }
  const algorithm = algorithmOf(text);
  if (!(algorithm in HEX_LENGTH)) {
    throw new LaminaError(
      'DIGEST_UNSUPPORTED',
      `Cannot verify digests of algorithm ${algorithm}: ${text.slice(0, 100)}`,
      {
        hint: 'Lamina verifies sha256, sha512 and blake3, and serves nothing that it cannot verify.',
      },
    );
  }
  const hex = text.slice(algorithm.length + 1);
  if (hex.length !== HEX_LENGTH[algorithm as Algorithm] || !/^[0-9a-f]+$/.test(hex)) {
    throw new LaminaError('DIGEST_INVALID', `Not a ${algorithm} digest: ${JSON.stringify(text.slice(0, 150))}`);
  }
  return text as Digest;
}

function algorithmOf(digest: string): string {
  return digest.slice(0, digest.indexOf(':'));
}

/** `sha256:ab..` as a file name, `sha256-ab..`. */
export function digestFileName(digest: Digest): string {
  return digest.replace(':', '-');
}

/** The bytes that a digest's hex part stands for. */
export function digestBytes(digest: Digest): Buffer {
  return Buffer.from(digest.slice(digest.indexOf(':') + 1), 'hex');
}

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
