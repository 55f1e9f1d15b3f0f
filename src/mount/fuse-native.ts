/**
 * The package fuse-native: libfuse 2.9 bound to Node, the other transport. It is optional, and needs libfuse.so.2. It runs
 * on the main thread's event loop only, mounts by itself, and gives nothing of the connection away.
 */
import { constants } from 'node:os';
import { createRequire } from 'node:module';
import { LaminaError } from '../errors.js';
import { MAX_READ } from '../fuse/wire.js';
import type { FuseMount } from './fuse-mount.js';
import type { PathOperations } from './path-operations.js';

type Signal = (result: number, buffer: ArrayBufferLike) => void;

interface Mounted {
  mount(done: (error: unknown) => void): void;
}

type FuseClass = new (
  mountpoint: string,
  operations: PathOperations,
  options: Readonly<Record<string, unknown>>,
) => Mounted & { readonly ops: PathOperations };

const { ERANGE } = constants.errno;
/** Bytes that fuse_native_mount has for the mountpoint, and for the options. */
const TEXT_MAX = 1024;
/** Seconds: the tree never changes. */
const FOREVER = 2 ** 31 - 1;

/** Throws TRANSPORT_UNAVAILABLE. */
export function loadFuseNative(): FuseClass {
  try {
    return createRequire(import.meta.url)('fuse-native') as FuseClass;
  } catch (e) {
    const why = (e instanceof Error ? e.message : String(e)).split('\n')[0] ?? '';
    throw new LaminaError('TRANSPORT_UNAVAILABLE', `Cannot load fuse-native: ${why}`, {
      cause: e,
      hint: 'It needs libfuse.so.2 (Debian and Ubuntu: apt-get install libfuse2) on x86-64; the default, --transport dev-fuse, needs neither.',
    });
  }
}

/** Mounts and serves until it is unmounted; resolves when it is mounted. Throws TRANSPORT_UNAVAILABLE, MOUNT_FAILED. */
export async function mountByFuseNative(operations: PathOperations, mount: FuseMount): Promise<void> {
  const { target, source, subtype, allowOther, flags = [] } = mount;
  // The package knows few options; the others go along with the last that it takes as text.
  const more = [
    'ro',
    'use_ino',
    `negative_timeout=${FOREVER}`,
    flags.includes('nosuid') ? 'nosuid' : 'suid',
    flags.includes('nodev') ? 'nodev' : 'dev',
    ...(flags.includes('noexec') ? ['noexec'] : []),
  ];
  const options = {
    allowOther,
    defaultPermissions: true,
    kernelCache: true,
    maxRead: MAX_READ,
    entryTimeout: FOREVER,
    attrTimeout: FOREVER,
    // A backslash takes its meaning from a comma (libfuse, fuse_opt.c).
    fsname: source.replace(/[\\,]/g, '\\$&'),
    subtype: [subtype, ...more].join(','),
    timeout: false,
  };
  const length = Buffer.byteLength(JSON.stringify(options));
  if (Buffer.byteLength(target) >= TEXT_MAX || length >= TEXT_MAX) {
    throw new LaminaError('MOUNT_FAILED', `Cannot mount on ${target}: fuse-native takes no names as long as these`);
  }
  const Fuse = withSizes(loadFuseNative());
  try {
    await new Promise<void>((resolve, reject) => {
      new Fuse(target, operations, options).mount((e) => {
        if (e === null || e === undefined) resolve();
        else reject(e instanceof Error ? e : new Error(JSON.stringify(e)));
      });
    });
  } catch (e) {
    throw new LaminaError('MOUNT_FAILED', `Cannot mount on ${target}: ${(e as Error).message}`, { cause: e });
  }
}

/**
 * The package's own answers for attributes do not look at how much room there is, and let libfuse read beyond it; and
 * they ask for more room than a list needs.
 */
function withSizes(Fuse: FuseClass): FuseClass {
  return class extends Fuse {
    _op_getxattr(signal: Signal, path: string, name: string, into: Buffer): void {
      this.ops.getxattr?.(path, name, 0, (errno, value) => {
        if (errno < 0 || value === undefined) signal(errno, into.buffer);
        else signal(fill(into, value), into.buffer);
      });
    }

    _op_listxattr(signal: Signal, path: string, into: Buffer): void {
      this.ops.listxattr?.(path, (errno, names) => {
        if (errno < 0 || names === undefined) signal(errno, into.buffer);
        else signal(fill(into, Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1')), into.buffer);
      });
    }
  };
}

/** The length of a value that was copied, or would be where there is no room at all; a negative errno where it is too long. */
function fill(into: Buffer, value: Buffer): number {
  if (into.length === 0) return value.length;
  if (value.length > into.length) return -ERANGE;
  value.copy(into);
  return value.length;
}
