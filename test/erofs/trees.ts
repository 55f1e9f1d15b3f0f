/** Trees for the EROFS tests, and how to compare them. Names and targets are latin1, as in src/erofs/tree.ts. */
import type { ErofsReader } from '../../src/erofs/reader.js';
import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
  S_IFSOCK,
  type Extent,
  type Inode,
} from '../../src/erofs/tree.js';

const defaults = { uid: 0, gid: 0, mtime: 0, mtimeNsec: 0, size: 0, rdev: 0, order: 0 };

export function node(mode: number, more: Partial<Inode> = {}): Inode {
  return { mode, ...defaults, ...more };
}

export function directory(children: Readonly<Record<string, Inode>> = {}, more: Partial<Inode> = {}): Inode {
  return node(S_IFDIR | 0o755, { children: new Map(Object.entries(children)), ...more });
}

export function symlink(target: string, more: Partial<Inode> = {}): Inode {
  return node(S_IFLNK | 0o777, { target, size: target.length, ...more });
}

/** A file whose extents are given as offset, length, device, position. */
export function file(
  size: number,
  extents: readonly (readonly [number, number, number, number])[] = [],
  more: Partial<Inode> = {},
): Inode {
  const list: Extent[] = extents.map(([offset, length, device, position]) => ({ offset, length, device, position }));
  return node(S_IFREG | 0o644, list.length > 0 ? { size, extents: list, ...more } : { size, ...more });
}

export function xattrs(record: Readonly<Record<string, string>>): Map<string, Buffer> {
  return new Map(Object.entries(record).map(([name, value]) => [name, Buffer.from(value, 'latin1')]));
}

/** A POSIX ACL as getxattr(2) gives it (linux/posix_acl_xattr.h): version 2, then tag, permissions and id. */
export function acl(...entries: readonly (readonly [tag: number, permissions: number, id?: number])[]): string {
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(2);
  for (const [i, [tag, permissions, id = 0xffffffff]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * i);
    bytes.writeUInt16LE(permissions, 6 + 8 * i);
    bytes.writeUInt32LE(id, 8 + 8 * i);
  }
  return bytes.toString('latin1');
}

const ACL = acl([0x01, 6], [0x02, 4, 1000], [0x04, 4], [0x10, 4], [0x20, 4]);

/** Bytes of the two devices of {@link richTree}. */
export const richDevices = [256 * 1024, 64 * 512 + 100] as const;

/** Everything that a tree can hold, on two devices. */
export function richTree(): Inode {
  const hard = file(1000, [[0, 1000, 1, 512]], { uid: 1000, gid: 1001, order: 7 });
  const hardSymlink = symlink('somewhere');
  const times = {
    epoch: node(S_IFREG | 0o600),
    before: node(S_IFREG | 0o600, { mtime: -1, mtimeNsec: 999_999_999 }),
    'long before': node(S_IFREG | 0o600, { mtime: -5_000_000_000, mtimeNsec: 1 }),
    'long after': node(S_IFREG | 0o600, { mtime: 0x3_0000_0001, mtimeNsec: 123_456_789 }),
  };
  const modes: Record<string, Inode> = {};
  for (const mode of [0, 0o4755, 0o2755, 0o1777, 0o7777]) modes[mode.toString(8)] = node(S_IFREG | mode);
  const devices = {
    zero: node(S_IFCHR | 0o666, { rdev: (1 << 8) | 5 }),
    whiteout: node(S_IFCHR, { rdev: 0 }),
    // Major 4095 and minor 1048575, the largest there are.
    large: node(S_IFBLK | 0o660, { rdev: 0xffffffff, uid: 0xfffffffe, gid: 0xfffffffe }),
    fifo: node(S_IFIFO | 0o644),
    socket: node(S_IFSOCK | 0o755),
  };
  const names: Record<string, Inode> = {};
  for (const name of ['!', '-', '.a', '..a', '...', ' ', '\n', '\\', '"', '\xff\xfe', '\x01', 'a\tb', 'caf\xc3\xa9']) {
    names[name] = file(0);
  }
  for (const c of ['a', 'b', 'z', '\xff']) names[c.repeat(255)] = symlink(c);
  const links: Record<string, Inode> = {};
  for (const length of [1, 2, 59, 60, 100, 383, 384, 447, 448, 449, 511, 512, 513, 1023, 1024, 1500, 4095]) {
    links[`target of ${length}`] = symlink('t/'.repeat(length).slice(0, length));
  }
  const sparse = {
    'hole only': file(1_000_000),
    'hole of 1 TiB': file(2 ** 40),
    'data, hole': file(100_000, [[0, 4096, 1, 1024]]),
    'hole, data': file(8192 + 700, [[8192, 700, 2, 0]]),
    'data, hole, data': file(65_536 + 10, [
      [0, 512, 1, 1536],
      [1024, 1536, 2, 1024],
      [65_536, 10, 1, 8192],
    ]),
    coarse: file(300_000, [
      [65_536, 65_536, 1, 131_072],
      [262_144, 37_856, 1, 0],
    ]),
    'in pieces that lie together': file(3000, [
      [0, 512, 1, 512],
      [512, 1024, 1, 1024],
      [1536, 1464, 1, 2048],
    ]),
    'in pieces of both devices': file(2048, [
      [0, 1024, 1, 512],
      [1024, 1024, 2, 1536],
    ]),
    'the same piece twice': file(2048, [
      [0, 1024, 1, 512],
      [1024, 1024, 1, 512],
    ]),
    'end of the device': file(100, [[0, 100, 2, 64 * 512]]),
  };
  const sizes: Record<string, Inode> = {};
  for (const size of [1, 511, 512, 513, 4095, 4096, 4097, 100_000]) sizes[`${size}`] = file(size, [[0, size, 1, 1024]]);
  const attributes = {
    user: file(0, [], { xattrs: xattrs({ 'user.a': 'b', 'user.empty': '', 'user.\xff': '\0\xff' }) }),
    large: file(10, [[0, 10, 1, 0]], { xattrs: xattrs({ 'user.large': 'x'.repeat(65_535), 'user.z': 'last' }) }),
    'long name': file(0, [], { xattrs: xattrs({ [`user.${'n'.repeat(250)}`]: 'v' }) }),
    capability: file(3, [[0, 3, 1, 512]], {
      xattrs: xattrs({ 'security.capability': '\x01\0\0\x02\0\x04\0\0'.padEnd(20, '\0') }),
    }),
    trusted: directory({}, { xattrs: xattrs({ 'trusted.overlay.opaque': 'y', 'trusted.a.b.c': '' }) }),
    acl: file(0, [], { mode: S_IFREG | 0o644, xattrs: xattrs({ 'system.posix_acl_access': ACL }) }),
    'default acl': directory(
      { below: file(0) },
      { xattrs: xattrs({ 'system.posix_acl_default': ACL, 'user.x': '1' }) },
    ),
    symlink: symlink('t'.repeat(100), { xattrs: xattrs({ 'trusted.x': 'y'.repeat(300) }) }),
    device: node(S_IFCHR, { xattrs: xattrs({ 'trusted.lamina.device': 'y' }) }),
  };
  const deep = directory({ deeper: directory({ deepest: directory({ hard }) }) });
  return directory(
    {
      hard,
      'hard symlink': hardSymlink,
      links: directory({ ...links, hard, 'hard symlink': hardSymlink }),
      times: directory(times),
      modes: directory(modes, { mode: S_IFDIR | 0o1777 }),
      devices: directory(devices),
      names: directory(names),
      sparse: directory(sparse),
      sizes: directory(sizes),
      attributes: directory(attributes),
      deep,
      empty: directory(),
    },
    { mode: S_IFDIR | 0o750, uid: 5, gid: 6, mtime: 1_700_000_000, mtimeNsec: 5, order: 0xffffffff },
  );
}

/** The same trees give the same lines: one for each name, with everything about its inode; equal numbers are one inode. */
export function describe(root: Inode): string[] {
  const numbers = new Map<Inode, number>();
  const lines: string[] = [];
  const todo: [string, Inode][] = [['', root]];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const [path, inode] = next;
    const number = numbers.get(inode);
    if (number === undefined) numbers.set(inode, numbers.size);
    const { children, xattrs: attributes, extents, ...rest } = inode;
    const known = number === undefined ? rest : 'again';
    const values = [...(attributes ?? [])].sort().map(([name, value]) => [name, value.toString('hex')]);
    lines.push(JSON.stringify([path, numbers.get(inode), known, values, joined(extents ?? [])]));
    const sorted = [...(children ?? [])].sort(([a], [b]) => (a < b ? 1 : -1));
    for (const [name, child] of sorted) todo.push([`${path}/${name}`, child]);
  }
  return lines;
}

function joined(extents: readonly Extent[]): Extent[] {
  const list: Extent[] = [];
  for (const e of extents) {
    const last = list.at(-1);
    const together =
      last?.device === e.device && last.offset + last.length === e.offset && last.position + last.length === e.position;
    if (last !== undefined && together) list[list.length - 1] = { ...last, length: last.length + e.length };
    else list.push(e);
  }
  return list;
}

/** The bytes of a file by its extents. */
export function contentOf({ size, extents }: Inode, devices: readonly Buffer[]): Buffer {
  const content = Buffer.alloc(size);
  for (const e of extents ?? []) devices[e.device - 1]!.copy(content, e.offset, e.position, e.position + e.length);
  return content;
}

/** Every path of a tree once, parents first: pairs of path ("" for the root, then "/name..") and inode. */
export function* paths(root: Inode): Generator<[string, Inode]> {
  const todo: [string, Inode][] = [['', root]];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    yield next;
    for (const [name, child] of next[1].children ?? []) todo.push([`${next[0]}/${name}`, child]);
  }
}

/** The nid that a path leads to, 0 for none. */
export function resolve(reader: ErofsReader, path: string): number {
  let nid = 1;
  for (const name of path.split('/').slice(1)) {
    const bytes = Buffer.from(name, 'latin1');
    nid = nid === 0 ? 0 : reader.lookup(nid, bytes, 0, bytes.length);
  }
  return nid;
}
