/**
 * An image of three layers with the hard cases in it: links of all kinds, devices, capabilities, ACLs, attributes, times
 * before 1970 and to the nanosecond, names that are no text, a sparse file, a deep path; then deletions and replacements
 * of every type. The first layer is packed by GNU tar from real files, which needs root.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, linkSync, mkdirSync, openSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { makeLayout, type MadeImage } from '../support/images.js';
import { makeTar, paxEntry } from '../support/tar.js';

/** What the base layer needs besides coreutils and tar. */
export const neededCommands = ['setfattr', 'setcap', 'setfacl'] as const;

/** Bytes of the file that takes a while to read: `hard/random`. */
export const RANDOM_SIZE = 128 * 1024 * 1024;

export async function makeHardImage(directory: string): Promise<MadeImage> {
  const base = packBase(join(directory, 'base'));
  const second = await makeTar([
    { name: 'gone/.wh.file' },
    { name: '.wh.deleted' },
    { name: 'opaque/.wh..wh..opq' },
    { name: 'opaque/new', content: 'only this' },
    { name: 'dir-to-file', content: 'a file now' },
    { name: 'file-to-dir/', type: 'directory', mode: 0o711 },
    { name: 'file-to-dir/inside', content: 'x' },
    { name: 'file-to-link', type: 'symlink', linkname: 'file-to-dir/inside' },
    { name: 'hard/into-lower', type: 'link', linkname: 'hard/a' },
    { name: 'through/link', content: 'lands where the symlink points' },
    { name: 'kept/added', content: 'the directory keeps its owner and time' },
  ]);
  const random = randomBytes(RANDOM_SIZE);
  const third = await makeTar([
    paxEntry({ 'SCHILY.xattr.user.binary': Buffer.from([0, 255, 128, 10]), mtime: '1700000000.123456789' }),
    { name: 'hard/again', content: 'with an attribute' },
    { name: 'hard/random', content: random },
    { name: 'opaque/.wh.new' },
    { name: 'opaque/third', content: '3' },
  ]);
  return makeLayout(join(directory, 'image'), {
    layers: [{ tar: base }, { tar: second }, { tar: third, blob: gzipSync(third, { level: 1 }) }],
    config: { Cmd: ['/bin/true'], Env: ['PATH=/bin'] },
  });
}

/** The image, and what umoci makes of it. */
export interface UnpackedImage {
  readonly image: MadeImage;
  readonly oracle: string;
}

export async function makeUnpackedHardImage(directory: string): Promise<UnpackedImage> {
  const image = await makeHardImage(directory);
  const unpacked = join(directory, 'unpacked');
  execFileSync('umoci', ['unpack', '--image', `${image.directory}:latest`, unpacked], { stdio: 'ignore' });
  return { image, oracle: join(unpacked, 'rootfs') };
}

function packBase(root: string): Buffer {
  const hard = join(root, 'hard');
  const sh = (...args: string[]): void => void execFileSync(args[0] ?? '', args.slice(1), { cwd: hard });
  mkdirSync(join(hard, 'd'), { recursive: true });
  writeFileSync(join(hard, 'a'), 'linked');
  linkSync(join(hard, 'a'), join(hard, 'b'));
  linkSync(join(hard, 'a'), join(hard, 'd', 'c'));
  symlinkSync('nowhere', join(hard, 'dangling'));
  symlinkSync('../../../etc', join(hard, 'up'));
  sh('mkfifo', 'pipe');
  sh('mknod', 'chr', 'c', '1', '3');
  sh('mknod', 'blk', 'b', '7', '200');
  sh('mknod', 'bigdev', 'c', '300', '70000');
  for (const name of ['cap', 'suid', 'acl', 'old', 'nano', 'empty'])
    writeFileSync(join(hard, name), name === 'empty' ? '' : name);
  sh('setcap', 'cap_net_raw+ep', 'cap');
  sh('chmod', '6755', 'suid');
  sh('chmod', '1777', 'd');
  sh('setfattr', '-n', 'user.text', '-v', 'hello', 'a');
  sh('setfattr', '-n', 'user.bin', '-v', '0x00ff80fe0a', 'acl');
  sh('setfattr', '-n', 'trusted.t', '-v', '1', 'acl');
  sh('setfacl', '-m', 'u:1234:rw', 'acl');
  sh('setfacl', '-d', '-m', 'g:55:rx', 'd');
  sh('chown', '65534:4242424', 'a');
  sh('chown', '-h', '12:34', 'dangling');
  sh('touch', '-d', '1969-12-31 23:59:58.25 UTC', 'old');
  sh('touch', '-d', '2033-05-18 03:33:20.123456789 UTC', 'nano');
  for (const name of [
    Buffer.from([0xff, 0xfe, 0x6e]),
    Buffer.from('n'.repeat(255)),
    Buffer.from('new\nline'),
    Buffer.from('ünï ☃'),
  ]) {
    writeFileSync(Buffer.concat([Buffer.from(`${hard}/`), name]), 'x');
  }
  const deep = join(hard, ...Array.from({ length: 60 }, () => 'deep'));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, 'leaf'), 'x');
  const sparse = openSync(join(hard, 'sparse'), 'w');
  writeSync(sparse, 'middle', 100_000_000);
  closeSync(sparse);
  truncateSync(join(hard, 'sparse'), 200_000_000);
  mkdirSync(join(hard, 'many'));
  for (let i = 0; i < 3000; i++) writeFileSync(join(hard, 'many', `file-${i}`), `${i}\n`);

  for (const dir of ['gone', 'deleted/sub', 'opaque/sub', 'dir-to-file', 'target', 'kept'])
    mkdirSync(join(root, dir), { recursive: true });
  for (const file of [
    'gone/file',
    'gone/stays',
    'deleted/sub/f',
    'opaque/old',
    'opaque/sub/f',
    'dir-to-file/f',
    'file-to-dir',
    'file-to-link',
  ]) {
    writeFileSync(join(root, file), file);
  }
  symlinkSync('target', join(root, 'through'));
  execFileSync('chown', ['99:98', join(root, 'kept')]);
  execFileSync('touch', ['-d', '2001-02-03 04:05:06.7 UTC', join(root, 'kept')]);
  return execFileSync(
    'tar',
    [
      '-C',
      root,
      '-S',
      '--format=pax',
      '--xattrs',
      '--xattrs-include=*',
      '--numeric-owner',
      '--sort=name',
      '-cf',
      '-',
      '.',
    ],
    { maxBuffer: 1 << 30 },
  );
}
