/** Where a gzip member's deflate data begins (RFC 1952, 2.3). */
import { LaminaError } from '../errors.js';
import type { ByteSource } from './types.js';

const FIXED = 10;
const FHCRC = 2;
const FEXTRA = 4;
const FNAME = 8;
const FCOMMENT = 16;
/** Bytes looked at at a time: nearly every header is shorter. */
const PIECE = 512;

/** Of the member at `member`, whose magic has been seen. Throws COMPRESSION_TRUNCATED and what `source` throws. */
export function deflateStart(source: ByteSource, member: number): number {
  const piece = new Uint8Array(PIECE);
  let pieceAt = 0;
  let length = 0;
  const byte = (at: number): number => {
    if (at < pieceAt || at >= pieceAt + length) {
      pieceAt = at;
      length = source.read(at, piece);
    }
    const value = at < pieceAt + length ? piece[at - pieceAt] : undefined;
    if (value !== undefined) return value;
    throw new LaminaError('COMPRESSION_TRUNCATED', `The compressed data ends inside a gzip header, at byte ${at}`);
  };
  const flags = byte(member + 3);
  let at = member + FIXED;
  if ((flags & FEXTRA) !== 0) at += 2 + byte(at) + 256 * byte(at + 1);
  for (const flag of [FNAME, FCOMMENT]) {
    if ((flags & flag) === 0) continue;
    while (byte(at) !== 0) at++;
    at++;
  }
  return (flags & FHCRC) === 0 ? at : at + 2;
}
