/**
 * Digests as OCI writes them, `algorithm:hex` (image-spec descriptor.md). Apart from what computes them, so that who only reads a
 * name has not to load that.
 */
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

export function algorithmOf(digest: string): string {
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
