import t from 'tap';
import fc from 'fast-check';
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import { S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, type Inode } from '../../src/erofs/tree.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { describe, directory, file, node, paths, resolve, richDevices, richTree, symlink, xattrs } from './trees.js';
import { codeOf } from '../support/failure.js';

const encode = (root: Inode, devices: readonly number[] = richDevices): Buffer =>
  Buffer.concat(encodeTree(root, { devices }));
const read = (root: Inode, devices?: readonly number[]): ErofsReader => new ErofsReader(encode(root, devices));

/** Names, types and nids that a directory lists, continuing by cookie after every `pace` entries. */
function list(reader: ErofsReader, nid: number, pace: number): { name: string; nid: number; type: number }[] {
  const entries: { name: string; nid: number; type: number }[] = [];
  let cookie = 0;
  for (let more = true; more;) {
    let seen = 0;
    more = false;
    reader.readdir(nid, cookie, (child, type, bytes, start, end, next) => {
      if (seen === pace) {
        more = true;
        return false;
      }
      seen++;
      cookie = next;
      entries.push({ name: Buffer.from(bytes.subarray(start, end)).toString('latin1'), nid: child, type });
      return true;
    });
  }
  return entries;
}

t.test('loadTree gives back what encodeTree was given', async (t) => {
  const root = richTree();
  t.same(describe(loadTree(read(root))), describe(root));
  t.same(describe(loadTree(read(directory(), []))), describe(directory()));
});

t.test('encodeTree gives the same bytes for the same tree, whatever the order of its maps', async (t) => {
  t.ok(encode(richTree()).equals(encode(richTree())));
  const copies = new Map<Inode, Inode>();
  const reversed = (inode: Inode): Inode => {
    const copy = copies.get(inode) ?? { ...inode };
    copies.set(inode, copy);
    if (inode.xattrs) copy.xattrs = new Map([...inode.xattrs].reverse());
    if (inode.children) {
      copy.children = new Map([...inode.children].reverse().map(([name, child]) => [name, reversed(child)]));
    }
    return copy;
  };
  t.ok(encode(reversed(richTree())).equals(encode(richTree())));
});

t.test('ErofsReader answers for every path what the tree says', async (t) => {
  const root = richTree();
  const reader = read(root);
  const links = new Map<Inode, number>();
  for (const [, inode] of paths(root)) links.set(inode, (links.get(inode) ?? 0) + 1);
  t.equal(reader.inodeCount, links.size);
  t.equal(reader.hasXattrs, true);
  t.equal(reader.hasAcls, true);
  const nids = new Map<Inode, number>();
  for (const [path, inode] of paths(root)) {
    const nid = resolve(reader, path);
    t.equal(nids.get(inode) ?? nid, nid, `${path} is one inode under all its names`);
    nids.set(inode, nid);
    const subdirectories = [...(inode.children?.values() ?? [])].filter((c) => c.children !== undefined).length;
    const got = {
      mode: reader.mode(nid),
      uid: reader.uid(nid),
      gid: reader.gid(nid),
      rdev: reader.rdev(nid),
      mtime: reader.mtime(nid),
      mtimeNsec: reader.mtimeNsec(nid),
      order: reader.order(nid),
      nlink: reader.nlink(nid),
      size: inode.children === undefined ? reader.size(nid) : 0,
      target: inode.target === undefined ? undefined : reader.readlink(nid).toString('latin1'),
      xattrs: reader.xattrNames(nid),
    };
    const { mode, uid, gid, rdev, mtime, mtimeNsec, order, size, target } = inode;
    const nlink = inode.children === undefined ? links.get(inode) : 2 + subdirectories;
    const names = [...(inode.xattrs?.keys() ?? [])].sort();
    t.same(got, { mode, uid, gid, rdev, mtime, mtimeNsec, order, nlink, size, target, xattrs: names }, path);
    for (const [name, value] of inode.xattrs ?? []) t.same(reader.xattr(nid, name), value, `${path} ${name}`);
  }
  t.equal(resolve(reader, ''), 1, 'the root has nid 1');
  t.equal(new Set(nids.values()).size, links.size);
});

t.test('ErofsReader.lookup', async (t) => {
  const root = richTree();
  const reader = read(root);
  const parents = new Map<Inode, number>();
  for (const [path, inode] of paths(root)) {
    const nid = resolve(reader, path);
    if (!parents.has(inode)) parents.set(inode, resolve(reader, path.slice(0, Math.max(path.lastIndexOf('/'), 0))));
    t.equal(resolve(reader, `${path}/.`), nid, '. is the inode itself, of whatever type');
    t.equal(resolve(reader, `${path}/..`), inode.children === undefined ? 0 : parents.get(inode), '.. is the parent');
    for (const name of ['', 'absent', '\0', ' !', '\xff\xff', 'm'.repeat(255), 'm'.repeat(300)]) {
      t.equal(resolve(reader, `${path}/${name}`), 0, 'a name that is not there');
    }
  }
  const bytes = Buffer.from('xxhardyy');
  t.equal(reader.lookup(1, bytes, 2, 6), resolve(reader, '/hard'), 'part of a buffer');
  for (const nid of [0, -1, 2 ** 40, NaN, Infinity])
    t.equal(
      codeOf(() => reader.lookup(nid, bytes, 2, 6)),
      'EROFS_INVALID',
    );
});

t.test('ErofsReader.readdir lists every entry once, in order, from any cookie', async (t) => {
  const root = richTree();
  const reader = read(root);
  for (const path of ['', '/names', '/links', '/empty', '/sparse']) {
    let inode = root;
    for (const name of path.split('/').slice(1)) inode = inode.children!.get(name)!;
    const nid = resolve(reader, path);
    const expected = ['.', '..', ...inode.children!.keys()].sort().map((name) => {
      const child = inode.children!.get(name);
      return { name, nid: resolve(reader, `${path}/${name}`), type: (child?.mode ?? S_IFDIR) >> 12 };
    });
    for (const pace of [1, 2, 7, Infinity]) t.same(list(reader, nid, pace), expected, `${path} by ${pace}`);
  }
  t.equal(
    codeOf(() => list(reader, resolve(reader, '/hard'), 1)),
    'EROFS_INVALID',
  );
  reader.readdir(1, 2 ** 52, () => t.fail('an entry after the end'));
});

t.test('ErofsReader.xattr', async (t) => {
  const reader = read(richTree());
  const nid = resolve(reader, '/attributes/user');
  t.same(reader.xattr(nid, 'user.a'), Buffer.from('b'));
  for (const name of [
    'user.',
    'user.b',
    'user.ab',
    'trusted.a',
    'other.a',
    '',
    'system.posix_acl_access',
    'user.a\0',
  ]) {
    t.equal(reader.xattr(nid, name), undefined, JSON.stringify(name));
  }
  t.equal(reader.xattr(resolve(reader, '/hard'), 'user.a'), undefined);
  const without = read(directory({ f: file(0) }));
  t.same([without.hasXattrs, without.hasAcls, without.xattrNames(1)], [false, false, []]);
  const noAcl = read(directory({ f: file(0, [], { xattrs: xattrs({ 'user.a': '' }) }) }));
  t.same([noAcl.hasXattrs, noAcl.hasAcls], [true, false]);
});

t.test('ErofsReader.mapRange, seekData and seekHole follow the extents', async (t) => {
  const root = richTree();
  const reader = read(root);
  for (const [path, inode] of paths(root)) {
    if ((inode.mode & S_IFMT) !== S_IFREG || inode.size > 2_000_000) continue;
    const nid = resolve(reader, path);
    const covers = (offset: number) =>
      inode.extents?.find((e) => e.offset <= offset && offset < e.offset + Math.ceil(e.length / 512) * 512);
    for (let offset = 0; offset < inode.size; offset += 511) {
      const extent = covers(offset);
      const { device, position, length } = reader.mapRange(nid, offset);
      const expected = extent === undefined ? [0, 0] : [extent.device, extent.position + offset - extent.offset];
      if (device !== expected[0] || position !== expected[1] || !(length > 0 && offset + length <= inode.size)) {
        t.fail(`${path} at ${offset}: ${device} ${position} ${length}`);
      }
      const end = covers(offset + length - 1);
      if ((end === undefined) !== (extent === undefined)) t.fail(`${path} at ${offset}: a run over a boundary`);
      let data = offset;
      while (data < inode.size && covers(data) === undefined) data = (Math.floor(data / 512) + 1) * 512;
      let hole = offset;
      while (hole < inode.size && covers(hole) !== undefined) hole = (Math.floor(hole / 512) + 1) * 512;
      const found = [reader.seekData(nid, offset), reader.seekHole(nid, offset)];
      const wanted = [data < inode.size ? data : -1, Math.min(hole, inode.size)];
      if (found[0] !== wanted[0] || found[1] !== wanted[1]) t.fail(`${path} at ${offset}: seek ${found.join()}`);
    }
    t.equal(reader.mapRange(nid, inode.size).length, 0, `${path} ends`);
    t.equal(reader.seekData(nid, inode.size), -1);
    t.equal(reader.seekHole(nid, inode.size), -1);
    const dataBlocks = (inode.extents ?? []).reduce((sum, e) => sum + Math.ceil(e.length / 512), 0);
    t.equal(reader.blocks(nid), dataBlocks, `${path}: blocks without holes`);
  }
  const large = resolve(reader, '/sparse/hole of 1 TiB');
  t.equal(reader.seekData(large, 5), -1);
  t.equal(reader.seekHole(large, 5), 5);
  t.equal(reader.mapRange(large, 2 ** 39).length, 2 ** 39);
});

t.test('encodeTree uses one chunk for a file that lies together', async (t) => {
  const sizeOf = (root: Inode): number => encode(root, [2 ** 40]).length;
  const one = sizeOf(directory({ f: file(1, [[0, 1, 1, 0]]) }));
  t.equal(sizeOf(directory({ f: file(2 ** 40, [[0, 2 ** 40, 1, 0]]) })), one);
  t.equal(sizeOf(directory({ f: file(2 ** 40 - 1) })), one);
});

t.test('encodeTree refuses what EROFS cannot hold', async (t) => {
  const cases: readonly (readonly [code: string, root: Inode, devices?: readonly number[]])[] = [
    ['METADATA_INVALID', file(0)],
    ['METADATA_INVALID', directory({ '': file(0) })],
    ['METADATA_INVALID', directory({ '.': directory() })],
    ['METADATA_INVALID', directory({ '..': file(0) })],
    ['METADATA_INVALID', directory({ 'a/b': file(0) })],
    ['METADATA_INVALID', directory({ 'a\0': file(0) })],
    ['METADATA_INVALID', directory({ '\u0100': file(0) })],
    ['METADATA_INVALID', directory({ ['n'.repeat(256)]: file(0) })],
    ['METADATA_INVALID', directory({ f: node(0o644) })],
    ['METADATA_INVALID', directory({ f: node(S_IFDIR) })],
    ['METADATA_INVALID', directory({ f: node(S_IFREG, { children: new Map() }) })],
    ['METADATA_INVALID', directory({ f: symlink('') })],
    ['METADATA_INVALID', directory({ f: symlink('a\0') })],
    ['LIMIT_EXCEEDED', directory({ f: symlink('a'.repeat(4096)) })],
    ['METADATA_INVALID', directory({ f: file(-1) })],
    ['METADATA_INVALID', directory({ f: file(2 ** 53) })],
    ['METADATA_INVALID', directory({ f: file(0, [], { mtime: 0.5 }) })],
    ['METADATA_INVALID', directory({ f: file(0, [], { mtime: NaN }) })],
    ['METADATA_INVALID', directory({ f: file(0, [], { mtimeNsec: 1e9 }) })],
    ['LIMIT_EXCEEDED', directory({ f: file(0, [], { uid: 2 ** 32 }) })],
    ['LIMIT_EXCEEDED', directory({ f: file(0, [], { gid: -1 }) })],
    ['METADATA_INVALID', directory({ f: file(0, [], { xattrs: xattrs({ 'other.a': '' }) }) })],
    ['METADATA_INVALID', directory({ f: file(0, [], { xattrs: xattrs({ 'user.': '' }) }) })],
    ['METADATA_INVALID', directory({ f: file(0, [], { xattrs: xattrs({ 'user.a\0': '' }) }) })],
    ['METADATA_INVALID', directory({ f: file(0, [], { xattrs: xattrs({ 'system.posix_acl_access.x': '' }) }) })],
    ['LIMIT_EXCEEDED', directory({ f: file(0, [], { xattrs: xattrs({ [`user.${'n'.repeat(256)}`]: '' }) }) })],
    ['LIMIT_EXCEEDED', directory({ f: file(0, [], { xattrs: xattrs({ 'user.a': 'x'.repeat(65_536) }) }) })],
    [
      'LIMIT_EXCEEDED',
      directory({
        f: file(0, [], {
          xattrs: xattrs(Object.fromEntries([...'abcde'].map((c) => [`user.${c}`, 'x'.repeat(65_000)]))),
        }),
      }),
    ],
    [
      'METADATA_INVALID',
      directory({ f: node(S_IFIFO, { extents: [{ offset: 0, length: 1, device: 1, position: 0 }] }) }),
    ],
    ['METADATA_INVALID', directory({ f: file(0, [[0, 1, 1, 0]]) })],
    ['METADATA_INVALID', directory({ f: file(512, [[0, 0, 1, 0]]) })],
    ['METADATA_INVALID', directory({ f: file(512, [[0, 513, 1, 0]]) })],
    ['METADATA_INVALID', directory({ f: file(512, [[0, 512, 0, 0]]) })],
    ['METADATA_INVALID', directory({ f: file(512, [[0, 512, 3, 0]]) })],
    ['METADATA_INVALID', directory({ f: file(512, [[0, 512, 2, richDevices[1]]]) })],
    ['METADATA_INVALID', directory({ f: file(512, [[0, 512, 1, 100]]) })],
    ['METADATA_INVALID', directory({ f: file(5000, [[100, 512, 1, 0]]) })],
    ['METADATA_INVALID', directory({ f: file(5000, [[0, 100, 1, 0]]) })],
    [
      'METADATA_INVALID',
      directory({
        f: file(5000, [
          [512, 512, 1, 0],
          [0, 512, 1, 0],
        ]),
      }),
    ],
    [
      'METADATA_INVALID',
      directory({
        f: file(5000, [
          [0, 1024, 1, 0],
          [512, 512, 1, 0],
        ]),
      }),
    ],
    ['LIMIT_EXCEEDED', directory({ f: file(2 ** 40, [[512, 512, 1, 0]]) })],
    ['LIMIT_EXCEEDED', directory(), [2 ** 41]],
    ['LIMIT_EXCEEDED', directory(), Array.from({ length: 65_536 }, () => 0)],
  ];
  for (const [i, [code, root, devices]] of cases.entries()) {
    t.equal(
      codeOf(() => encode(root, devices)),
      code,
      `case ${i}`,
    );
  }
  const twice = directory();
  t.equal(
    codeOf(() => encode(directory({ a: twice, b: twice }))),
    'METADATA_INVALID',
    'a directory with two names',
  );
  const cycle = directory();
  cycle.children!.set('again', cycle);
  t.equal(
    codeOf(() => encode(cycle)),
    'METADATA_INVALID',
    'a directory in itself',
  );
  t.throws(() => encode(directory({ usr: directory({ 'caf\xc3\xa9': symlink('') }) })), { message: /"\/usr\/café"/ });
});

t.test('encodeTree and loadTree are inverse on any tree', async (t) => {
  const bytes = (min: number, except: string, maxLength: number) =>
    fc
      .array(fc.integer({ min: 0, max: 255 }), { minLength: min, maxLength })
      .map((list) =>
        list.map((b) => (except.includes(String.fromCharCode(b)) ? '_' : String.fromCharCode(b))).join(''),
      );
  const name = bytes(1, '\0/', 40).filter((n) => n !== '.' && n !== '..');
  const attributes = fc
    .array(fc.tuple(fc.constantFrom('user.', 'trusted.', 'security.'), bytes(1, '\0', 20), bytes(0, '', 300)), {
      maxLength: 3,
    })
    .map((list) => xattrs(Object.fromEntries(list.map(([prefix, suffix, value]) => [prefix + suffix, value]))));
  const withXattrs = (inode: Inode, a: Map<string, Buffer>): Inode => (a.size > 0 ? { ...inode, xattrs: a } : inode);
  const leaf = fc.oneof(
    bytes(1, '\0', 900).map((target) => symlink(target)),
    fc.tuple(fc.array(fc.nat(8), { maxLength: 5 }), fc.nat(511)).map(([runs, tail]) => sparseFile(runs, tail)),
  );
  let inode: fc.Arbitrary<Inode> = leaf;
  for (let depth = 0; depth < 3; depth++) {
    inode = fc
      .tuple(fc.array(fc.tuple(name, fc.oneof(leaf, inode)), { maxLength: 30 }), attributes)
      .map(([children, a]) => withXattrs(directory(Object.fromEntries(children)), a));
  }
  fc.assert(
    fc.property(inode, (root) => {
      const [got, wanted] = [describe(loadTree(read(root))), describe(root)];
      if (got.join('\n') !== wanted.join('\n')) throw new Error(`${got.join('\n')}\n\n${wanted.join('\n')}`);
    }),
    { numRuns: 50 },
  );
  t.pass();
});

/** Holes and data by turns, each of so many KiB, and a tail of some bytes. */
function sparseFile(runs: readonly number[], tail: number): Inode {
  const extents: [number, number, number, number][] = [];
  let offset = 0;
  for (const [i, kib] of runs.entries()) {
    if (i % 2 === 1 && kib > 0) extents.push([offset, kib * 1024, 1 + (kib % 2), 1024 * i]);
    offset += kib * 1024;
  }
  if (tail > 0) extents.push([offset, tail, 1, 131_072]);
  return file(offset + tail, extents);
}

t.test('200,000 names in a directory', async (t) => {
  const children = new Map<string, Inode>();
  for (let i = 0; i < 200_000; i++)
    children.set(`file number ${(i * 7919) % 200_000}.txt`, file(i, i > 0 ? [[0, i, 1, 0]] : []));
  const reader = read(directory({ many: node(S_IFDIR | 0o755, { children }) }), [2 ** 20]);
  const many = resolve(reader, '/many');
  let wrong = 0;
  for (let i = 0; i < 200_000; i += 17) {
    const bytes = Buffer.from(`file number ${i}.txt`);
    const nid = reader.lookup(many, bytes, 0, bytes.length);
    if (reader.size(nid) !== children.get(bytes.toString())?.size) wrong++;
    bytes[bytes.length - 1] = 0x7a;
    if (reader.lookup(many, bytes, 0, bytes.length) !== 0) wrong++;
  }
  t.equal(wrong, 0);
  t.equal(list(reader, many, 1000).length, 200_002);
  t.equal(loadTree(reader).children!.get('many')!.children!.size, 200_000);
});

t.test('directories 4,000 deep', async (t) => {
  let root = directory({ bottom: file(0) });
  for (let i = 0; i < 4000; i++) root = directory({ d: root });
  const reader = read(root);
  const path = `${'/d'.repeat(4000)}/bottom`;
  t.equal(reader.mode(resolve(reader, path)), S_IFREG | 0o644);
  let inode: Inode | undefined = loadTree(reader);
  for (const name of path.slice(1).split('/')) inode = inode?.children?.get(name);
  t.equal(inode?.mode, S_IFREG | 0o644);
});
