/**
 * Extended attributes of what a path names, symlinks not followed (llistxattr(2), lgetxattr(2)). Paths are bytes, since
 * names need not be UTF-8; attribute names are latin1 strings of their bytes.
 */
import { constants } from 'node:os';
import { koffi } from './koffi.js';
import { bindLibrary } from './library.js';
import { SysError } from './libc.js';

interface XattrCalls {
  readonly list: (path: Uint8Array, into: Uint8Array | null, size: number) => number;
  readonly get: (path: Uint8Array, name: Uint8Array, into: Uint8Array | null, size: number) => number;
}

let loaded: XattrCalls | undefined;

function calls(): XattrCalls {
  loaded ??= bindLibrary('libc.so.6', 'libc6', (library) => ({
    list: library.func('int64_t llistxattr(const void *path, void *list, size_t size)'),
    get: library.func('int64_t lgetxattr(const void *path, const void *name, void *value, size_t size)'),
  }));
  return loaded;
}

const { ENODATA, ENOTSUP, ERANGE } = constants.errno;

/** The names in bytewise order; none where the file system has no attributes. Throws {@link SysError}. */
export function listXattrs(path: Uint8Array): string[] {
  const at = cString(path);
  const bytes = sized('llistxattr', (into, size) => calls().list(at, into, size));
  if (bytes === undefined) return [];
  return bytes
    .toString('latin1')
    .split('\0')
    .filter((name) => name !== '')
    .sort();
}

/** Undefined: no such attribute. Throws {@link SysError}. */
export function getXattr(path: Uint8Array, name: string): Buffer | undefined {
  const at = cString(path);
  const named = cString(Buffer.from(name, 'latin1'));
  return sized('lgetxattr', (into, size) => calls().get(at, named, into, size));
}

/** Asks for the size, then for the bytes; again when they grew in between. */
function sized(syscall: string, call: (into: Uint8Array | null, size: number) => number): Buffer | undefined {
  for (;;) {
    const size = call(null, 0);
    if (size === 0) return Buffer.alloc(0);
    const into = Buffer.alloc(Math.max(size, 0));
    const n = size < 0 ? size : call(into, size);
    if (n >= 0) return into.subarray(0, n);
    const errno = koffi().errno();
    if (errno === ENODATA || errno === ENOTSUP) return undefined;
    if (errno !== ERANGE) throw new SysError(syscall, errno);
  }
}

function cString(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(1)]);
}
