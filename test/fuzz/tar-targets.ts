/** Layers: the tar reader, the tree made of it, and the merge of two of them. */
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import type { Inode } from '../../src/erofs/tree.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { LaminaError } from '../../src/errors.js';
import { TreeBuilder } from '../../src/layer/tree-builder.js';
import type { TarEntry } from '../../src/tar/entry.js';
import { TarReader } from '../../src/tar/reader.js';
import { mergeLayers } from '../../src/union/merge.js';
import type { Target } from './targets.js';
import { sum, words } from './words.js';

const BLOCK = 512;

/** Headers with a magic get the checksum that they should have. */
export function repairTar(bytes: Buffer): Buffer {
  const tar = Buffer.from(bytes);
  for (let at = 0; at + BLOCK <= tar.length; at += BLOCK) {
    if (tar.toString('latin1', at + 257, at + 262) !== 'ustar') continue;
    tar.fill(' ', at + 148, at + 156);
    let total = 0;
    for (let i = at; i < at + BLOCK; i++) total += tar[i] ?? 0;
    tar.write(`${total.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1');
  }
  return tar;
}

export const tarWords = words(
  'ustar\x0000',
  'ustar  \0',
  ...'012345673xXgLKSDVM'.split(''),
  '.wh.',
  '.wh..wh..opq',
  '.wh..wh.plnk',
  '../',
  './/',
  '/',
  '\x80\0\0\0\0\0\0\x01',
  '\xff\xff\xff\xff\xff\xff\xff\xff',
  '00000001000\0',
  'SCHILY.xattr.',
  '22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n',
  '31 GNU.sparse.map=0,512,1024,1\n',
  '30 SCHILY.xattr.user.a=b\n',
);

function readTar(bytes: Buffer, step: number): TarEntry[] {
  const entries: TarEntry[] = [];
  const reader = new TarReader((entry) => entries.push(entry), { origins: true });
  for (let at = 0; at < bytes.length; at += step) reader.push(bytes.subarray(at, at + step));
  reader.end();
  return entries;
}

/** The answer, or the error's code and message. */
function attempt(run: () => string): string {
  try {
    return run();
  } catch (e) {
    if (e instanceof LaminaError) return `${e.code} ${e.message}`;
    throw e;
  }
}

function describe(entries: readonly TarEntry[]): string {
  for (const { data, size } of entries) {
    let end = 0;
    for (const run of data) {
      if (run.offset < end || run.length <= 0 || run.offset + run.length > size)
        throw new Error('runs are not in order');
      end = run.offset + run.length;
    }
  }
  return JSON.stringify(entries.map(({ xattrs, ...entry }) => [entry, [...xattrs]]));
}

const tar: Target = {
  name: 'tar',
  runs: 6000,
  dictionary: tarWords,
  repair: repairTar,
  run(bytes) {
    const whole = attempt(() => describe(readTar(bytes, Infinity)));
    if (attempt(() => describe(readTar(bytes, 700))) !== whole) throw new Error('it depends on how the stream is cut');
    const entries = readTar(bytes, Infinity);
    const types = [...new Set(entries.map(({ type }) => type))].sort().join('-');
    return `${types} ${sum(whole)}`;
  },
};

/** A sparse file of 1 TiB is a few bytes of tar and many of a tree. */
function tooSlow(root: Inode): boolean {
  const todo = [root];
  for (let inode = todo.pop(); inode !== undefined; inode = todo.pop()) {
    if (inode.size > 64 * 1024 * 1024) return true;
    todo.push(...(inode.children?.values() ?? []));
  }
  return false;
}

function layerTree(bytes: Buffer): { root: Inode; space: number; notes: readonly string[] } {
  const reader = new TarReader((entry) => builder.add(entry));
  const builder = new TreeBuilder(reader.notes);
  reader.push(bytes);
  reader.end();
  const start = Math.ceil(bytes.length / 65_536) * 65_536;
  const { root, appendix } = builder.finish(start);
  return { root, space: start + appendix.size, notes: reader.notes.list() };
}

/** What is encoded is read back, with every check that the loader makes. */
function throughImage(root: Inode, devices: readonly number[]): { image: Buffer; tree: Inode } {
  const image = Buffer.concat(encodeTree(root, { devices }));
  return { image, tree: loadTree(new ErofsReader(image)) };
}

const layer: Target = {
  name: 'layer',
  runs: 4000,
  dictionary: tarWords,
  repair: repairTar,
  run(bytes) {
    const { root, space, notes } = layerTree(bytes);
    if (tooSlow(root)) return 'sparse ';
    const { image } = throughImage(root, [space]);
    return `tree-${notes.length} ${sum(image)}`;
  },
};

/** Two layers: the first is as long in blocks as the first two bytes say. */
const merge: Target = {
  name: 'merge',
  runs: 3000,
  dictionary: tarWords,
  repair: (bytes) => Buffer.concat([bytes.subarray(0, 2), repairTar(bytes.subarray(2))]),
  run(bytes) {
    const split = bytes.length < 2 ? bytes.length : Math.min(2 + BLOCK * bytes.readUInt16LE(0), bytes.length);
    const parts = [bytes.subarray(2, split), bytes.subarray(split)];
    const answers = (['spec', 'overlay'] as const).map((compat) => {
      const layers = parts.map(layerTree);
      if (layers.some(({ root }) => tooSlow(root))) return 'sparse';
      const trees = layers.map(({ root, space }) => throughImage(root, [space]).tree);
      const merged = mergeLayers(trees, compat);
      return sum(
        throughImage(
          merged,
          layers.map(({ space }) => space),
        ).image,
      );
    });
    return `merged-${answers[0] === answers[1] ? 'same' : 'other'} ${answers.join(' ')}`;
  },
};

export const tarTargets: readonly Target[] = [tar, layer, merge];
