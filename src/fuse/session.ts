/**
 * One FUSE connection: request bytes in, reply bytes out. It does not know where the bytes come from, so it is tested
 * without a mount; `serve-loop.ts` feeds it from /dev/fuse.
 *
 * What makes the kernel ask so seldom:
 * - entries, attributes and negative lookups are valid for ever: the tree never changes;
 * - OPEN and OPENDIR are answered ENOSYS once, after which opens stay in the kernel and keep its page cache
 *   (fuse_file_open, fc->no_open); RELEASE and FLUSH then never come;
 * - readdirplus gives attributes with the names; symlinks and directory contents are cached;
 * - an image without xattrs answers ENOSYS to the first GETXATTR and is never asked again (fs/fuse/xattr.c, no_getxattr).
 *
 * A request on behalf of a dead server comes again with bit 63 of `unique` set (FUSE_UNIQUE_RESEND): `unique` is copied
 * as bytes, never interpreted.
 */
import { constants } from 'node:os';
import { MISS, emptyAttributes, type FileSystem } from './file-system.js';
import { errnoFor } from './errno.js';
import { negotiate, type InitLimits, type Negotiated } from './init.js';
import {
  ATTR_OUT_SIZE,
  ATTR_SIZE,
  BLOCK_SIZE,
  ENTRY_OUT_SIZE,
  FOREVER_SECONDS,
  IN_HEADER,
  MAX_READ,
  NAME_MAX,
  OUT_HEADER,
  getU64,
  mutating,
  opcode,
  openFlag,
  putU64,
} from './wire.js';

const { ENOENT, ENOSYS, EROFS, EINVAL, ERANGE, ENODATA, ENXIO, EIO } = constants.errno;

/** The reply buffer's size: a READ of the largest size behind its header. */
export const REPLY_SIZE = OUT_HEADER + MAX_READ;

/** {@link Session.handle}'s answers that are not a length. */
export const NO_REPLY = 0;
/** The request is a READ whose bytes are not at hand; {@link Session.handleWaiting} must answer it. */
export const DEFERRED = -1;

const DIRENT_SIZE = 24;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

export interface SessionOptions {
  /** What was agreed before this server started, where INIT has been answered by an earlier one. */
  readonly negotiated?: Negotiated | undefined;
  readonly onInit?: (negotiated: Negotiated) => void;
  /** Called for each request that fails for a reason other than an absent name, with the error. */
  readonly onError?: (operation: number, node: number, error: unknown) => void;
  readonly limits?: InitLimits;
}

export class Session {
  readonly #fs: FileSystem;
  readonly #options: SessionOptions;
  #negotiated: Negotiated | undefined;
  readonly #attr = emptyAttributes();
  // State of the directory listing under way, kept here so that the visitor is one shared closure.
  #reply: Buffer = Buffer.alloc(0);
  #at = 0;
  #limit = 0;

  constructor(fs: FileSystem, options: SessionOptions = {}) {
    this.#fs = fs;
    this.#options = options;
    this.#negotiated = options.negotiated;
  }

  /**
   * Answers the request in `request[0, length)` into `reply` (at least {@link REPLY_SIZE} bytes): the reply's length in
   * bytes, {@link NO_REPLY} or {@link DEFERRED}. Never throws.
   */
  handle(request: Buffer, length: number, reply: Buffer): number {
    return this.#answer(request, length, reply, false);
  }

  /** For a {@link DEFERRED} request: see {@link FileSystem.affinity}. */
  affinity(request: Buffer): number {
    return this.#fs.affinity(getU64(request, 16), getU64(request, IN_HEADER + 8));
  }

  /** The same as {@link handle}, but a READ waits for its bytes. */
  handleWaiting(request: Buffer, length: number, reply: Buffer): number {
    return this.#answer(request, length, reply, true);
  }

  #answer(request: Buffer, length: number, reply: Buffer, wait: boolean): number {
    if (length < IN_HEADER) return NO_REPLY;
    const operation = request.readUInt32LE(4);
    const node = getU64(request, 16);
    let result: number;
    try {
      result = this.#dispatch(operation, node, request, length, reply, wait);
    } catch (e) {
      result = -errnoFor(e);
      if (result !== -ENOENT) this.#options.onError?.(operation, node, e);
    }
    if (result === NO_REPLY || result === MISSING) return result === MISSING ? DEFERRED : NO_REPLY;
    const total = result < 0 ? OUT_HEADER : result;
    reply.writeUInt32LE(total, 0);
    reply.writeInt32LE(result < 0 ? result : 0, 4);
    reply.writeUInt32LE(request.readUInt32LE(8), 8);
    reply.writeUInt32LE(request.readUInt32LE(12), 12);
    return total;
  }

  /** Length of the whole reply, a negative errno, NO_REPLY or MISSING. */
  #dispatch(operation: number, node: number, request: Buffer, length: number, reply: Buffer, wait: boolean): number {
    switch (operation) {
      case opcode.LOOKUP:
        return this.#lookup(node, request, length, reply);
      case opcode.GETATTR:
        return this.#getattr(node, reply);
      case opcode.READ:
        return this.#read(node, request, length, reply, wait);
      case opcode.READDIR:
      case opcode.READDIRPLUS:
        return this.#readdir(node, request, length, reply, operation === opcode.READDIRPLUS);
      case opcode.READLINK: {
        const target = this.#fs.readlink(node);
        reply.set(target, OUT_HEADER);
        return OUT_HEADER + target.length;
      }
      case opcode.GETXATTR:
        return this.#getxattr(node, request, length, reply);
      case opcode.LISTXATTR:
        return this.#listxattr(node, request, length, reply);
      case opcode.OPEN:
        return this.#negotiated?.noOpen === true ? -ENOSYS : this.#opened(reply, openFlag.KEEP_CACHE);
      case opcode.OPENDIR:
        return this.#negotiated?.noOpendir === true
          ? -ENOSYS
          : this.#opened(reply, openFlag.KEEP_CACHE | openFlag.CACHE_DIR);
      case opcode.RELEASE:
      case opcode.RELEASEDIR:
        return OUT_HEADER;
      case opcode.LSEEK:
        return this.#lseek(node, request, length, reply);
      case opcode.STATFS:
        return this.#statfs(reply);
      case opcode.INIT:
        return this.#init(request, length, reply);
      case opcode.FORGET:
      case opcode.BATCH_FORGET:
      case opcode.INTERRUPT:
      case opcode.DESTROY:
        return NO_REPLY;
      default:
        return mutating.has(operation) ? -EROFS : -ENOSYS;
    }
  }

  #init(request: Buffer, length: number, reply: Buffer): number {
    if (length < IN_HEADER + 16) return -EINVAL;
    const result = negotiate(request.subarray(0, length), reply, this.#fs.capabilities, this.#options.limits);
    if (result.negotiated !== undefined) {
      this.#negotiated = result.negotiated;
      this.#options.onInit?.(result.negotiated);
    }
    return result.length;
  }

  #lookup(parent: number, request: Buffer, length: number, reply: Buffer): number {
    const end = nameEnd(request, IN_HEADER, length);
    if (end < 0) return -EINVAL;
    // Node id 0 with a validity is a cached "there is no such name" (fuse_lookup_name).
    const node = end - IN_HEADER > NAME_MAX ? 0 : this.#fs.lookup(parent, request, IN_HEADER, end);
    return this.#putEntry(node, reply, OUT_HEADER) ? OUT_HEADER + ENTRY_OUT_SIZE : -EIO;
  }

  /** fuse_entry_out: nodeid 0, generation 8, entry_valid 16, attr_valid 24, nsecs 32 and 36, attr 40. */
  #putEntry(node: number, reply: Buffer, at: number): boolean {
    reply.fill(0, at, at + ENTRY_OUT_SIZE);
    putU64(reply, node, at);
    putU64(reply, FOREVER_SECONDS, at + 16);
    if (node === 0) return true;
    putU64(reply, FOREVER_SECONDS, at + 24);
    return this.#putAttr(node, reply, at + 40);
  }

  /**
   * fuse_attr: ino 0, size 8, blocks 16, atime 24, mtime 32, ctime 40, their nsecs 48 52 56, mode 60, nlink 64, uid 68,
   * gid 72, rdev 76, blksize 80, flags 84.
   */
  #putAttr(node: number, reply: Buffer, at: number): boolean {
    const a = this.#attr;
    if (!this.#fs.getattr(node, a)) return false;
    putU64(reply, node, at);
    putU64(reply, a.size, at + 8);
    putU64(reply, a.blocks, at + 16);
    putU64(reply, a.mtime, at + 24);
    putU64(reply, a.mtime, at + 32);
    putU64(reply, a.mtime, at + 40);
    reply.writeUInt32LE(a.mtimeNsec, at + 48);
    reply.writeUInt32LE(a.mtimeNsec, at + 52);
    reply.writeUInt32LE(a.mtimeNsec, at + 56);
    reply.writeUInt32LE(a.mode, at + 60);
    reply.writeUInt32LE(a.nlink, at + 64);
    reply.writeUInt32LE(a.uid, at + 68);
    reply.writeUInt32LE(a.gid, at + 72);
    reply.writeUInt32LE(a.rdev, at + 76);
    reply.writeUInt32LE(BLOCK_SIZE, at + 80);
    reply.writeUInt32LE(0, at + 84);
    return true;
  }

  /** fuse_attr_out: attr_valid 0, nsec 8, dummy 12, attr 16. */
  #getattr(node: number, reply: Buffer): number {
    putU64(reply, FOREVER_SECONDS, OUT_HEADER);
    putU64(reply, 0, OUT_HEADER + 8);
    return this.#putAttr(node, reply, OUT_HEADER + ATTR_OUT_SIZE - ATTR_SIZE) ? OUT_HEADER + ATTR_OUT_SIZE : -ENOENT;
  }

  /** fuse_read_in: fh 0, offset 8, size 16, .. 40 bytes. A short reply would read as zeros: on failure it is an error. */
  #read(node: number, request: Buffer, length: number, reply: Buffer, wait: boolean): number {
    if (length < IN_HEADER + 24) return -EINVAL;
    const size = Math.min(request.readUInt32LE(IN_HEADER + 16), MAX_READ);
    const n = this.#fs.read(node, getU64(request, IN_HEADER + 8), size, reply, OUT_HEADER, wait);
    return n === MISS ? MISSING : OUT_HEADER + n;
  }

  #readdir(node: number, request: Buffer, length: number, reply: Buffer, plus: boolean): number {
    if (length < IN_HEADER + 24) return -EINVAL;
    const cookie = getU64(request, IN_HEADER + 8);
    this.#reply = reply;
    this.#at = OUT_HEADER;
    this.#limit = OUT_HEADER + Math.min(request.readUInt32LE(IN_HEADER + 16), MAX_READ);
    this.#fs.readdir(node, cookie, plus ? this.#visitPlus : this.#visit);
    return this.#at;
  }

  /** fuse_dirent: ino 0, off 8 (of the next entry), namelen 16, type 20, name 24, padded to 8. */
  readonly #visit = (
    node: number,
    type: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    next: number,
  ): boolean => {
    const size = (DIRENT_SIZE + end - start + 7) & ~7;
    if (this.#at + size > this.#limit) return false;
    this.#putDirent(node, type, bytes, start, end, next, this.#at, size);
    this.#at += size;
    return true;
  };

  /** fuse_direntplus: an entry, then a dirent. "." and ".." carry no entry (node id 0: fuse_direntplus_link). */
  readonly #visitPlus = (
    node: number,
    type: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    next: number,
  ): boolean => {
    const size = (DIRENT_SIZE + end - start + 7) & ~7;
    if (this.#at + ENTRY_OUT_SIZE + size > this.#limit) return false;
    const dots = bytes[start] === 0x2e && (end - start === 1 || (end - start === 2 && bytes[start + 1] === 0x2e));
    if (dots || !this.#putEntry(node, this.#reply, this.#at)) this.#reply.fill(0, this.#at, this.#at + ENTRY_OUT_SIZE);
    this.#putDirent(node, type, bytes, start, end, next, this.#at + ENTRY_OUT_SIZE, size);
    this.#at += ENTRY_OUT_SIZE + size;
    return true;
  };

  #putDirent(
    node: number,
    type: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    next: number,
    at: number,
    size: number,
  ): void {
    const reply = this.#reply;
    putU64(reply, node, at);
    putU64(reply, next, at + 8);
    reply.writeUInt32LE(end - start, at + 16);
    reply.writeUInt32LE(type, at + 20);
    for (let i = start; i < end; i++) reply[at + DIRENT_SIZE + i - start] = bytes[i] ?? 0;
    reply.fill(0, at + DIRENT_SIZE + end - start, at + size);
  }

  /** fuse_getxattr_in: size 0; the name follows at 8. Size 0 asks how long the value is. */
  #getxattr(node: number, request: Buffer, length: number, reply: Buffer): number {
    if (!this.#fs.capabilities.xattrs) return -ENOSYS;
    const end = length < IN_HEADER + 8 ? -1 : nameEnd(request, IN_HEADER + 8, length);
    if (end < 0) return -EINVAL;
    const value = this.#fs.getxattr(node, request.toString('latin1', IN_HEADER + 8, end));
    return value === undefined ? -ENODATA : this.#sized(value, request.readUInt32LE(IN_HEADER), reply);
  }

  #listxattr(node: number, request: Buffer, length: number, reply: Buffer): number {
    if (!this.#fs.capabilities.xattrs) return -ENOSYS;
    if (length < IN_HEADER + 8) return -EINVAL;
    const names = this.#fs.listxattr(node);
    const list = names.length === 0 ? '' : `${names.join('\0')}\0`;
    return this.#sized(Buffer.from(list, 'latin1'), request.readUInt32LE(IN_HEADER), reply);
  }

  /** A value as GETXATTR and LISTXATTR give it: its length when `size` is 0 (fuse_getxattr_out), else all or ERANGE. */
  #sized(value: Uint8Array, size: number, reply: Buffer): number {
    if (size === 0) {
      putU64(reply, value.length, OUT_HEADER);
      return OUT_HEADER + 8;
    }
    if (value.length > size) return -ERANGE;
    reply.set(value, OUT_HEADER);
    return OUT_HEADER + value.length;
  }

  /** fuse_open_out: fh 0, open_flags 8, backing_id 12. */
  #opened(reply: Buffer, flags: number): number {
    putU64(reply, 0, OUT_HEADER);
    putU64(reply, flags, OUT_HEADER + 8);
    return OUT_HEADER + 16;
  }

  /** fuse_lseek_in: fh 0, offset 8, whence 16; the kernel sends only SEEK_DATA and SEEK_HOLE. */
  #lseek(node: number, request: Buffer, length: number, reply: Buffer): number {
    if (length < IN_HEADER + 24) return -EINVAL;
    const whence = request.readUInt32LE(IN_HEADER + 16);
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return -EINVAL;
    const at = this.#fs.seek(node, getU64(request, IN_HEADER + 8), whence === SEEK_DATA ? 'data' : 'hole');
    if (at < 0) return -ENXIO;
    putU64(reply, at, OUT_HEADER);
    return OUT_HEADER + 8;
  }

  /** fuse_kstatfs: blocks 0, bfree 8, bavail 16, files 24, ffree 32, bsize 40, namelen 44, frsize 48; 80 bytes. */
  #statfs(reply: Buffer): number {
    const { blocks, files } = this.#fs.statfs();
    reply.fill(0, OUT_HEADER, OUT_HEADER + 80);
    putU64(reply, Math.ceil(blocks / (BLOCK_SIZE / 512)), OUT_HEADER);
    putU64(reply, files, OUT_HEADER + 24);
    reply.writeUInt32LE(BLOCK_SIZE, OUT_HEADER + 40);
    reply.writeUInt32LE(NAME_MAX, OUT_HEADER + 44);
    reply.writeUInt32LE(BLOCK_SIZE, OUT_HEADER + 48);
    return OUT_HEADER + 80;
  }
}

/** Inside the session: a result that no length and no errno has. */
const MISSING = Number.MIN_SAFE_INTEGER;

/** Where the NUL of a name that starts at `start` is, or -1. */
function nameEnd(request: Buffer, start: number, length: number): number {
  const end = request.indexOf(0, start);
  return end < 0 || end >= length || end === start ? -1 : end;
}
