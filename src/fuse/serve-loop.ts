/**
 * The loop of a serve worker: wait for any connection, read its requests until there are none, answer each. It never
 * waits for anything else: a read that misses is handed on. Several workers run this loop over one epoll instance.
 *
 * Connections are edge-triggered and read until EAGAIN, so that a request wakes one worker and not all. One that is never
 * empty is put behind the others after some requests. The stop event is level-triggered and never drained, so that it
 * reaches every worker.
 */
import { constants } from 'node:os';
import { EpollWaiter, epollRearm, errno, readRaw, writeRaw } from '../native/libc.js';
import { DEFERRED, REPLY_SIZE, type Session } from './session.js';
import { OUT_HEADER, notify } from './wire.js';

const { EIO } = constants.errno;

/** The epoll datum of the stop event; connections have theirs from 1 on. */
export const STOP = 0;

/** Room for the largest request: a name of 255 bytes, or a BATCH_FORGET; the kernel wants at least 8 KiB. */
export const REQUEST_SIZE = 64 * 1024;

/** How soon a worker without requests takes in what it was told. */
const PAUSE_MS = 1000;
/** Requests of one connection in a row. */
const TURN = 256;

export interface Connection {
  /** The epoll datum. */
  readonly id: number;
  readonly fd: number;
  readonly session: Session;
}

export interface ServeOptions {
  readonly epoll: number;
  /** The connection of an epoll datum; undefined when it was removed meanwhile. */
  readonly connection: (id: number) => Connection | undefined;
  /** Takes over a request that has to wait; the bytes are the callee's to copy. */
  readonly defer: (connection: Connection, request: Buffer) => void;
  /** Called after each wait, between requests: the time to take in what the worker was told. */
  readonly between: () => void;
  /** The kernel has ended the connection: the file system was unmounted everywhere, or aborted. */
  readonly gone: (connection: Connection) => void;
}

/** Returns when the stop event is signalled. */
export function serve(options: ServeOptions): void {
  const waiter = new EpollWaiter(options.epoll);
  const request = Buffer.alloc(REQUEST_SIZE);
  const reply = Buffer.alloc(REPLY_SIZE);
  for (;;) {
    const id = waiter.wait(PAUSE_MS);
    options.between();
    if (id === STOP) return;
    const connection = id > 0 ? options.connection(id) : undefined;
    if (connection !== undefined) drain(connection, request, reply, options);
  }
}

function drain(connection: Connection, request: Buffer, reply: Buffer, options: ServeOptions): void {
  const { fd, session } = connection;
  for (let turn = 0; turn < TURN; turn++) {
    const n = readRaw(fd, request);
    if (n > 0) {
      const length = session.handle(request, n, reply);
      if (length > 0) sendReply(fd, reply, length);
      else if (length === DEFERRED) options.defer(connection, request.subarray(0, n));
      continue;
    }
    // ENOENT: the request was interrupted before it was read, or (on write) before it was answered (fs/fuse/dev.c).
    if (n === -errno.EINTR || n === -errno.ENOENT) continue;
    if (n !== -errno.EAGAIN) options.gone(connection);
    return;
  }
  epollRearm(options.epoll, fd, connection.id);
}

/**
 * Writes one reply. A reader must never be left waiting: a reply that the kernel refuses becomes EIO. ENOENT says that
 * nobody waits any more.
 */
export function sendReply(fd: number, reply: Buffer, length: number): void {
  const written = writeRaw(fd, reply, length);
  if (written >= 0 || written === -errno.ENOENT || length === OUT_HEADER) return;
  reply.writeUInt32LE(OUT_HEADER, 0);
  reply.writeInt32LE(-EIO, 4);
  writeRaw(fd, reply, OUT_HEADER);
}

/**
 * Asks the kernel to give again every request that was read and not answered (Linux >= 6.9): what a dead server took
 * with it. False where the kernel cannot.
 */
export function resend(fd: number): boolean {
  const message = Buffer.alloc(OUT_HEADER);
  message.writeUInt32LE(OUT_HEADER, 0);
  message.writeInt32LE(notify.RESEND, 4);
  return writeRaw(fd, message, OUT_HEADER) === OUT_HEADER;
}
