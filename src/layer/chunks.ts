/**
 * `chunks`: the SHA-256 of every 64 KiB of a layer's address space. With it any byte can be checked alone, whatever
 * cache or blob it comes from. Little-endian:
 *
 *     0   magic "LAMCHNK1"
 *     8   u64 bytes of the uncompressed stream
 *     16  u64 bytes of the address space (the stream, or the appendix's end)
 *     24  u32 number of chunks   28 u32 number of copies
 *     32  chunk digests, 32 bytes each; the last chunk of the stream and of the appendix may be short
 *     ..  copies, 24 bytes each: u64 to, u64 from, u64 length (see extents.ts)
 *     ..  SHA-256 of everything before
 */
import { sha256 } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { readStored } from '../store/sealed.js';
import type { Copy } from './extents.js';

/** Bytes. */
export const CHUNK = 65536;
const DIGEST = 32;
const HEADER = 32;
const COPY = 24;
const MAGIC = Buffer.from('LAMCHNK1');

export interface Chunks {
  /** Bytes of the uncompressed tar stream. */
  readonly streamSize: number;
  readonly addressSpace: number;
  /** Chunk digests, one after the other. */
  readonly digests: Buffer;
  readonly copies: readonly Copy[];
}

/** Where the appendix begins in the address space: behind the stream, on a chunk's border. */
export function appendixStart(streamSize: number): number {
  return Math.ceil(streamSize / CHUNK) * CHUNK;
}

/** Bytes of chunk `index`: 65,536 but for the last of the stream and of the appendix. */
export function chunkLength({ streamSize, addressSpace }: Chunks, index: number): number {
  const start = index * CHUNK;
  return Math.min(CHUNK, (start < streamSize ? streamSize : addressSpace) - start);
}

export function encodeChunks({ streamSize, addressSpace, digests, copies }: Chunks): Buffer[] {
  const header = Buffer.alloc(HEADER);
  MAGIC.copy(header);
  header.writeBigUInt64LE(BigInt(streamSize), 8);
  header.writeBigUInt64LE(BigInt(addressSpace), 16);
  header.writeUInt32LE(digests.length / DIGEST, 24);
  header.writeUInt32LE(copies.length, 28);
  const table = Buffer.alloc(copies.length * COPY);
  copies.forEach(({ to, from, length }, i) => {
    table.writeBigUInt64LE(BigInt(to), i * COPY);
    table.writeBigUInt64LE(BigInt(from), i * COPY + 8);
    table.writeBigUInt64LE(BigInt(length), i * COPY + 16);
  });
  const body = Buffer.concat([header, digests, table]);
  return [body, sha256(body)];
}

/** Throws STORE_CORRUPT. */
export function readChunks(path: string): Chunks {
  return decodeChunks(readStored(path), path);
}

/** What is in a `chunks` file; `path` it is called in messages. Throws STORE_CORRUPT. */
export function decodeChunks(bytes: Buffer, path: string): Chunks {
  const body = bytes.subarray(0, Math.max(bytes.length - DIGEST, 0));
  if (body.length < HEADER || !bytes.subarray(0, 8).equals(MAGIC)) throw corrupt(path, 'it is not a chunks file');
  if (!sha256(body).equals(bytes.subarray(body.length))) throw corrupt(path, 'its checksum does not match');
  const count = bytes.readUInt32LE(24);
  const copyCount = bytes.readUInt32LE(28);
  const copiesAt = HEADER + count * DIGEST;
  if (copiesAt + copyCount * COPY !== body.length) throw corrupt(path, 'its size is wrong');
  const number = (at: number): number => Number(body.readBigUInt64LE(at));
  const streamSize = number(8);
  const addressSpace = number(16);
  // The appendix begins on a chunk's border, so there are as many digests as the address space has chunks.
  if (streamSize > addressSpace || count !== Math.ceil(addressSpace / CHUNK)) throw corrupt(path, 'its size is wrong');
  return {
    streamSize,
    addressSpace,
    digests: body.subarray(HEADER, copiesAt),
    copies: Array.from({ length: copyCount }, (_, i) => {
      const at = copiesAt + i * COPY;
      return { to: number(at), from: number(at + 8), length: number(at + 16) };
    }),
  };
}

function corrupt(path: string, why: string): LaminaError {
  return new LaminaError('STORE_CORRUPT', `Cannot use ${path}: ${why}`, {
    details: { path },
    hint: 'The next mount of the image makes it anew.',
  });
}
