/** The session: request bytes in, reply bytes out. Layouts are those of linux/fuse.h, written down here once more. */
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import t from 'tap';
import { LaminaError } from '../../src/errors.js';
import type { InitLimits, Negotiated } from '../../src/fuse/init.js';
import { STOP, serve } from '../../src/fuse/serve-loop.js';
import { DEFERRED, NO_REPLY, REPLY_SIZE, Session, type SessionOptions } from '../../src/fuse/session.js';
import { epollAdd, epollCreate, eventfd, setNonBlocking, signal, socketpair, writeRaw } from '../../src/native/libc.js';
import { MemoryFs } from './fixtures/memory-fs.js';
import { BIG, MANY, testTree } from './fixtures/tree.js';

const { EINVAL, EIO, ENODATA, ENOENT, ENOSYS, ENXIO, ERANGE, EROFS } = constants.errno;
const LOOKUP = 1;
const FORGET = 2;
const GETATTR = 3;
const SETATTR = 4;
const READLINK = 5;
const UNLINK = 10;
const OPEN = 14;
const READ = 15;
const WRITE = 16;
const STATFS = 17;
const RELEASE = 18;
const SETXATTR = 21;
const GETXATTR = 22;
const LISTXATTR = 23;
const INIT = 26;
const OPENDIR = 27;
const READDIR = 28;
const INTERRUPT = 36;
const DESTROY = 38;
const IOCTL = 39;
const BATCH_FORGET = 42;
const READDIRPLUS = 44;
const LSEEK = 46;

const NO_OPEN_SUPPORT = 1 << 17;
const NO_OPENDIR_SUPPORT = 1 << 24;
const MAX_PAGES = 1 << 22;
const POSIX_ACL = 1 << 20;
const INIT_EXT = 1 << 30;
const HAS_RESEND2 = 1 << 7;

function request(opcode: number, node: number, body: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(40);
  header.writeUInt32LE(40 + body.length, 0);
  header.writeUInt32LE(opcode, 4);
  header.writeBigUInt64LE(0x8000_0000_0000_0123n, 8);
  header.writeBigUInt64LE(BigInt(node), 16);
  return Buffer.concat([header, body]);
}

const name = (text: string): Buffer => Buffer.from(`${text}\0`, 'latin1');

/** fuse_read_in, and with it every structure that starts with a handle, an offset and a size. */
function ranged(offset: number, size: number, length = 40): Buffer {
  const body = Buffer.alloc(length);
  body.writeBigUInt64LE(BigInt(offset), 8);
  body.writeUInt32LE(size, 16);
  return body;
}

/** fuse_getxattr_in, then a name. */
function sized(size: number, ...rest: Buffer[]): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(size, 0);
  return Buffer.concat([head, ...rest]);
}

function init(minor: number, flags = 0xffffffff, flags2 = 0xffffffff, major = 7): Buffer {
  const body = Buffer.alloc(64);
  body.writeUInt32LE(major, 0);
  body.writeUInt32LE(minor, 4);
  body.writeUInt32LE(131072, 8);
  body.writeUInt32LE(flags >>> 0, 12);
  body.writeUInt32LE(flags2 >>> 0, 16);
  return request(INIT, 0, minor >= 36 ? body : body.subarray(0, 16));
}

interface Reply {
  readonly error: number;
  readonly body: Buffer;
}

const reply = Buffer.alloc(REPLY_SIZE, 0xee);

function parse(length: number): Reply {
  if (length !== reply.readUInt32LE(0)) throw new Error(`Length ${length}, header says ${reply.readUInt32LE(0)}`);
  if (reply.readBigUInt64LE(8) !== 0x8000_0000_0000_0123n) throw new Error('unique was not copied');
  return { error: -reply.readInt32LE(4), body: Buffer.from(reply.subarray(16, length)) };
}

function ask(session: Session, bytes: Buffer): Reply {
  return parse(session.handle(bytes, bytes.length, reply));
}

function newSession(fs = new MemoryFs(testTree()), options: SessionOptions = {}): { fs: MemoryFs; session: Session } {
  return { fs, session: new Session(fs, options) };
}

interface Attr {
  readonly ino: number;
  readonly size: number;
  readonly mtime: bigint;
  readonly mode: string;
  readonly nlink: number;
  readonly uid: number;
  readonly rdev: number;
}

function attrOf(b: Buffer): Attr {
  return {
    ino: Number(b.readBigUInt64LE(0)),
    size: Number(b.readBigUInt64LE(8)),
    mtime: b.readBigInt64LE(32),
    mode: b.readUInt32LE(60).toString(8),
    nlink: b.readUInt32LE(64),
    uid: b.readUInt32LE(68),
    rdev: b.readUInt32LE(76),
  };
}

interface Dirent {
  readonly name: string;
  readonly ino: number;
  readonly type: number;
  readonly next: number;
  /** readdirplus: the node of the entry, 0 where it carries none. */
  readonly entry?: number;
}

function direntsOf(body: Buffer, plus: boolean): Dirent[] {
  const entries: Dirent[] = [];
  for (let at = 0; at < body.length;) {
    const start = at + (plus ? 128 : 0);
    const length = body.readUInt32LE(start + 16);
    entries.push({
      name: body.toString('latin1', start + 24, start + 24 + length),
      ino: Number(body.readBigUInt64LE(start)),
      type: body.readUInt32LE(start + 20),
      next: Number(body.readBigUInt64LE(start + 8)),
      ...(plus ? { entry: Number(body.readBigUInt64LE(at)) } : {}),
    });
    at = start + ((24 + length + 7) & ~7);
  }
  return entries;
}

t.test('INIT takes of what the kernel offers, and tells what was agreed', async (t) => {
  const agreed = (
    request: Buffer,
    limits: InitLimits = {},
    acls = false,
  ): { out: Buffer; negotiated: Negotiated | undefined } => {
    let negotiated: Negotiated | undefined;
    const { session } = newSession(new MemoryFs(testTree(), { xattrs: true, acls }), {
      limits,
      onInit: (n) => (negotiated = n),
    });
    return { out: ask(session, request).body, negotiated };
  };

  const modern = agreed(init(45));
  t.equal(modern.out.length, 64);
  t.equal(modern.out.readUInt32LE(0), 7);
  t.equal(modern.out.readUInt32LE(4), 45);
  t.equal(modern.out.readUInt32LE(8), 131072, 'read-ahead as the kernel allows it');
  t.ok(modern.out.readUInt32LE(20) >= 4096, 'max_write');
  t.equal(modern.out.readUInt16LE(28), 256, 'max_pages: reads of 1 MiB');
  t.equal(modern.out.readUInt32LE(12) & POSIX_ACL, 0, 'no ACL checks where nothing has an ACL');
  t.match(modern.negotiated, { minor: 45, noOpen: true, noOpendir: true });
  t.not(agreed(init(45), {}, true).out.readUInt32LE(12) & POSIX_ACL, 0);

  t.equal(agreed(init(99)).out.readUInt32LE(4), 45, 'a newer minor is answered with ours');
  t.match(agreed(init(31)).negotiated, { minor: 31, flags2: 0 }, 'no second flags before INIT_EXT');
  const plain = agreed(init(23, 0));
  t.match(
    plain.negotiated,
    { minor: 23, flags: 0, noOpen: false, noOpendir: false },
    'nothing is asked for that was not offered',
  );
  t.equal(plain.out.readUInt16LE(28), 0);

  const limited = agreed(init(45), {
    withoutFlags: NO_OPEN_SUPPORT | MAX_PAGES,
    withoutFlags2: HAS_RESEND2,
    maxMinor: 38,
  });
  t.match(limited.negotiated, { minor: 38, noOpen: false, noOpendir: true });
  t.equal(limited.out.readUInt16LE(28), 0);
  t.match(agreed(init(45), { withoutFlags: INIT_EXT }).negotiated, { flags2: 0 });

  const newer = agreed(init(45, 0, 0, 8));
  t.equal(newer.out.readUInt32LE(0), 7, 'a newer major is told ours, and sends INIT again');
  t.equal(newer.negotiated, undefined);
  const { session } = newSession();
  t.equal(ask(session, init(22)).error, EIO, 'older than we speak');
  t.equal(ask(session, init(45, 0, 0, 6)).error, EIO);
});

t.test('LOOKUP gives entries that are valid for ever, absent ones too', async (t) => {
  const { fs, session } = newSession();
  const { error, body } = ask(session, request(LOOKUP, 1, name('hello')));
  t.equal(error, 0);
  t.equal(body.length, 128);
  t.equal(Number(body.readBigUInt64LE(0)), fs.id('hello'));
  t.equal(body.readBigUInt64LE(8), 0n, 'generation');
  t.ok(body.readBigUInt64LE(16) > 10n ** 9n, 'entry validity');
  t.ok(body.readBigUInt64LE(24) > 10n ** 9n, 'attribute validity');
  t.strictSame(attrOf(body.subarray(40)), {
    ino: fs.id('hello'),
    size: 6,
    mtime: -86_400n,
    mode: '100644',
    nlink: 1,
    uid: 0,
    rdev: 0,
  });

  const absent = ask(session, request(LOOKUP, 1, name('nope')));
  t.equal(absent.error, 0, 'not ENOENT, which is not cached');
  t.equal(absent.body.readBigUInt64LE(0), 0n);
  t.ok(absent.body.readBigUInt64LE(16) > 10n ** 9n);
  fs.uncertain.add('later');
  t.equal(ask(session, request(LOOKUP, 1, name('later'))).error, ENOENT, 'what may come is not cached as absent');

  t.equal(Number(ask(session, request(LOOKUP, fs.id('empty'), name('..'))).body.readBigUInt64LE(0)), 1);
  t.equal(
    Number(ask(session, request(LOOKUP, 1, name('n\u00e4me \\ \n'))).body.readBigUInt64LE(0)),
    fs.id('n\u00e4me \\ \n'),
  );
  t.equal(ask(session, request(LOOKUP, 1, name('x'.repeat(256)))).body.readBigUInt64LE(0), 0n, 'no name is so long');
  t.equal(ask(session, request(LOOKUP, 1, Buffer.from('\0'))).error, EINVAL);
  t.equal(ask(session, request(LOOKUP, 1, Buffer.from('unterminated'))).error, EINVAL);
  t.equal(ask(session, request(LOOKUP, 12_345_678, name('x'))).error, EIO, 'a node that is none');
});

t.test('GETATTR, READLINK, STATFS, LSEEK', async (t) => {
  const { fs, session } = newSession();
  const attr = ask(session, request(GETATTR, fs.id('tool'), Buffer.alloc(16)));
  t.equal(attr.body.length, 104);
  t.ok(attr.body.readBigUInt64LE(0) > 10n ** 9n);
  t.match(attrOf(attr.body.subarray(16)), { mode: '104755', uid: 7 });
  t.match(attrOf(ask(session, request(GETATTR, fs.id('null'))).body.subarray(16)), { mode: '20666', rdev: 0x103 });
  t.equal(ask(session, request(GETATTR, 12_345_678)).error, ENOENT);
  t.equal(ask(session, request(READLINK, fs.id('link'))).body.toString(), 'hello');
  const statfs = ask(session, request(STATFS, 1)).body;
  t.equal(statfs.length, 80);
  t.equal(statfs.readBigUInt64LE(0), 10n, '80 units of 512 are 10 blocks of 4096');
  t.equal(statfs.readUInt32LE(40), 4096);
  t.equal(statfs.readUInt32LE(44), 255);
  const seek = (offset: number, whence: number): Reply =>
    ask(session, request(LSEEK, fs.id('hello'), ranged(offset, whence, 24)));
  t.equal(seek(2, 3).body.readBigUInt64LE(0), 2n);
  t.equal(seek(2, 4).body.readBigUInt64LE(0), 6n);
  t.equal(seek(6, 3).error, ENXIO);
  t.equal(seek(0, 0).error, EINVAL);
});

t.test('READ gives whole answers or an error, and defers what is not at hand', async (t) => {
  const errors: unknown[] = [];
  const { fs, session } = newSession(undefined, { onError: (_operation, node) => errors.push(node) });
  const read = (path: string, offset: number, size: number): Buffer => request(READ, fs.id(path), ranged(offset, size));
  t.strictSame(ask(session, read('hello', 0, 4096)).body.toString(), 'hello\n');
  t.strictSame(ask(session, read('hello', 6, 4096)).body.length, 0);
  t.strictSame(ask(session, read('big', 1000, 1024 * 1024)).body, BIG.subarray(1000, 1000 + 1024 * 1024));
  t.equal(ask(session, read('big', 0, 0x7fffffff)).body.length, 1024 * 1024, 'never more than a reply holds');
  t.equal(ask(session, read('big', BIG.length - 5, 4096)).body.length, 5);

  fs.away.add(fs.id('away'));
  const waiting = read('away', 0, 4096);
  t.equal(session.handle(waiting, waiting.length, reply), DEFERRED);
  t.equal(session.affinity(waiting), fs.id('away'));
  t.equal(parse(session.handleWaiting(waiting, waiting.length, reply)).body.toString(), 'from afar');

  fs.broken.set(fs.id('broken'), new LaminaError('CHUNK_DIGEST_MISMATCH', 'wrong bytes'));
  t.equal(ask(session, read('broken', 0, 4096)).error, EIO);
  t.strictSame(errors, [fs.id('broken')], 'and the failure is reported');
});

for (const plus of [false, true]) {
  t.test(`READDIR${plus ? 'PLUS' : ''} lists a directory in as many parts as it takes`, async (t) => {
    const { fs, session } = newSession();
    const list = (path: string, size: number, from = 0): Dirent[] => {
      const all: Dirent[] = [];
      for (let cookie = from; ;) {
        const bytes = request(plus ? READDIRPLUS : READDIR, fs.id(path), ranged(cookie, size));
        const part = direntsOf(ask(session, bytes).body, plus);
        const last = part.at(-1);
        if (last === undefined) return all;
        all.push(...part);
        cookie = last.next;
      }
    };
    const root = list('/', 4096);
    t.strictSame(
      root.map((entry) => entry.name),
      ['.', '..', ...Object.keys(testTree().children ?? {})],
    );
    t.match(
      root.find((entry) => entry.name === 'link'),
      { type: 0o12, ino: fs.id('link') },
    );
    if (plus) {
      t.equal(root[0]?.entry, 0, '"." counts as no lookup');
      t.equal(root[1]?.entry, 0);
      t.ok(root.slice(2).every((entry) => entry.entry === entry.ino));
    }
    for (const size of [4096, 300, 65_536]) {
      const names = list('many', size).map((entry) => entry.name);
      t.equal(new Set(names).size, MANY + 2);
      t.equal(names.length, MANY + 2, `in parts of ${size} bytes`);
    }
    t.equal(list('many', 4096, MANY)[0]?.name, `entry-${String(MANY - 2).padStart(5, '0')}`, 'from any cookie on');
    t.strictSame(
      list('empty', 4096).map((entry) => entry.name),
      ['.', '..'],
    );
  });
}

t.test('GETXATTR and LISTXATTR: lengths, ERANGE, ENODATA', async (t) => {
  const { fs, session } = newSession();
  const get = (path: string, size: number, key: string): Reply =>
    ask(session, request(GETXATTR, fs.id(path), sized(size, name(key))));
  t.equal(get('hello', 0, 'user.a').body.readUInt32LE(0), 5);
  t.equal(get('hello', 5, 'user.a').body.toString(), 'value');
  t.equal(get('hello', 4, 'user.a').error, ERANGE);
  t.equal(get('hello', 100, 'user.b').error, ENODATA);
  t.equal(get('big', 0, 'security.capability').error, ENODATA);
  const listed = (path: string, size: number): Reply => ask(session, request(LISTXATTR, fs.id(path), sized(size)));
  t.equal(listed('hello', 0).body.readUInt32LE(0), 7);
  t.equal(listed('hello', 7).body.toString('latin1'), 'user.a\0');
  t.equal(listed('hello', 6).error, ERANGE);
  t.equal(listed('big', 100).body.length, 0);

  const without = newSession(new MemoryFs(testTree(), { xattrs: false, acls: false }));
  t.equal(ask(without.session, request(GETXATTR, 2, sized(0, name('user.a')))).error, ENOSYS, 'never asked again');
  t.equal(ask(without.session, request(LISTXATTR, 2, sized(0))).error, ENOSYS);
});

t.test('OPEN is refused once where the kernel can do without, answered elsewhere', async (t) => {
  const agreed = { minor: 45, flags: 0, flags2: 0, noOpen: true, noOpendir: true };
  const { fs, session } = newSession(undefined, { negotiated: agreed });
  t.equal(ask(session, request(OPEN, fs.id('hello'), Buffer.alloc(8))).error, ENOSYS);
  t.equal(ask(session, request(OPENDIR, 1, Buffer.alloc(8))).error, ENOSYS);

  const old = newSession(undefined, { limits: { withoutFlags: NO_OPEN_SUPPORT | NO_OPENDIR_SUPPORT } }).session;
  ask(old, init(45));
  const opened = ask(old, request(OPEN, fs.id('hello'), Buffer.alloc(8)));
  t.equal(opened.body.length, 16);
  t.equal(opened.body.readUInt32LE(8), 2, 'FOPEN_KEEP_CACHE');
  t.equal(ask(old, request(OPENDIR, 1, Buffer.alloc(8))).body.readUInt32LE(8), 2 | 8, 'and FOPEN_CACHE_DIR');
  t.strictSame(ask(old, request(RELEASE, fs.id('hello'), Buffer.alloc(24))), { error: 0, body: Buffer.alloc(0) });
});

t.test('what would write is EROFS, what is unknown ENOSYS, what wants no answer gets none', async (t) => {
  const { session } = newSession();
  for (const opcode of [SETATTR, UNLINK, WRITE, SETXATTR])
    t.equal(ask(session, request(opcode, 1, Buffer.alloc(128))).error, EROFS);
  for (const opcode of [IOCTL, 999]) t.equal(ask(session, request(opcode, 1, Buffer.alloc(128))).error, ENOSYS);
  for (const opcode of [FORGET, BATCH_FORGET, INTERRUPT, DESTROY]) {
    const bytes = request(opcode, 1, Buffer.alloc(16));
    t.equal(session.handle(bytes, bytes.length, reply), NO_REPLY);
  }
});

t.test('a request cut at any byte is answered with an error or like the whole one', async (t) => {
  const { fs } = newSession();
  const whole: readonly Buffer[] = [
    init(45),
    request(LOOKUP, 1, name('hello')),
    request(GETATTR, 1, Buffer.alloc(16)),
    request(READ, fs.id('big'), ranged(4096, 65_536)),
    request(READDIR, 1, ranged(0, 4096)),
    request(READDIRPLUS, 1, ranged(0, 4096)),
    request(GETXATTR, fs.id('hello'), sized(64, name('user.a'))),
    request(LISTXATTR, fs.id('hello'), sized(64)),
    request(LSEEK, fs.id('hello'), ranged(0, 3, 24)),
    request(OPEN, 1, Buffer.alloc(8)),
    request(WRITE, 1, Buffer.alloc(40)),
  ];
  let answers = 0;
  for (const bytes of whole) {
    // The serve loop's buffer is reused: what is behind the request is an earlier one.
    const buffer = Buffer.alloc(4096, 0x41);
    bytes.copy(buffer);
    for (let length = 0; length <= bytes.length; length++) {
      const { session } = newSession();
      const n = session.handle(buffer, length, reply);
      if (length < 40) {
        t.equal(n, NO_REPLY, `opcode ${bytes.readUInt32LE(4)} cut at ${length}`);
        continue;
      }
      answers++;
      const { error, body } = parse(n);
      if (error !== 0) t.equal(body.length, 0);
      if (![0, EINVAL, EIO, EROFS, ENODATA, ENOENT].includes(error))
        t.fail(`errno ${error} for opcode ${bytes.readUInt32LE(4)} cut at ${length}`);
    }
  }
  t.ok(answers > 300);
});

t.test('a connection that is never empty leaves others their turn', async (t) => {
  const epoll = epollCreate();
  const stop = eventfd();
  epollAdd(epoll, stop, STOP, 'level');
  const byte = Buffer.from([1]);
  class Endless extends Session {
    readonly #next: () => void;
    constructor(next: () => void) {
      super(new MemoryFs(testTree()));
      this.#next = next;
    }
    override handle(): number {
      this.#next();
      return NO_REPLY;
    }
  }
  const pairs = [socketpair(), socketpair()] as const;
  t.teardown(() => [epoll, stop, ...pairs.flat()].forEach((fd) => closeSync(fd)));
  let requests = 0;
  const again = (): void => {
    requests++;
    writeRaw(pairs[0][1], byte, 1);
  };
  const sessions = [new Endless(again), new Endless(() => signal(stop))];
  pairs.forEach(([fd, other], i) => {
    setNonBlocking(fd);
    writeRaw(other, byte, 1);
    epollAdd(epoll, fd, i + 1, 'edge');
  });
  serve({
    epoll,
    connection(id) {
      const [pair, session] = [pairs[id - 1], sessions[id - 1]];
      return pair === undefined || session === undefined ? undefined : { id, fd: pair[0], session };
    },
    defer: () => undefined,
    between: () => undefined,
    gone: () => undefined,
  });
  t.ok(requests > 1 && requests < 10_000, `after ${requests} requests`);
});
