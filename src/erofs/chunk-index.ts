/**
 * How a regular file's extents become chunk indexes. All chunks of a file have one size, a power of two of blocks; a chunk
 * is either a hole or contiguous in one device. So the chunk size divides every offset at which the mapping changes:
 *
 *     plain file     |==================|          one chunk, larger than the file
 *     sparse file    |####....|########|..         boundaries at 4, 8 and 12 (times 1 KiB): chunks of 4 KiB
 *
 * The kernel reads the last chunk only up to the end of the file, rounded up to a block (erofs_map_blocks).
 */
import { LaminaError } from '../errors.js';
import { BLOCK, CHUNK_BITS_MASK, CHUNK_INDEX, HOLE, chunk } from './layout.js';
import type { Extent } from './tree.js';

/** Chunk indexes of one file: 32 MiB of them. */
const INDEXES_MAX = 4 * 1024 * 1024;

export interface ChunkPlan {
  /** log2 of the blocks of a chunk. */
  bits: number;
  count: number;
  /** Blocks of the file that no extent covers. */
  holes: number;
}

/**
 * Chooses the largest chunks that work. `devices` are the bytes of each device's address space; `about` names the file.
 * Throws METADATA_INVALID for extents that break the rules of {@link Extent}, LIMIT_EXCEEDED for too many chunks.
 */
export function planChunks(
  size: number,
  extents: readonly Extent[] | undefined,
  devices: readonly number[],
  about: () => string,
): ChunkPlan {
  const blocks = Math.ceil(size / BLOCK);
  // Every block number at which the mapping changes, or-ed: its lowest bit bounds the chunk size.
  let boundaries = 0;
  let covered = 0;
  let end = 0;
  let next = -1;
  let device = 0;
  for (const e of extents ?? []) {
    checkExtent(e, end, size, devices, about);
    if (e.offset !== end || e.position !== next || e.device !== device) boundaries |= e.offset / BLOCK;
    if (e.offset !== end) boundaries |= end / BLOCK;
    end = e.offset + e.length;
    next = e.position + e.length;
    device = e.device;
    covered += Math.ceil(e.length / BLOCK);
  }
  if (blocks === 0) return { bits: 0, count: 0, holes: 0 };
  if (end < size) boundaries |= end / BLOCK;
  const bits = Math.min(lowestBit(boundaries), bitsToCover(blocks), CHUNK_BITS_MASK);
  const count = Math.ceil(blocks / 2 ** bits);
  if (count > INDEXES_MAX) {
    throw new LaminaError(
      'LIMIT_EXCEEDED',
      `Cannot index ${about()}: its holes need ${count} chunks (at most ${INDEXES_MAX})`,
      {
        details: { size, chunks: count },
      },
    );
  }
  return { bits, count, holes: blocks - covered };
}

function checkExtent(e: Extent, from: number, size: number, devices: readonly number[], about: () => string): void {
  const end = e.offset + e.length;
  const space = devices[e.device - 1];
  const aligned = e.offset % BLOCK === 0 && e.position % BLOCK === 0 && (end % BLOCK === 0 || end === size);
  const within = e.length > 0 && e.offset >= from && end <= size && e.position >= 0;
  if (aligned && within && space !== undefined && e.position + e.length <= space) return;
  throw new LaminaError('METADATA_INVALID', `Cannot index ${about()}: its data at byte ${e.offset} is misplaced`, {
    details: { ...e, size, addressSpace: space ?? -1 },
  });
}

/** Of the low 32 bits; with none set, as many as a chunk may have. */
function lowestBit(n: number): number {
  return n === 0 ? CHUNK_BITS_MASK : 31 - Math.clz32(n & -n);
}

function bitsToCover(blocks: number): number {
  return blocks > 2 ** 31 ? CHUNK_BITS_MASK : 32 - Math.clz32(blocks - 1);
}

/** Writes the indexes of a planned file at `at`. */
export function writeChunks(
  { bits, count }: ChunkPlan,
  extents: readonly Extent[] | undefined,
  view: DataView,
  at: number,
): void {
  const bytes = BLOCK * 2 ** bits;
  let k = 0;
  for (let i = 0; i < count; i++) {
    const offset = i * bytes;
    while (k < (extents?.length ?? 0) && extents![k]!.offset + extents![k]!.length <= offset) k++;
    const e = extents?.[k];
    const to = at + i * CHUNK_INDEX;
    if (e === undefined || e.offset > offset) {
      view.setUint32(to + chunk.block, HOLE, true);
    } else {
      view.setUint16(to + chunk.device, e.device, true);
      view.setUint32(to + chunk.block, (e.position + offset - e.offset) / BLOCK, true);
    }
  }
}
