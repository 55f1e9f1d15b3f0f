/**
 * A tree as text, one line per path, read in two ways that share nothing but the form of the line: from Lamina's own
 * readers, and from a mount by what Node and the kernel say (lstat, readdir, readlink, read, llistxattr).
 *
 *     PATH TYPE MODE UID:GID SIZE MTIME RDEV NLINK GROUP XATTRS CONTENT|TARGET
 *
 * Bytes that are not printable ASCII are written \xNN. A field that says nothing is "-". Left out is what the engines may
 * answer differently: the size of directories and allocated blocks.
 */
import { createHash } from 'node:crypto';
import { constants, type BigIntStats } from 'node:fs';
import { lstat, open, readdir, readlink, type FileHandle } from 'node:fs/promises';
import type { ImageTree } from '../../src/image/tree.js';
import { getXattr, listXattrs } from '../../src/native/xattr.js';

export interface Node {
  /** Latin1. */
  readonly path: string;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** "SECONDS.NANOSECONDS" */
  readonly mtime: string;
  /** "MAJOR,MINOR" */
  readonly rdev: string;
  readonly nlink: number;
  /** What names of the same file have in common. */
  readonly inode: number;
  readonly xattrs: readonly (readonly [name: string, value: Buffer])[];
  /** Of a symlink, latin1. */
  readonly target: string;
  /** Of a file: {@link contentHash}. */
  readonly content: string;
  /** Of a mount: access and change times that are not the modification time. */
  readonly otherTimes: string;
}

const TYPES: Readonly<Record<number, string>> = {
  1: 'fifo',
  2: 'chr',
  4: 'dir',
  6: 'blk',
  8: 'file',
  10: 'link',
  12: 'sock',
};

/** Bytes; of larger files the first and the last half count. */
const WHOLE_MAX = 64 * 1024 * 1024;
export const HALF = 1024 * 1024;

export function contentHash(...parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const bytes of parts) hash.update(bytes);
  return `sha256:${hash.digest('hex').slice(0, 16)}`;
}

export function escapeBytes(bytes: string): string {
  return bytes.replace(/[^!-~]|\\/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** The lines, in bytewise order of the paths' components. */
export function format(nodes: readonly Node[]): string[] {
  const names = new Map<number, number>();
  for (const { type, inode } of nodes) if (type !== 'dir') names.set(inode, (names.get(inode) ?? 0) + 1);
  const groups = new Map<number, string>();
  for (const { inode } of nodes) {
    if ((names.get(inode) ?? 0) > 1 && !groups.has(inode)) groups.set(inode, `#${groups.size + 1}`);
  }
  return nodes.map((node) =>
    [
      escapeBytes(node.path),
      node.type,
      node.mode.toString(8).padStart(4, '0'),
      `${node.uid}:${node.gid}`,
      node.type === 'dir' ? '-' : node.size,
      node.mtime,
      node.type === 'chr' || node.type === 'blk' ? node.rdev : '-',
      node.nlink,
      groups.get(node.inode) ?? '-',
      node.xattrs.length === 0 ? '-' : node.xattrs.map(([name, value]) => `${name}=${shortValue(value)}`).join(','),
      node.type === 'link' ? escapeBytes(node.target) : node.content || '-',
      ...(node.otherTimes === '' ? [] : [node.otherTimes]),
    ].join(' '),
  );
}

/** Hex; a long value by its length and hash. */
function shortValue(value: Buffer): string {
  return value.length <= 64 ? `0x${value.toString('hex')}` : `${value.length}:${contentHash(value)}`;
}

const childPath = (path: string, name: string): string => (path === '/' ? `/${name}` : `${path}/${name}`);

/** By Lamina's tree and chunk readers. */
export function nodesOfTree(tree: ImageTree): Node[] {
  const { reader } = tree;
  const nodes: Node[] = [];
  const todo: { path: string; nid: number }[] = [{ path: '/', nid: 1 }];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const { path, nid } = next;
    const type = TYPES[reader.mode(nid) >> 12] ?? '?';
    const rdev = reader.rdev(nid);
    nodes.push({
      path,
      type,
      mode: reader.mode(nid) & 0o7777,
      uid: reader.uid(nid),
      gid: reader.gid(nid),
      size: reader.size(nid),
      mtime: `${reader.mtime(nid)}.${String(reader.mtimeNsec(nid)).padStart(9, '0')}`,
      rdev: `${(rdev >>> 8) & 0xfff},${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}`,
      nlink: reader.nlink(nid),
      inode: nid,
      xattrs: reader.xattrNames(nid).map((name) => [name, reader.xattr(nid, name) ?? Buffer.alloc(0)] as const),
      target: type === 'link' ? Buffer.from(reader.readlink(nid)).toString('latin1') : '',
      content: type === 'file' ? treeContent(tree, nid) : '',
      otherTimes: '',
    });
    if (type !== 'dir') continue;
    const entries = tree.entries(nid);
    for (const { name, nid: child } of entries.reverse()) todo.push({ path: childPath(path, name), nid: child });
  }
  return nodes;
}

function treeContent(tree: ImageTree, nid: number): string {
  const size = tree.reader.size(nid);
  const read = (from: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    tree.readRange(nid, from, length, bytes);
    return bytes;
  };
  return size <= WHOLE_MAX ? contentHash(read(0, size)) : contentHash(read(0, HALF), read(size - HALF, HALF));
}

const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const OPEN_FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Of a mounted tree, through descriptors, so that paths may be of any length. */
export async function nodesOfMount(root: string): Promise<Node[]> {
  const nodes: Node[] = [];
  const handle = await open(root, OPEN_DIRECTORY);
  try {
    nodes.push(await nodeOf(Buffer.from(`/proc/self/fd/${handle.fd}/.`), '/'));
    await walk(handle, '/', nodes);
  } finally {
    await handle.close();
  }
  return nodes;
}

async function walk(directory: FileHandle, path: string, nodes: Node[]): Promise<void> {
  const at = (name: string): Buffer => Buffer.from(`/proc/self/fd/${directory.fd}/${name}`, 'latin1');
  const names = (await readdir(at('.'), { encoding: 'buffer' })).map((name) => name.toString('latin1')).sort();
  for (const name of names) {
    const node = await nodeOf(at(name), childPath(path, name));
    nodes.push(node);
    if (node.type !== 'dir') continue;
    const child = await open(at(name), OPEN_DIRECTORY);
    try {
      await walk(child, node.path, nodes);
    } finally {
      await child.close();
    }
  }
}

async function nodeOf(at: Buffer, path: string): Promise<Node> {
  const stat = await lstat(at, { bigint: true });
  const mode = Number(stat.mode);
  const type = TYPES[mode >> 12] ?? '?';
  const time = timeText(stat.mtimeNs);
  const others = [
    ...(stat.atimeNs === stat.mtimeNs ? [] : [`atime=${timeText(stat.atimeNs)}`]),
    ...(stat.ctimeNs === stat.mtimeNs ? [] : [`ctime=${timeText(stat.ctimeNs)}`]),
  ];
  return {
    path,
    type,
    mode: mode & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: Number(stat.size),
    mtime: time,
    rdev: `${(stat.rdev >> 8n) & 0xfffn},${(stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xfff00n)}`,
    nlink: Number(stat.nlink),
    inode: Number(stat.ino),
    xattrs: listXattrs(at).map((name) => [name, getXattr(at, name) ?? Buffer.alloc(0)] as const),
    target: type === 'link' ? (await readlink(at, { encoding: 'buffer' })).toString('latin1') : '',
    content: type === 'file' ? await fileContent(at, stat) : '',
    otherTimes: others.join(','),
  };
}

function timeText(ns: bigint): string {
  const nsec = ((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return `${(ns - nsec) / 1_000_000_000n}.${nsec.toString().padStart(9, '0')}`;
}

async function fileContent(at: Buffer, { size }: BigIntStats): Promise<string> {
  const file = await open(at, OPEN_FILE);
  try {
    const read = async (from: number, length: number): Promise<Buffer> => {
      const bytes = Buffer.alloc(length);
      for (let done = 0; done < length;) {
        const { bytesRead } = await file.read(bytes, done, length - done, from + done);
        if (bytesRead === 0) return bytes.subarray(0, done);
        done += bytesRead;
      }
      return bytes;
    };
    const length = Number(size);
    // One byte more than there should be: a file must not be longer than its size.
    if (length <= WHOLE_MAX) return contentHash(await read(0, length + 1));
    return contentHash(await read(0, HALF), await read(length - HALF, HALF));
  } finally {
    await file.close();
  }
}
