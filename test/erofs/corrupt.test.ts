/** Damaged images: whatever the bytes are, the reader answers or says EROFS_INVALID, and soon. */
import t from 'tap';
import fc from 'fast-check';
import { LaminaError } from '../../src/errors.js';
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import type { Inode } from '../../src/erofs/tree.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { directory, file, paths, resolve, richDevices, richTree, symlink, xattrs } from './trees.js';

const encode = (root: Inode): Buffer => Buffer.concat(encodeTree(root, { devices: richDevices }));

/** Runs `act`; false when it threw EROFS_INVALID. Anything else thrown is a bug. */
function holds(act: () => unknown): boolean {
  try {
    act();
    return true;
  } catch (e) {
    if (e instanceof LaminaError && e.code === 'EROFS_INVALID') return false;
    throw e;
  }
}

/** Every method on every nid, with names and offsets from `name` and `offset`. */
function exercise(bytes: Buffer, nids: readonly number[], name: Buffer, offset: number): void {
  let reader: ErofsReader | undefined;
  holds(() => (reader = new ErofsReader(bytes)));
  if (reader === undefined) return;
  const r = reader;
  holds(() => loadTree(r));
  for (const nid of nids) {
    const acts: (() => unknown)[] = [
      () => r.lookup(nid, name, 0, name.length),
      () => r.lookup(nid, Buffer.from('..'), 0, 2),
      () => r.mode(nid),
      () => r.uid(nid) + r.gid(nid) + r.nlink(nid) + r.rdev(nid) + r.order(nid),
      () => r.size(nid),
      () => r.blocks(nid),
      () => r.mtime(nid) + r.mtimeNsec(nid),
      () => r.readdir(nid, offset, (_nid, _type, b, start, end) => end > start && end <= b.length),
      () => r.readdir(nid, 0, () => true),
      () => r.readlink(nid),
      () => r.xattr(nid, 'user.a'),
      () => r.xattrNames(nid),
      () => r.mapRange(nid, offset),
      () => r.seekData(nid, offset),
      () => r.seekHole(nid, offset),
      () => r.footprint(nid),
    ];
    for (const act of acts) holds(act);
  }
}

const image = encode(richTree());
const reader = new ErofsReader(image);
const nids = [...new Set([...paths(richTree())].map(([path]) => resolve(reader, path)))];

t.test('any bytes changed', async (t) => {
  const place = fc.oneof(
    fc.nat(image.length - 1),
    // The superblock, and the inodes, where it hurts most.
    fc.nat(127).map((at) => 1024 + at),
    fc.tuple(fc.constantFrom(...nids), fc.nat(79)).map(([nid, at]) => 1536 + nid * 32 + at),
  );
  fc.assert(
    fc.property(
      fc.array(fc.tuple(place, fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff))), {
        minLength: 1,
        maxLength: 6,
      }),
      fc.subarray(nids, { maxLength: 8 }),
      fc.nat(image.length / 32),
      fc.oneof(fc.nat(1000), fc.nat(2 ** 31 - 1), fc.constantFrom(2 ** 40, 2 ** 53)),
      (changes, some, any, offset) => {
        const bytes = Buffer.from(image);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        exercise(bytes, [1, any, ...some], Buffer.from('hard'), offset);
      },
    ),
    { numRuns: 1500 },
  );
  t.pass();
});

t.test('an image cut off anywhere', async (t) => {
  for (let length = 0; length < image.length; length += 97) {
    t.notOk(holds(() => new ErofsReader(image.subarray(0, length))) && length < image.length, `${length} bytes`);
  }
  t.notOk(
    holds(() => new ErofsReader(Buffer.concat([image, Buffer.alloc(512)]))),
    'a block too many',
  );
});

t.test('anything but an image', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4096 }), (bytes) => {
      if (holds(() => new ErofsReader(Buffer.from(bytes)))) throw new Error('it was taken for an image');
    }),
  );
  t.pass();
});

// Byte offsets of inode fields: fs/erofs/erofs_fs.h, struct erofs_inode_extended.
const NLINK = 44;
const SIZE = 8;
const UNION = 16;

t.test('loadTree refuses a graph that is no tree, and counts that are wrong', async (t) => {
  const root = directory({
    a: directory({ b: directory({ c: file(0) }), link: file(3) }),
    s: symlink('a'),
    x: file(0, [], { xattrs: xattrs({ 'user.a': '1', 'user.b': '2' }) }),
  });
  root.children!.set('link', root.children!.get('a')!.children!.get('link')!);
  const good = encode(root);
  const at = (path: string): number => 1536 + resolve(new ErofsReader(good), path) * 32;
  t.equal(good.readUInt32LE(1024 + 40) * 512, 1536, 'nid 0 is where this test expects it');
  const cases: Record<string, (bytes: Buffer) => void> = {
    'fewer names than links': (b) => b.writeUInt32LE(3, at('/link') + NLINK),
    'more names than links': (b) => b.writeUInt32LE(1, at('/link') + NLINK),
    'no links': (b) => b.writeUInt32LE(0, at('/s') + NLINK),
    'a wrong link count of a directory': (b) => b.writeUInt32LE(9, at('/a') + NLINK),
    'a wrong inode count': (b) => b.writeUInt32LE(99, 1024 + 16),
    'a directory in itself': (b) => retarget(b, at('/a/b'), 'c', at('/a')),
    'a directory with two names': (b) => retarget(b, at('/a'), 'link', at('/a/b')),
    'a ".." that leads elsewhere': (b) => retarget(b, at('/a/b'), '..', at('')),
    "a file type that is not the inode's": (b) => (b[direntOf(b, at('/a/b'), 'c') + 10] = 7),
    'a name twice': (b) => b.write('a', b.indexOf('linksx') + 4),
    'a name with a slash': (b) => b.write('/', b.indexOf('linksx') + 4),
    'xattrs that are denied': (b) => b.write('lamina-1\0', 1024 + 64, 'latin1'),
    'an xattr twice': (b) => b.write('a', at('/x') + 64 + 12 + 8 + 4),
    'an xattr of an unknown namespace': (b) => (b[at('/x') + 64 + 12 + 1] = 5),
    'an xattr that is cut off': (b) => b.writeUInt16LE(500, at('/x') + 64 + 12 + 2),
    'data on device 9': (b) => b.writeUInt32LE(0, at('/link') + 64 + 4),
    'a chunk format of another kind': (b) => b.writeUInt32LE(0x40, at('/link') + UNION),
    'a symlink without a target': (b) => b.writeUInt32LE(0, at('/s') + SIZE),
    'a symlink that is too long': (b) => b.writeUInt32LE(4096, at('/s') + SIZE),
    'a directory without entries': (b) => b.writeUInt32LE(0, at('/a/b') + SIZE),
    'a directory larger than the image': (b) => b.writeUInt32LE(2 ** 30, at('/a/b') + SIZE),
  };
  t.ok(holds(() => loadTree(new ErofsReader(good))));
  for (const [name, damage] of Object.entries(cases)) {
    const bytes = Buffer.from(good);
    damage(bytes);
    t.notOk(bytes.equals(good), `${name}: the bytes are others`);
    t.notOk(
      holds(() => loadTree(new ErofsReader(bytes))),
      name,
    );
  }
});

/** Where the dirent of a name is, in a directory whose entries are all behind its inode. */
function direntOf(bytes: Buffer, inode: number, name: string): number {
  const data = inode + 64;
  const count = bytes.readUInt16LE(data + 8) / 12;
  for (let i = 0; i < count; i++) {
    const start = bytes.readUInt16LE(data + 12 * i + 8);
    const end = i + 1 < count ? bytes.readUInt16LE(data + 12 * (i + 1) + 8) : bytes.readUInt32LE(inode + SIZE);
    if (bytes.toString('latin1', data + start, data + end) === name) return data + 12 * i;
  }
  throw new Error(`no ${name}`);
}

function retarget(bytes: Buffer, inode: number, name: string, to: number): void {
  bytes.writeUInt32LE((to - 1536) / 32, direntOf(bytes, inode, name));
}

t.test('inodes that claim the same bytes cost no more than the image is large', async (t) => {
  const children: Record<string, Inode> = {};
  for (let i = 0; i < 2000; i++) children[`d${i}`] = directory({}, {});
  const many: Record<string, Inode> = {};
  for (let i = 0; i < 2000; i++) many[`${'n'.repeat(200)}${i}`] = file(0);
  const bytes = encode(directory({ ...children, many: directory(many) }));
  const r = new ErofsReader(bytes);
  const large = 1536 + resolve(r, '/many') * 32;
  for (let i = 0; i < 2000; i++) bytes.copy(bytes, 1536 + resolve(r, `/d${i}`) * 32, large, large + 64);
  t.notOk(holds(() => loadTree(new ErofsReader(bytes))));
});
