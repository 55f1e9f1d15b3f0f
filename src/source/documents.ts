/** Where the documents of an image come from, and its layers: a layout or a registry. */
import { digestOf, type Digest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import type { BlobLocation } from './blob.js';

export interface Documents {
  /** Those of a layout's index.json; of a registry the one that was asked for. */
  readonly entries: readonly Descriptor[];
  /**
   * The verified bytes of the document that `descriptor` points at. `what` it is called in messages; `limit` in bytes.
   * Throws BLOB_MISSING, BLOB_SIZE_MISMATCH, BLOB_DIGEST_MISMATCH, LIMIT_EXCEEDED, DIGEST_*, IO.
   */
  read(descriptor: Descriptor, what: string, limit: number): Buffer;
  /** Where the blob is; of its bytes at most the number is checked. Throws BLOB_MISSING, BLOB_SIZE_MISMATCH, DIGEST_*. */
  locate(descriptor: Descriptor, what: string): BlobLocation;
}

/** Of a blob that its descriptor holds. */
export function embeddedLocation(bytes: Buffer, digest: Digest): BlobLocation {
  const path = `the descriptor of ${digest}`;
  return { kind: 'embedded', path, offset: 0, size: bytes.length, data: bytes.toString('base64') };
}

/** A URL for a message: names and passwords, queries and fragments are nobody's business. */
export function withoutSecrets(text: string): string {
  if (!URL.canParse(text)) return '(no URL)';
  const { protocol, host, pathname } = new URL(text);
  return `${protocol}//${host}${pathname}`.slice(0, 300);
}

/** The content in the descriptor itself, verified, where there is any. */
export function embeddedBytes(descriptor: Descriptor, digest: Digest, what: string): Buffer | undefined {
  if (descriptor.data === undefined) return undefined;
  const bytes = Buffer.from(descriptor.data, 'base64');
  checkSize(bytes.length, descriptor, `${what} inside its descriptor`);
  return verified(bytes, digest, `${what} inside its descriptor`);
}

export function checkSize(size: number, descriptor: Descriptor, what: string): void {
  if (size === descriptor.size) return;
  throw new LaminaError(
    'BLOB_SIZE_MISMATCH',
    `${what} has ${size} bytes, not ${descriptor.size} (${descriptor.digest})`,
    {
      details: { digest: descriptor.digest, wanted: descriptor.size, got: size },
    },
  );
}

export function verified(bytes: Buffer, wanted: Digest, what: string): Buffer {
  const got = digestOf(bytes, wanted);
  if (got === wanted) return bytes;
  throw new LaminaError('BLOB_DIGEST_MISMATCH', `${what} does not match its digest (wanted ${wanted}, got ${got})`, {
    details: { wanted, got },
  });
}
