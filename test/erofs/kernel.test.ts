/** The kernel as judge: it mounts what encodeTree writes, and must see what the tree says. */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ErofsReader } from '../../src/erofs/reader.js';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Inode } from '../../src/erofs/tree.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { MOUNT_ATTR_RDONLY, fsMount } from '../../src/native/mounts.js';
import { skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { contentOf, directory, file, node, paths, resolve, richDevices, richTree } from './trees.js';

interface Mounted {
  /** The mountpoint. */
  readonly target: string;
  readonly imagePath: string;
  readonly reader: ErofsReader;
}

async function mountTree(t: Test, root: Inode, devices: readonly Buffer[]): Promise<Mounted> {
  const temp = tempDir(t);
  const target = join(temp, 'mnt');
  const imagePath = join(temp, 'tree.erofs');
  mkdirSync(target);
  const bytes = Buffer.concat(encodeTree(root, { devices: devices.map((d) => d.length) }));
  writeFileSync(imagePath, bytes);
  const options = devices.map((device, i): [string, string] => {
    const path = join(temp, `device ${i}`);
    // The layer as blobfs gives it: rounded up to a block.
    writeFileSync(path, Buffer.concat([device, Buffer.alloc(-device.length & 511)]));
    return ['device', path];
  });
  await fsMount('erofs', imagePath, options, MOUNT_ATTR_RDONLY, target);
  return { target, imagePath, reader: new ErofsReader(bytes) };
}

function cannotMount(t: Test): boolean {
  const obstacle = kernelEngineObstacle();
  return skipUnless(t, obstacle === undefined, obstacle ?? '');
}

function bytePath(target: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(target), Buffer.from(path, 'latin1')]);
}

/** What lstat(2) must say, from the tree alone; what it does not define (a directory's size), from the reader. */
function expectedStat(inode: Inode, links: number, reader: ErofsReader, nid: number): Record<string, bigint> {
  const directories = [...(inode.children?.values() ?? [])].filter((c) => c.children !== undefined).length;
  return {
    mode: BigInt(inode.mode),
    uid: BigInt(inode.uid),
    gid: BigInt(inode.gid),
    nlink: BigInt(inode.children === undefined ? links : 2 + directories),
    rdev: glibcDevice(inode.rdev),
    size: BigInt(inode.children === undefined ? inode.size : reader.size(nid)),
    mtimeNs: BigInt(inode.mtime) * 1_000_000_000n + BigInt(inode.mtimeNsec),
    ino: BigInt(nid),
  };
}

/** Linux's 32-bit device number (new_encode_dev) and glibc's (makedev) differ above minor 255 only in where bits go. */
function glibcDevice(rdev: number): bigint {
  const major = BigInt((rdev >>> 8) & 0xfff);
  const minor = BigInt((rdev & 0xff) | ((rdev >>> 12) & 0xfff00));
  return ((major & 0xfffn) << 8n) | (minor & 0xffn) | ((minor & ~0xffn) << 12n);
}

const isFile = (inode: Inode): boolean => (inode.mode & S_IFMT) === S_IFREG;

t.test('the kernel sees the inodes, names, targets and data of the tree', async (t) => {
  if (cannotMount(t)) return;
  const root = richTree();
  const devices = richDevices.map((bytes) => randomBytes(bytes));
  const { target, reader } = await mountTree(t, root, devices);
  const links = new Map<Inode, number>();
  for (const [, inode] of paths(root)) links.set(inode, (links.get(inode) ?? 0) + 1);
  for (const [path, inode] of paths(root)) {
    const full = bytePath(target, path);
    const expected = expectedStat(inode, links.get(inode)!, reader, resolve(reader, path));
    const stat = lstatSync(full, { bigint: true }) as unknown as Record<string, bigint>;
    const got = Object.fromEntries(Object.keys(expected).map((key) => [key, stat[key]]));
    t.same(got, expected, path);
    if (inode.children !== undefined) {
      const names = readdirSync(full, { encoding: 'buffer' }).map((name) => name.toString('latin1'));
      t.same(names.sort(), [...inode.children.keys()].sort(), `${path} lists`);
    }
    if (inode.target !== undefined) {
      t.equal(readlinkSync(full, { encoding: 'buffer' }).toString('latin1'), inode.target, `${path} leads`);
    }
    if (isFile(inode) && inode.size <= 2_000_000) {
      t.equal(sha256(readFileSync(full)), sha256(contentOf(inode, devices)), `${path} reads`);
    }
  }
  t.throws(() => lstatSync(join(target, 'absent')), { code: 'ENOENT' });
  const { bsize, blocks } = statfsSync(target);
  t.equal(bsize, 512);
  t.equal(blocks, reader.totalBlocks);
});

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

t.test('the kernel sees the xattrs and ACLs of the tree', async (t) => {
  if (cannotMount(t)) return;
  const root = richTree();
  // getfattr writes names as text.
  root.children!.get('attributes')!.children!.get('user')!.xattrs!.delete('user.\xff');
  const { target } = await mountTree(
    t,
    root,
    richDevices.map((bytes) => Buffer.alloc(bytes)),
  );
  for (const [path, inode] of paths(root)) {
    if (!path.startsWith('/attributes/')) continue;
    const full = join(target, path);
    const dump = execFileSync('getfattr', ['-h', '-d', '-m', '-', '-e', 'hex', '--absolute-names', '--', full], {
      encoding: 'utf8',
      maxBuffer: 2 ** 24,
    });
    const got = dump.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    const expected = [...(inode.xattrs ?? [])].map(([name, value]) => `${name}=0x${value.toString('hex')}`);
    t.same(got.map((line) => line.replace(/=$/, '=0x').replace(/^([^=]*)$/, '$1=0x')).sort(), expected.sort(), path);
  }
  const listed = execFileSync('getfacl', ['-cpn', join(target, 'attributes/acl')], { encoding: 'utf8' });
  t.same(listed.trim().split('\n'), ['user::rw-', 'user:1000:r--', 'group::r--', 'mask::r--', 'other::r--']);
});

t.test('the kernel finds names in large directories and at the end of long paths', async (t) => {
  if (cannotMount(t)) return;
  const children = new Map<string, Inode>();
  for (let i = 0; i < 20_000; i++) children.set(`${'n'.repeat(i % 200)}${i}`, file(i));
  let deep = directory({ bottom: file(1) });
  for (let i = 0; i < 300; i++) deep = directory({ d: deep });
  const root = directory({ many: node(S_IFDIR | 0o755, { children }), deep });
  const { target } = await mountTree(t, root, []);
  t.same(readdirSync(join(target, 'many')).sort(), [...children.keys()].sort());
  let wrong = 0;
  for (const [name, { size }] of children) if (lstatSync(join(target, 'many', name)).size !== size) wrong++;
  t.equal(wrong, 0);
  t.equal(lstatSync(join(target, 'deep', 'd/'.repeat(300), 'bottom')).size, 1);
});

t.test('find sees a real tree through the kernel as it is on disk', async (t) => {
  if (cannotMount(t)) return;
  const source = '/usr/share/doc';
  const inodes = new Map<string, Inode>();
  const load = (path: string): Inode => {
    const s = lstatSync(path, { bigint: true });
    const key = `${s.dev}:${s.ino}`;
    const known = inodes.get(key);
    if (known !== undefined) return known;
    const mode = Number(s.mode);
    const type = mode & S_IFMT;
    const seconds = (s.mtimeNs - (((s.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n)) / 1_000_000_000n;
    const inode = node(mode, {
      uid: Number(s.uid),
      gid: Number(s.gid),
      mtime: Number(seconds),
      mtimeNsec: Number(s.mtimeNs - seconds * 1_000_000_000n),
      size: type === S_IFREG ? Number(s.size) : 0,
    });
    inodes.set(key, inode);
    if (type === S_IFLNK) inode.target = readlinkSync(path, { encoding: 'latin1' });
    if (type === S_IFDIR) {
      inode.children = new Map(readdirSync(path, 'latin1').map((name) => [name, load(join(path, name))]));
    }
    return inode;
  };
  const { target } = await mountTree(t, load(source), []);
  // A directory's size is the file system's own affair, its link count on overlayfs too.
  const find = (directory: string): string[] =>
    execFileSync(
      'find',
      ['.', '(', '-type', 'd', '-printf', '%P %y %m %U %G %T@\\n', ')', '-o', '-printf', '%P %y %m %U %G %s %T@ %l\\n'],
      {
        cwd: directory,
        encoding: 'latin1',
        maxBuffer: 2 ** 28,
      },
    )
      .split('\n')
      .sort();
  t.same(find(target), find(source));
});
