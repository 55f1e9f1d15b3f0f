/**
 * Searching and listing directory data (its layout: directory.ts). Names are compared as bytes, in place; nothing is
 * allocated. A directory is named by `at`, where its inode is.
 */
import type { ImageBytes } from './image-bytes.js';
import { BLOCK, DIRENT, NAME_MAX, dirent, erofsInvalid, getU64, modeTypes } from './layout.js';

/** Called for each entry; false stops. The name is `bytes[start, end)`, the type S_IFMT >> 12; `next` is the cookie after it. */
export type EntryVisitor = (
  nid: number,
  fileType: number,
  bytes: Buffer,
  start: number,
  end: number,
  next: number,
) => boolean;

/** The nid of `name[start, end)`, or 0: a binary search over the blocks by their first names, then in one block. */
export function findEntry(image: ImageBytes, at: number, name: Uint8Array, start: number, end: number): number {
  const size = image.sizeOf(at, image.bytes.length);
  let low = 0;
  let high = Math.ceil(size / BLOCK) - 1;
  let block = -1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const base = image.block(at, size, middle);
    const length = Math.min(BLOCK, size - middle * BLOCK);
    const order = compare(image, name, start, end, base, length, entryCount(image, base, length), 0);
    if (order === 0) return getU64(image.view, base + dirent.nid);
    if (order < 0) {
      high = middle - 1;
    } else {
      block = middle;
      low = middle + 1;
    }
  }
  if (block < 0) return 0;
  return findInBlock(image, image.block(at, size, block), Math.min(BLOCK, size - block * BLOCK), name, start, end);
}

/** The first entry is known not to be it. */
function findInBlock(
  image: ImageBytes,
  base: number,
  length: number,
  name: Uint8Array,
  start: number,
  end: number,
): number {
  const count = entryCount(image, base, length);
  let low = 1;
  let high = count - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const order = compare(image, name, start, end, base, length, count, middle);
    if (order === 0) return getU64(image.view, base + DIRENT * middle + dirent.nid);
    if (order < 0) high = middle - 1;
    else low = middle + 1;
  }
  return 0;
}

/** Entries from `cookie` on, which is where the next dirent is in the directory's bytes, as in the kernel's EROFS. */
export function listEntries(image: ImageBytes, at: number, cookie: number, visit: EntryVisitor): void {
  const size = image.sizeOf(at, image.bytes.length);
  let block = Math.floor(cookie / BLOCK);
  let i = Math.ceil((cookie - block * BLOCK) / DIRENT);
  for (; block * BLOCK < size; block++, i = 0) {
    const base = image.block(at, size, block);
    const length = Math.min(BLOCK, size - block * BLOCK);
    const count = entryCount(image, base, length);
    for (; i < count; i++) {
      const entry = base + DIRENT * i;
      const start = nameStart(image, base, length, count, i);
      const end = nameEnd(image, base, length, count, i, start);
      const type = modeTypes[image.bytes[entry + dirent.fileType]!] ?? 0;
      const next = i + 1 < count ? block * BLOCK + DIRENT * (i + 1) : (block + 1) * BLOCK;
      if (!visit(getU64(image.view, entry + dirent.nid), type, image.bytes, start, end, next)) return;
    }
  }
}

/** Entries of the block at `base`: the first name follows the last dirent. */
function entryCount(image: ImageBytes, base: number, length: number): number {
  const first = length < DIRENT ? 0 : image.view.getUint16(base + dirent.nameOffset, true);
  if (first === 0 || first >= length || first % DIRENT !== 0) throw damaged(base);
  return first / DIRENT;
}

function nameStart(image: ImageBytes, base: number, length: number, count: number, i: number): number {
  const offset = image.view.getUint16(base + DIRENT * i + dirent.nameOffset, true);
  if (offset < DIRENT * count || offset >= length) throw damaged(base);
  return base + offset;
}

/** A name ends where the next one starts, the last of a block at its NUL or at the block's end. */
function nameEnd(image: ImageBytes, base: number, length: number, count: number, i: number, start: number): number {
  let end = start;
  if (i + 1 < count) end = nameStart(image, base, length, count, i + 1);
  else while (end < base + length && image.bytes[end] !== 0) end++;
  if (end <= start || end - start > NAME_MAX) throw damaged(base);
  return end;
}

/** Negative, 0 or positive: `name[from, to)` is before, equal to or after the name of entry `i`. */
function compare(
  image: ImageBytes,
  name: Uint8Array,
  from: number,
  to: number,
  base: number,
  length: number,
  count: number,
  i: number,
): number {
  const { bytes } = image;
  const start = nameStart(image, base, length, count, i);
  const end = nameEnd(image, base, length, count, i, start);
  const common = Math.min(to - from, end - start);
  for (let k = 0; k < common; k++) {
    const difference = name[from + k]! - bytes[start + k]!;
    if (difference !== 0) return difference;
  }
  return to - from - (end - start);
}

function damaged(base: number): Error {
  return erofsInvalid(`a damaged directory block at byte ${base}`);
}
