/**
 * Making files with all that Node's fs cannot give them: device nodes, times to the nanosecond, extended attributes. Paths
 * are bytes, since names need not be UTF-8; nothing follows a symlink at the end of a path, unless the path is a
 * /proc/self/fd link of the caller's own.
 */
import { LaminaError } from '../errors.js';
import { koffi } from './koffi.js';
import { bindLibrary } from './library.js';
import { SysError } from './libc.js';

interface FileCalls {
  readonly mknodat: (number: number, dir: number, path: Uint8Array, mode: number, device: number) => number;
  readonly utimensat: (dir: number, path: Uint8Array, times: Uint8Array, flags: number) => number;
  readonly setxattr: (path: Uint8Array, name: Uint8Array, value: Uint8Array, size: number, flags: number) => number;
  readonly lsetxattr: (path: Uint8Array, name: Uint8Array, value: Uint8Array, size: number, flags: number) => number;
}

let loaded: FileCalls | undefined;

function calls(): FileCalls {
  loaded ??= bindLibrary('libc.so.6', 'libc6', (library) => ({
    // glibc has mknodat(3) as a function only since 2.33.
    mknodat: library.func(
      'long syscall(long number, int dir, const void *path, unsigned int mode, unsigned int device)',
    ),
    utimensat: library.func('int utimensat(int dir, const void *path, const void *times, int flags)'),
    setxattr: library.func(
      'int setxattr(const void *path, const void *name, const void *value, size_t size, int flags)',
    ),
    lsetxattr: library.func(
      'int lsetxattr(const void *path, const void *name, const void *value, size_t size, int flags)',
    ),
  }));
  return loaded;
}

/** mknodat(2): asm/unistd_64.h, and the table that newer architectures share. */
const SYS_MKNODAT: Readonly<Partial<Record<string, number>>> = { x64: 259, arm64: 33, riscv64: 33, loong64: 33 };
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;

/** Makes a device, fifo or socket. `mode` has the type; `device` is in Linux' encoding. Throws {@link SysError}. */
export function mknod(path: Uint8Array, mode: number, device: number): void {
  const number = SYS_MKNODAT[process.arch];
  if (number === undefined)
    throw new LaminaError('NATIVE_UNAVAILABLE', `No mknod for the architecture ${process.arch}`);
  check('mknodat', calls().mknodat(number, AT_FDCWD, cString(path), mode, device));
}

/** Sets access and modification time. Throws {@link SysError}. */
export function setTimes(path: Uint8Array, seconds: number, nsec: number, { follow = false } = {}): void {
  const times = Buffer.alloc(32);
  for (const at of [0, 16]) {
    times.writeBigInt64LE(BigInt(seconds), at);
    times.writeBigInt64LE(BigInt(nsec), at + 8);
  }
  check('utimensat', calls().utimensat(AT_FDCWD, cString(path), times, follow ? 0 : AT_SYMLINK_NOFOLLOW));
}

/** `name` is a full name in latin1. Throws {@link SysError}. */
export function setXattr(path: Uint8Array, name: string, value: Uint8Array, { follow = false } = {}): void {
  const set = follow ? calls().setxattr : calls().lsetxattr;
  check('setxattr', set(cString(path), cString(Buffer.from(name, 'latin1')), value, value.length, 0), name);
}

function check(syscall: string, result: number, about?: string): void {
  if (result < 0) throw new SysError(syscall, koffi().errno(), about);
}

function cString(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(1)]);
}

/** Flag of open(2) that Node has no name for: a handle on what is there, which may be no file one can open. */
export const O_PATH = 0o10000000;
