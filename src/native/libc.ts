/**
 * System calls that Node does not have, through koffi. Every wrapper throws {@link SysError} with the errno's name, as
 * Node's own fs functions do; those of the serve loop return -errno instead and allocate nothing.
 *
 * ABI notes, with the structures' layouts, stand in native-notes/BINDINGS.md.
 */
import { constants } from 'node:os';
import { LaminaError } from '../errors.js';
import { koffi } from './koffi.js';

type Pointer = bigint;
export type Native = (...args: unknown[]) => unknown;

interface Libc {
  readonly mount: Native;
  readonly umount2: Native;
  readonly read: (fd: number, buffer: Uint8Array, length: number) => number;
  readonly write: (fd: number, buffer: Uint8Array, length: number) => number;
  readonly epollCreate1: (flags: number) => number;
  readonly epollCtl: (epoll: number, op: number, fd: number, event: Uint8Array | null) => number;
  readonly epollWait: (epoll: number, events: Uint8Array, max: number, timeout: number) => number;
  readonly eventfd: (initial: number, flags: number) => number;
  readonly fcntl: (fd: number, command: number, argument: number) => number;
  readonly mmap: (addr: null, length: number, prot: number, flags: number, fd: number, offset: number) => Pointer;
  readonly munmap: (addr: Pointer, length: number) => number;
  readonly socketpair: (domain: number, type: number, protocol: number, fds: Uint8Array) => number;
  readonly sendmsg: (fd: number, header: Uint8Array, flags: number) => number;
  readonly recvmsg: (fd: number, header: Uint8Array, flags: number) => number;
  readonly flock: (fd: number, operation: number) => number;
  readonly fsopen: Native;
  readonly fsconfig: Native;
  readonly fsmount: Native;
  readonly moveMount: Native;
  readonly mountSetattr: (
    number: number,
    fd: number,
    path: string,
    flags: number,
    attributes: Uint8Array,
    size: number,
  ) => number;
}

let loaded: Libc | undefined;

/** For src/native only. Throws NATIVE_UNAVAILABLE. */
export function libc(): Libc {
  if (loaded !== undefined) return loaded;
  const { load } = koffi();
  try {
    const lib = load(null);
    loaded = {
      mount: lib.func(
        'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
      ) as Native,
      umount2: lib.func('int umount2(const char *target, int flags)') as Native,
      read: lib.func('int64_t read(int fd, void *buffer, size_t length)'),
      write: lib.func('int64_t write(int fd, void *buffer, size_t length)'),
      epollCreate1: lib.func('int epoll_create1(int flags)'),
      epollCtl: lib.func('int epoll_ctl(int epfd, int op, int fd, void *event)'),
      epollWait: lib.func('int epoll_wait(int epfd, void *events, int maxevents, int timeout)'),
      eventfd: lib.func('int eventfd(unsigned int initval, int flags)'),
      fcntl: lib.func('int fcntl(int fd, int cmd, long arg)'),
      mmap: lib.func('void *mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)'),
      munmap: lib.func('int munmap(void *addr, size_t length)'),
      socketpair: lib.func('int socketpair(int domain, int type, int protocol, void *sv)'),
      sendmsg: lib.func('int64_t sendmsg(int fd, void *msg, int flags)'),
      recvmsg: lib.func('int64_t recvmsg(int fd, void *msg, int flags)'),
      flock: lib.func('int flock(int fd, int operation)'),
      // syscall(2) by the arguments of one call each: koffi has no asynchronous calls of variadic functions.
      fsopen: lib.func('long syscall(long number, const char *type, unsigned int flags)') as Native,
      fsconfig: lib.func(
        'long syscall(long number, int fd, unsigned int command, const char *key, const char *value, int aux)',
      ) as Native,
      fsmount: lib.func('long syscall(long number, int fd, unsigned int flags, unsigned int attributes)') as Native,
      moveMount: lib.func(
        'long syscall(long number, int from, const char *fromPath, int to, const char *toPath, unsigned int flags)',
      ) as Native,
      mountSetattr: lib.func(
        'long syscall(long number, int fd, const char *path, unsigned int flags, void *attributes, size_t size)',
      ),
    };
    return loaded;
  } catch (e) {
    throw new LaminaError('NATIVE_UNAVAILABLE', `Cannot load the C library through koffi: ${String(e)}`, {
      cause: e,
      hint: 'Lamina runs on Linux with glibc or musl; `lamina doctor` says more.',
    });
  }
}

const errnoNames = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]));

/** A failed system call, in the shape of Node's own: `code` is the errno's name. */
export class SysError extends Error {
  override readonly name = 'SysError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  constructor(syscall: string, errno: number, about = '') {
    const code = errnoNames.get(errno) ?? `errno ${errno}`;
    super(`${syscall}: ${code}${about === '' ? '' : ` (${about})`}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** For src/native only: the result of a call that gives -1 where it fails. Throws {@link SysError}. */
export function check(syscall: string, result: unknown, about?: string): number {
  if (typeof result === 'number' && result >= 0) return result;
  throw new SysError(syscall, koffi().errno(), about);
}

/** A read-only shared mapping of a whole file. The bytes must not be used after `close`. */
export interface Mapping {
  readonly bytes: Buffer;
  close(): void;
}

const PROT_READ = 1;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffffffffffffffffn;

/** `length` bytes of `fd` from its start. An empty mapping needs no system call (mmap(2) refuses length 0). */
export function mmapReadOnly(fd: number, length: number): Mapping {
  if (length === 0) return { bytes: Buffer.alloc(0), close: () => undefined };
  const address = libc().mmap(null, length, PROT_READ, MAP_SHARED, fd, 0);
  if (address === MAP_FAILED) throw new SysError('mmap', koffi().errno());
  let open = true;
  return {
    bytes: Buffer.from(koffi().view(address, length)),
    close() {
      if (open) libc().munmap(address, length);
      open = false;
    },
  };
}

const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const O_RDWR = 2;

/** Makes reads of an open file description fail with EAGAIN rather than wait, for every process that shares it. */
export function setNonBlocking(fd: number): void {
  check('fcntl', libc().fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK));
}

/** read(2) into the whole buffer: bytes read, or -errno. */
export function readRaw(fd: number, buffer: Uint8Array): number {
  const n = libc().read(fd, buffer, buffer.length);
  return n >= 0 ? n : -koffi().errno();
}

/** write(2) of the first `length` bytes: bytes written, or -errno. */
export function writeRaw(fd: number, buffer: Uint8Array, length: number): number {
  const n = libc().write(fd, buffer, length);
  return n >= 0 ? n : -koffi().errno();
}

export const errno = {
  EINTR: constants.errno.EINTR,
  EAGAIN: constants.errno.EAGAIN,
  ENOENT: constants.errno.ENOENT,
  ENODEV: constants.errno.ENODEV,
  EINVAL: constants.errno.EINVAL,
  ECONNABORTED: constants.errno.ECONNABORTED,
} as const;

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL = { add: 1, del: 2, mod: 3 } as const;
const EPOLLIN = 1;
const EPOLLET = 1 << 31;
// struct epoll_event is packed on x86-64 only (sys/epoll.h): u32 events, then u64 data at 4 or at 8.
const EPOLL_DATA_AT = process.arch === 'x64' ? 4 : 8;
const EPOLL_EVENT_SIZE = EPOLL_DATA_AT + 8;

/** An epoll instance that any number of threads may wait on; each readiness wakes one of them. */
export function epollCreate(): number {
  return check('epoll_create1', libc().epollCreate1(EPOLL_CLOEXEC));
}

/** `data` comes back from {@link EpollWaiter.wait}; 0 to 2^32 - 1. Level-triggered: every waiter; edge: one a change. */
export function epollAdd(epoll: number, fd: number, data: number, trigger: 'level' | 'edge'): void {
  check('epoll_ctl', libc().epollCtl(epoll, EPOLL_CTL.add, fd, epollEvent(data, trigger)));
}

/** Makes an edge-triggered descriptor that is ready an event again, behind those that wait. None where it was removed. */
export function epollRearm(epoll: number, fd: number, data: number): void {
  libc().epollCtl(epoll, EPOLL_CTL.mod, fd, epollEvent(data, 'edge'));
}

function epollEvent(data: number, trigger: 'level' | 'edge'): Buffer {
  const event = Buffer.alloc(EPOLL_EVENT_SIZE);
  event.writeInt32LE(EPOLLIN | (trigger === 'edge' ? EPOLLET : 0), 0);
  event.writeUInt32LE(data, EPOLL_DATA_AT);
  return event;
}

export function epollRemove(epoll: number, fd: number): void {
  libc().epollCtl(epoll, EPOLL_CTL.del, fd, null);
}

/** One thread's waiting on an epoll instance, without garbage. */
export class EpollWaiter {
  readonly #epoll: number;
  readonly #event = Buffer.alloc(EPOLL_EVENT_SIZE);
  readonly #wait = libc().epollWait;

  constructor(epoll: number) {
    this.#epoll = epoll;
  }

  /** The `data` of one ready descriptor, or -1 when the wait was interrupted or took that long. */
  wait(milliseconds: number): number {
    const n = this.#wait(this.#epoll, this.#event, 1, milliseconds);
    return n === 1 ? this.#event.readUInt32LE(EPOLL_DATA_AT) : -1;
  }
}

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

/** An event that is signalled once, by {@link signal}, and stays so. */
export function eventfd(): number {
  return check('eventfd', libc().eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

export function signal(eventFd: number): void {
  const one = Buffer.alloc(8);
  one.writeUInt8(1);
  writeRaw(eventFd, one, 8);
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;

export function socketpair(): [number, number] {
  const fds = Buffer.alloc(8);
  check('socketpair', libc().socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  return [fds.readInt32LE(0), fds.readInt32LE(4)];
}

// struct msghdr on 64-bit Linux: name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48; 56 bytes.
// One control message: size_t length, int level, int type, then the descriptor; CMSG_SPACE(4) = 24, CMSG_LEN(4) = 20.
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

function message(byte: Buffer, control: Buffer): { header: Buffer; keep: Buffer } {
  const iov = Buffer.alloc(16);
  iov.writeBigUInt64LE(koffi().address(byte), 0);
  iov.writeBigUInt64LE(1n, 8);
  const header = Buffer.alloc(56);
  header.writeBigUInt64LE(koffi().address(iov), 16);
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(koffi().address(control), 32);
  header.writeBigUInt64LE(BigInt(control.length), 40);
  return { header, keep: iov };
}

/** Sends one descriptor with one byte of data (unix(7), SCM_RIGHTS). */
export function sendFd(socket: number, fd: number): void {
  const byte = Buffer.alloc(1);
  const control = Buffer.alloc(24);
  control.writeBigUInt64LE(20n, 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(fd, 16);
  const { header, keep } = message(byte, control);
  check('sendmsg', libc().sendmsg(socket, header, MSG_NOSIGNAL));
  keepAlive(keep, byte, control);
}

/** Receives one descriptor sent by {@link sendFd}; waits for it on a blocking socket. */
export function receiveFd(socket: number): number {
  const byte = Buffer.alloc(1);
  const control = Buffer.alloc(24);
  const { header, keep } = message(byte, control);
  const n = check('recvmsg', libc().recvmsg(socket, header, MSG_CMSG_CLOEXEC));
  keepAlive(keep, byte, control);
  if (n !== 1 || control.readInt32LE(12) !== SCM_RIGHTS) throw new SysError('recvmsg', constants.errno.EBADMSG);
  return control.readInt32LE(16);
}

/** Buffers whose addresses the kernel was given must not be collected before the call returns. */
function keepAlive(...buffers: Buffer[]): void {
  for (const b of buffers) b.readUInt8(0);
}

const LOCK_EX = 2;
const LOCK_NB = 4;

/** An exclusive lock that goes with the descriptor (flock(2)); false when somebody else has it. */
export function tryLock(fd: number): boolean {
  return libc().flock(fd, LOCK_EX | LOCK_NB) === 0;
}
