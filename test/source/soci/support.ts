/** Ztocs by another hand: oracle.py, beside this file. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { ByteSource } from '../../../src/compress/index.js';
import { parseDigest, type Digest } from '../../../src/digest/index.js';
import type { Ztoc } from '../../../src/source/soci/ztoc.js';
import { commandExists } from '../../support/commands.js';
import { projectRoot } from '../../support/project.js';
import { skipUnless } from '../../support/skip.js';
import { makeTar, paxEntry, rawEntry } from '../../support/tar.js';
import { layerLike } from '../../compress/support.js';

const oracle = join(projectRoot, 'test/source/soci/oracle.py');
const algorithms = ['', 'gzip', 'uncompressed'];

/** As the oracle prints it. */
export interface PlainZtoc {
  readonly version: string;
  readonly tool: string;
  readonly compressedSize: number;
  readonly uncompressedSize: number;
  readonly algorithm: number;
  readonly maxSpanId: number;
  readonly files: readonly Readonly<Record<string, unknown>>[];
  readonly spanDigests: readonly string[];
  readonly checkpoints: string;
}

export function skipWithoutOracle(t: Test): boolean {
  return skipUnless(t, commandExists('python3'), 'python3 is not installed');
}

function run(args: readonly string[]): PlainZtoc {
  const stdout = execFileSync('python3', [oracle, ...args], { encoding: 'utf8', maxBuffer: 2 ** 28 });
  return JSON.parse(stdout) as PlainZtoc;
}

/** The oracle's ztoc for a layer, and what the oracle says is in it. */
export function buildZtoc(
  directory: string,
  layer: Uint8Array,
  spanSize: number,
  zinfo: 1 | 2 | 'tar',
): { bytes: Buffer; plain: PlainZtoc } {
  const [from, to] = [join(directory, 'layer'), join(directory, 'ztoc')];
  writeFileSync(from, layer);
  const plain = run(['build', from, to, String(spanSize), String(zinfo)]);
  return { bytes: readFileSync(to), plain };
}

export function readZtoc(directory: string, bytes: Uint8Array): PlainZtoc {
  const path = join(directory, 'ours');
  writeFileSync(path, bytes);
  return run(['read', path]);
}

const names: Readonly<Record<string, string>> = { file: 'reg', directory: 'dir' };

/** Ours in the form that the oracle prints. */
export function plainOf({ files, checkpoints, algorithm, ...rest }: Ztoc): PlainZtoc {
  return {
    ...rest,
    version: '0.9',
    algorithm: algorithms.indexOf(algorithm),
    files: files.map(({ mtime, mtimeNsec, records, type, ...file }) => {
      const fraction = String(mtimeNsec).padStart(9, '0').replace(/0+$/, '');
      const time = new Date(mtime * 1000).toISOString().replace(/\.000Z$/, `${fraction === '' ? '' : `.${fraction}`}Z`);
      return { ...file, type: names[type] ?? type, mtime: time, records: [...records] };
    }),
    checkpoints: checkpoints.toString('hex'),
  };
}

export function digestOf(bytes: Uint8Array): Digest {
  return parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`);
}

/** Bytes `start` to `end`: others cannot be read. */
export function only(bytes: Uint8Array, start: number, end: number): ByteSource {
  return {
    size: bytes.length,
    read(offset, into) {
      if (offset < start || offset > end) throw new RangeError(`byte ${offset} is not between ${start} and ${end}`);
      const piece = bytes.subarray(offset, Math.min(end, offset + into.length));
      into.set(piece);
      return piece.length;
    },
  };
}

/** Every kind of entry, and some eleven MiB of data. */
export async function makeLayerTar(): Promise<Buffer> {
  const content = layerLike(11_000_000);
  const binary = Buffer.from([0x80, 0, 0xff, 0x3d]);
  return makeTar([
    { name: 'dir/', type: 'directory', uname: 'root', gname: 'wheel' },
    { name: 'dir/first', content: content.subarray(0, 5_000_001), mode: 0o4755, uid: 1000, gid: 100 },
    { name: 'dir/empty' },
    { name: 'dir/link', type: 'symlink', linkname: 'first' },
    { name: 'dir/hard', type: 'link', linkname: 'dir/first' },
    { name: 'null', type: 'character-device', devmajor: 1, devminor: 3 },
    { name: 'disk', type: 'block-device', devmajor: 8, devminor: 17 },
    { name: 'pipe', type: 'fifo' },
    paxEntry({ mtime: '1700000000.000000001', 'SCHILY.xattr.security.capability': binary, path: 'm\u00fcll/\u00fc' }),
    rawEntry({ name: 'mull/u', mode: 0o100640, uid: 0o7777777 }, content.subarray(5_000_001)),
    paxEntry({ mtime: '-1.5', 'SCHILY.xattr.user.empty': '', uname: 'j\u00f6rg' }),
    rawEntry({ name: 'last', mtime: 12 }, 'last'),
  ]);
}
