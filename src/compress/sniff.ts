/** What a layer is compressed with, by its first bytes: media types of real images are not always right. */
import { LaminaError } from '../errors.js';
import type { Compression } from './types.js';
import { isZstdMagic } from './zstd.js';

/** Formats that other tools may write and that no image specification has for layers. */
const others: readonly (readonly [name: string, test: RegExp])[] = [
  ['bzip2', /^BZh[1-9](?:1AY&SY|.rE8P\x90)/],
  ['xz', /^\xfd7zXZ\0/],
  // An LZMA header has no magic: properties 5d and a dictionary of at least 64 KiB (a tar member named "]" has zeros).
  ['lzma', /^\x5d\0\0(?:[^\0]|\0[^\0])/],
];

/**
 * `head` is the first bytes of the blob (16 are enough; all of them when there are fewer). "none" when nothing matches.
 * Throws COMPRESSION_UNKNOWN for bzip2, xz and lzma.
 */
export function sniffCompression(head: Uint8Array): Compression {
  if (head.length >= 2 && head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  if (head.length >= 4 && isZstdMagic(head, 0, 4)) return 'zstd';
  const text = Buffer.from(head.subarray(0, 16)).toString('latin1');
  const other = others.find(([, test]) => test.test(text));
  if (other === undefined) return 'none';
  throw new LaminaError('COMPRESSION_UNKNOWN', `Cannot read a layer that is compressed with ${other[0]}`, {
    hint: 'Layers of OCI and Docker images are plain tar, gzip or zstd; build the image again with one of these.',
    details: { compression: other[0] },
  });
}
