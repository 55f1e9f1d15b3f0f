/** Trees: the EROFS reader and loader, and FUSE requests answered from a tree. */
import { constants } from 'node:os';
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { LaminaError } from '../../src/errors.js';
import { REPLY_SIZE, Session } from '../../src/fuse/session.js';
import { ImageFs } from '../../src/mount/image-fs.js';
import { LayerReaders } from '../../src/mount/layer-readers.js';
import { richDevices, richTree } from '../erofs/trees.js';
import type { Target } from './targets.js';
import { sum, words } from './words.js';

/** Answers of every method for a node. */
function ask(reader: ErofsReader, nid: number, name: Buffer, offset: number): string {
  const acts: (() => unknown)[] = [
    () => reader.lookup(nid, name, 0, name.length),
    () => reader.mode(nid),
    () => [reader.uid(nid), reader.gid(nid), reader.nlink(nid), reader.rdev(nid), reader.order(nid)],
    () => [reader.size(nid), reader.blocks(nid), reader.mtime(nid), reader.mtimeNsec(nid)],
    () => list(reader, nid, offset),
    () => list(reader, nid, 0),
    () => reader.readlink(nid).toString('latin1'),
    () => reader.xattr(nid, 'user.a')?.toString('latin1'),
    () => reader.xattrNames(nid),
    () => ({ ...reader.mapRange(nid, offset) }),
    () => [reader.seekData(nid, offset), reader.seekHole(nid, offset), reader.footprint(nid)],
  ];
  return JSON.stringify(acts.map(attempt));
}

function attempt(act: () => unknown): unknown {
  try {
    return act();
  } catch (e) {
    if (e instanceof LaminaError && e.code === 'EROFS_INVALID') return e.message;
    throw e;
  }
}

function list(reader: ErofsReader, nid: number, cookie: number): number {
  let count = 0;
  reader.readdir(nid, cookie, (_nid, _type, bytes, start, end) => {
    if (start >= end || end > bytes.length) throw new Error('a name outside of the image');
    return ++count < 1000;
  });
  return count;
}

const erofs: Target = {
  name: 'erofs',
  runs: 800,
  dictionary: words('lamina', '\xe2\xe1\xf5\xe0', '.\0', '..', '\x01\0\0\0\0\0\0\0', '\xff\xff\xff\xff'),
  run(bytes) {
    const reader = new ErofsReader(bytes);
    const offset = bytes.length > 0 ? bytes.readUInt8(bytes.length - 1) * 512 : 0;
    const name = bytes.subarray(0, 3);
    const answers: string[] = [];
    for (let nid = 0; nid < Math.min(bytes.length / 32, 300); nid++) answers.push(ask(reader, nid, name, offset));
    const loaded = attempt(() => loadTree(reader).children?.size);
    return `${typeof loaded === 'string' ? loaded.replace(/\d+/g, '0') : 'loaded'} ${sum(answers.join('\n'))}`;
  },
};

const tree = new ErofsReader(Buffer.concat(encodeTree(richTree(), { devices: richDevices })));
const { EIO, ENOSYS, EROFS, EINVAL, ENOENT, ERANGE, ENODATA, ENXIO, EFBIG } = constants.errno;
/** Used again and again: what a reply does not fill would show as a difference between two runs. */
const reply = Buffer.alloc(REPLY_SIZE);
let fillings = 0;
const errors = new Set([EIO, ENOSYS, EROFS, EINVAL, ENOENT, ERANGE, ENODATA, ENXIO, EFBIG, 0]);

/** Requests one after the other, each as long as its first four bytes say. */
const session: Target = {
  name: 'fuse',
  runs: 3000,
  dictionary: words('user.a\0', 'hard\0', '..\0', '\x07\0\0\0\x2d\0\0\0', '\xff\xff\xff\xff\xff\xff\xff\x7f'),
  run(bytes) {
    const fs = new ImageFs(tree, new LayerReaders({ memory: 65_536 }), [2, 3]);
    const failures: unknown[] = [];
    const onError = (_operation: number, _node: number, e: unknown): void => void failures.push(e);
    const server = new Session(fs, { onError });
    reply.fill(fillings++ & 0xff, 0, 4096);
    const answers: string[] = [];
    for (let at = 0; at < bytes.length && answers.length < 40;) {
      const length = Math.min(Math.max(bytes.length - at < 4 ? 0 : bytes.readUInt32LE(at), 40), bytes.length - at);
      const request = bytes.subarray(at, at + length);
      let n = server.handle(request, length, reply);
      if (n === -1) n = server.handleWaiting(request, length, reply);
      answers.push(n > 0 ? answerOf(request, reply.subarray(0, n)) : String(n));
      at += length;
    }
    const bug = failures.find((e) => !(e instanceof LaminaError));
    if (bug !== undefined) throw bug instanceof Error ? bug : new Error('not an error was thrown');
    return `${answers
      .map((a) => a.split(' ')[0])
      .slice(0, 2)
      .join('/')} ${sum(answers.join('\n'))}`;
  },
};

/** Checks the header of a reply, which the kernel does too (fuse_dev_do_write): it would refuse it otherwise. */
function answerOf(request: Buffer, reply: Buffer): string {
  const error = -reply.readInt32LE(4);
  if (reply.readUInt32LE(0) !== reply.length) throw new Error('the length in the header is wrong');
  if (!errors.has(error)) throw new Error(`error ${error}`);
  if (error !== 0 && reply.length !== 16) throw new Error('an error with a body');
  if (!reply.subarray(8, 16).equals(request.subarray(8, 16))) throw new Error('unique was not copied');
  return `${Math.min(request.readUInt32LE(4), 60)}:${error} ${sum(reply)}`;
}

export const erofsTargets: readonly Target[] = [erofs, session];
