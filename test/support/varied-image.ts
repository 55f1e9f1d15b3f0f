/** A small image with every kind of entry, for what writes trees out: links, devices, attributes, odd names and times. */
import { randomBytes } from 'node:crypto';
import { makeLayout, type MadeImage } from './images.js';
import { base256, gnuLong, paxEntry, rawEntry } from './tar.js';

/** vfs_cap_data of version 2: cap_net_raw+ep. */
export const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
export const longName = 'l'.repeat(200);
export const binaryName = Buffer.from([0x62, 0xff, 0xfe, 0x0a, 0x63]);
export const sparseSize = 10_000_000;

const sparseMap = ['2', '1048576', '512', '4194304', '1024', ''].join('\n');

/** Made by tar-stream and raw blocks, so that no writer of ours has a hand in it. */
export function makeVariedImage(directory: string): Promise<MadeImage> {
  const base = [
    { name: './', type: 'directory' as const, mode: 0o751, mtime: new Date('2020-01-01T00:00:00Z') },
    {
      name: 'dir/',
      type: 'directory' as const,
      mode: 0o1777,
      uid: 12,
      gid: 34,
      mtime: new Date('2001-02-03T04:05:06Z'),
    },
    paxEntry({
      mtime: '-1.25',
      'SCHILY.xattr.user.note': Buffer.from([0, 255, 10, 61]),
      'SCHILY.xattr.user.empty': '',
    }),
    { name: 'dir/old', mode: 0o640, uid: 4_000_000, gid: 3_999_999, content: randomBytes(70_000) },
    { name: 'dir/a-link', type: 'link' as const, linkname: 'dir/old' },
    { name: 'another', type: 'link' as const, linkname: 'dir/old' },
    paxEntry({ mtime: '1700000000.123456789', 'SCHILY.xattr.security.capability': capability }),
    { name: 'ping', mode: 0o755, content: 'cap' },
    { name: 'suid', mode: 0o6755, content: '' },
    { name: 'symlink', type: 'symlink' as const, linkname: '../../../../outside', uid: 5 },
    { name: 'symlink-twin', type: 'link' as const, linkname: 'symlink' },
    rawEntry({ name: 'chr', type: '3', devmajor: 300, devminor: 70_000, mode: 0o620 }),
    rawEntry({ name: 'blk', type: '4', devmajor: 7, devminor: 200 }),
    rawEntry({ name: 'fifo', type: '6', uid: base256(77n, 8), mode: 0o604 }),
    rawEntry({ name: binaryName }, 'bytes'),
    gnuLong('L', Buffer.concat([Buffer.from(`dir/${'d'.repeat(120)}`), binaryName])),
    rawEntry({ name: 'x' }, 'a long name that is no text'),
    paxEntry({ path: `dir/${longName}/${longName}`, linkpath: longName }),
    rawEntry({ name: 'x', type: '2', linkname: 'x' }),
    rawEntry({ name: 'dir/locked/', type: '5', mode: 0o000 }),
    { name: 'dir/locked/inside', content: 'x' },
    { name: 'dir/outside', type: 'link' as const, linkname: 'dir/locked/inside' },
    paxEntry({
      'GNU.sparse.major': '1',
      'GNU.sparse.minor': '0',
      'GNU.sparse.name': 'sparse',
      'GNU.sparse.realsize': `${sparseSize}`,
    }),
    rawEntry(
      { name: 'GNUSparseFile.0/sparse' },
      Buffer.concat([Buffer.from(sparseMap.padEnd(512, '\0')), Buffer.alloc(1536, 'S')]),
    ),
    paxEntry({ 'SCHILY.xattr.user.a': 'v' }),
    rawEntry({ name: 'readonly/', type: '5', mode: 0o555 }),
    paxEntry({ 'SCHILY.xattr.user.a': 'v' }),
    rawEntry({ name: 'readonly/file', mode: 0o444 }, 'x'),
    { name: 'gone', content: 'x' },
  ];
  const upper = [
    { name: '.wh.gone' },
    { name: 'dir/new', content: 'upper' },
    { name: 'suid', mode: 0o4711, content: 's' },
  ];
  return makeLayout(directory, { layers: [{ entries: base }, { entries: upper, compression: 'none' }] });
}
