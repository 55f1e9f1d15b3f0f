/**
 * An inode's xattrs as the writer lays them out: a header of 12 bytes, then per xattr u8 name length, u8 namespace, u16
 * value length, name, value, padded to 4. Sorted by full name, so that the same tree gives the same bytes.
 */
import { LaminaError } from '../errors.js';
import type { Inode } from './tree.js';
import {
  ACL_ACCESS,
  ACL_DEFAULT,
  NAME_MAX,
  XATTR_ENTRY,
  XATTR_HEADER,
  XATTR_VALUE_MAX,
  roundUp,
  xattrIndex,
  xattrPrefix,
} from './layout.js';

/** i_xattr_icount is 16 bits wide and counts words after the header. */
const AREA_MAX = XATTR_HEADER + 4 * (0xffff - 1);

/** Bytes of the area, 0 where there are no xattrs. `about` names the inode. Throws METADATA_INVALID, LIMIT_EXCEEDED. */
export function xattrAreaSize(xattrs: Inode['xattrs'], about: () => string): number {
  if (xattrs === undefined || xattrs.size === 0) return 0;
  let size = XATTR_HEADER;
  for (const [name, value] of xattrs) {
    const length = name.length - prefixLength(name, about);
    if (length > NAME_MAX || value.length > XATTR_VALUE_MAX) {
      const what =
        length > NAME_MAX
          ? `a name of ${length} bytes (at most ${NAME_MAX})`
          : `${value.length} bytes (at most ${XATTR_VALUE_MAX})`;
      throw new LaminaError('LIMIT_EXCEEDED', `Cannot store the xattr ${quote(name)} of ${about()}: it has ${what}`);
    }
    size += roundUp(XATTR_ENTRY + length + value.length, 4);
  }
  if (size > AREA_MAX) {
    throw new LaminaError(
      'LIMIT_EXCEEDED',
      `Cannot store the xattrs of ${about()}: ${size} bytes together (at most ${AREA_MAX})`,
    );
  }
  return size;
}

function prefixLength(name: string, about: () => string): number {
  const prefix = xattrPrefix(xattrIndex(name));
  if (prefix === undefined || /[\0\u0100-\uffff]/.test(name)) {
    throw new LaminaError(
      'METADATA_INVALID',
      `Cannot store the xattr ${quote(name)} of ${about()}: EROFS has no such name`,
    );
  }
  return prefix.length;
}

/** i_xattr_icount of an area of `size` bytes. */
export function xattrCount(size: number): number {
  return size === 0 ? 0 : (size - XATTR_HEADER) / 4 + 1;
}

export function isAcl(name: string): boolean {
  const index = xattrIndex(name);
  return index === ACL_ACCESS || index === ACL_DEFAULT;
}

/** Writes the area at `at` into zeroed bytes. The header stays zero: no name filter, no shared xattrs. */
export function writeXattrArea(xattrs: ReadonlyMap<string, Buffer>, into: Buffer, at: number): void {
  let to = at + XATTR_HEADER;
  for (const name of [...xattrs.keys()].sort()) {
    const value = xattrs.get(name)!;
    const index = xattrIndex(name);
    const suffix = name.slice(xattrPrefix(index)!.length);
    into[to] = suffix.length;
    into[to + 1] = index;
    into.writeUInt16LE(value.length, to + 2);
    into.write(suffix, to + XATTR_ENTRY, 'latin1');
    into.set(value, to + XATTR_ENTRY + suffix.length);
    to += roundUp(XATTR_ENTRY + suffix.length + value.length, 4);
  }
}

function quote(name: string): string {
  return JSON.stringify(name.slice(0, 300));
}
