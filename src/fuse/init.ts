/**
 * INIT: what the kernel offers and what we take of it. A flag is asked for only where the kernel offered it, so old
 * kernels get less and nothing breaks (SEMANTICS of each flag: native-notes/KERNEL.md).
 *
 *     fuse_init_in    0 major | 4 minor | 8 max_readahead | 12 flags | 16 flags2 (when INIT_EXT)
 *     fuse_init_out   0 major | 4 minor | 8 max_readahead | 12 flags | 16 max_background u16 | 18 congestion u16
 *                     20 max_write | 24 time_gran | 28 max_pages u16 | 30 map_alignment u16 | 32 flags2 | ..64
 */
import { LaminaError } from '../errors.js';
import type { Capabilities } from './file-system.js';
import { IN_HEADER, MAX_PAGES, OUT_HEADER, PROTOCOL_MAJOR, PROTOCOL_MINOR, initFlag, initFlag2 } from './wire.js';

/** What was agreed: later requests depend on it, so it outlives the server (a restarted one gets no INIT). */
export interface Negotiated {
  readonly minor: number;
  readonly flags: number;
  readonly flags2: number;
  /** Opens answered ENOSYS once and never sent again; without it every open is answered. */
  readonly noOpen: boolean;
  readonly noOpendir: boolean;
}

const WANTED =
  initFlag.ASYNC_READ |
  initFlag.EXPORT_SUPPORT |
  initFlag.BIG_WRITES |
  initFlag.DO_READDIRPLUS |
  initFlag.READDIRPLUS_AUTO |
  initFlag.NO_OPEN_SUPPORT |
  initFlag.PARALLEL_DIROPS |
  initFlag.ABORT_ERROR |
  initFlag.MAX_PAGES |
  initFlag.CACHE_SYMLINKS |
  initFlag.NO_OPENDIR_SUPPORT |
  initFlag.EXPLICIT_INVAL_DATA |
  initFlag.HANDLE_KILLPRIV_V2 |
  initFlag.INIT_EXT;

const WANTED2 = initFlag2.HAS_RESEND | initFlag2.ALLOW_IDMAP;

/** Flag bits taken away in tests, so that the fallbacks for old kernels run on a new one. */
export interface InitLimits {
  readonly withoutFlags?: number;
  readonly withoutFlags2?: number;
  readonly maxMinor?: number;
}

const INIT_OUT_SIZE = 64;
/** The oldest kernel protocol served: 7.23 (Linux 3.15) has asynchronous reads, readdirplus and negotiated sizes. */
const MINOR_OLDEST = 23;

/**
 * Writes the reply's body after the out header and returns what was agreed, or `undefined` where the kernel speaks a
 * newer major: it then sends INIT again with ours.
 */
export function negotiate(
  request: Buffer,
  reply: Buffer,
  capabilities: Capabilities,
  limits: InitLimits = {},
): { negotiated: Negotiated | undefined; length: number } {
  const major = request.readUInt32LE(IN_HEADER);
  const minor = Math.min(request.readUInt32LE(IN_HEADER + 4), limits.maxMinor ?? PROTOCOL_MINOR, PROTOCOL_MINOR);
  const body = reply.subarray(OUT_HEADER, OUT_HEADER + INIT_OUT_SIZE).fill(0);
  body.writeUInt32LE(PROTOCOL_MAJOR, 0);
  body.writeUInt32LE(PROTOCOL_MINOR, 4);
  if (major > PROTOCOL_MAJOR) return { negotiated: undefined, length: OUT_HEADER + INIT_OUT_SIZE };
  if (major < PROTOCOL_MAJOR || minor < MINOR_OLDEST) {
    throw new LaminaError(
      'FUSE_PROTOCOL',
      `Cannot serve FUSE protocol ${major}.${minor}: 7.${MINOR_OLDEST} is the oldest`,
    );
  }
  const offered = request.readUInt32LE(IN_HEADER + 12) & ~(limits.withoutFlags ?? 0);
  const extended = (offered & initFlag.INIT_EXT) !== 0 && request.length >= IN_HEADER + 20;
  const offered2 = extended ? request.readUInt32LE(IN_HEADER + 16) & ~(limits.withoutFlags2 ?? 0) : 0;
  const flags = offered & (WANTED | (capabilities.acls ? initFlag.POSIX_ACL : 0));
  const flags2 = offered2 & WANTED2;

  body.writeUInt32LE(minor, 4);
  body.writeUInt32LE(request.readUInt32LE(IN_HEADER + 8), 8); // max_readahead: what the kernel allows
  body.writeUInt32LE(flags >>> 0, 12);
  // Read-ahead requests count as background; the defaults of 12 and 9 would throttle parallel readers.
  body.writeUInt16LE(256, 16);
  body.writeUInt16LE(192, 18);
  body.writeUInt32LE(4096, 20); // max_write: nothing is written, and a small one lets request buffers be small
  body.writeUInt32LE(1, 24);
  if ((flags & initFlag.MAX_PAGES) !== 0) body.writeUInt16LE(MAX_PAGES, 28);
  if (extended) body.writeUInt32LE(flags2 >>> 0, 32);
  return {
    negotiated: {
      minor,
      flags,
      flags2,
      noOpen: (flags & initFlag.NO_OPEN_SUPPORT) !== 0,
      noOpendir: (flags & initFlag.NO_OPENDIR_SUPPORT) !== 0,
    },
    length: OUT_HEADER + INIT_OUT_SIZE,
  };
}
