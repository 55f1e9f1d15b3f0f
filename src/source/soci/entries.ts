/** The entries of a ztoc as those of the tar that it describes. */
import type { TarEntry } from '../../tar/entry.js';
import type { ZtocFile } from './ztoc.js';

const XATTR = 'SCHILY.xattr.';

/** What the tar reader would report. `order` counts from 1. */
export function tarEntryOf(file: ZtocFile, order: number): TarEntry {
  const { type, name, linkName, mode, uid, gid, mtime, mtimeNsec, devMajor, devMinor, offset, records } = file;
  const size = type === 'file' ? file.size : 0;
  const isDevice = type === 'char' || type === 'block';
  return {
    type,
    name,
    linkName: type === 'hardlink' || type === 'symlink' ? linkName : '',
    mode: mode & 0o7777,
    uid,
    gid,
    mtime,
    mtimeNsec,
    size,
    devMajor: isDevice ? devMajor : 0,
    devMinor: isDevice ? devMinor : 0,
    xattrs: records.size === 0 ? NO_XATTRS : xattrsOf(records),
    data: size === 0 ? [] : [{ offset: 0, length: size, position: offset }],
    order,
  };
}

/** Of most entries. */
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

function xattrsOf(records: ZtocFile['records']): ReadonlyMap<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (const [key, value] of records) {
    if (key.startsWith(XATTR)) xattrs.set(key.slice(XATTR.length), Buffer.from(value, 'latin1'));
  }
  return xattrs;
}
