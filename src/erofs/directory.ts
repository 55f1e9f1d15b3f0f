/**
 * Directory data as the writer packs it: blocks of 512 bytes, each with its dirents (u64 nid, u16 name offset, u8 type,
 * u8 0) and then their names. Every block but the last is padded with NULs. Names are ascending over all blocks, "." and
 * ".." among them, so that the kernel can search blocks by their first name (fs/erofs/namei.c).
 */
import { BLOCK, DIRENT, dirent, setU64 } from './layout.js';

/** The index after the last of `names[from, to)` that fits into one block with those before it. */
function blockEnd(names: readonly string[], from: number, to: number): number {
  let used = 0;
  let i = from;
  for (; i < to; i++) {
    used += DIRENT + names[i]!.length;
    if (used > BLOCK) break;
  }
  return i;
}

/** Bytes of the data of a directory with `names[from, to)`. */
export function directorySize(names: readonly string[], from: number, to: number): number {
  let size = 0;
  let used = 0;
  for (let i = from; i < to; i++) {
    const cost = DIRENT + names[i]!.length;
    if (used + cost > BLOCK) {
      size += BLOCK;
      used = 0;
    }
    used += cost;
  }
  return size + used;
}

/** Where to write one block of a directory. */
export interface BlockPlace {
  readonly bytes: Buffer;
  readonly view: DataView;
  readonly at: number;
}

/** Writes `names[from, to)` block by block into zeroed bytes; `entry` gives nid and EROFS file type of a name's index. */
export function writeDirectory(
  names: readonly string[],
  from: number,
  to: number,
  nid: (index: number) => number,
  fileType: (index: number) => number,
  place: (block: number) => BlockPlace,
): void {
  let block = 0;
  for (let start = from; start < to; block++) {
    const end = blockEnd(names, start, to);
    const { bytes, view, at } = place(block);
    let name = DIRENT * (end - start);
    for (let i = start; i < end; i++) {
      const entry = at + DIRENT * (i - start);
      const text = names[i]!;
      setU64(view, entry + dirent.nid, nid(i));
      view.setUint16(entry + dirent.nameOffset, name, true);
      bytes[entry + dirent.fileType] = fileType(i);
      for (let k = 0; k < text.length; k++) bytes[at + name + k] = text.charCodeAt(k);
      name += text.length;
    }
    start = end;
  }
}
