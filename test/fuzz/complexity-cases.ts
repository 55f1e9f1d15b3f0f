/**
 * What grows with the input, each as a function of its size: `prepare` makes the input, what it returns is measured.
 * Inputs are made of raw header blocks.
 */
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import type { Inode } from '../../src/erofs/tree.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { TreeBuilder } from '../../src/layer/tree-builder.js';
import { TarReader } from '../../src/tar/reader.js';
import { mergeLayers } from '../../src/union/merge.js';
import { END, padded, paxEntry, paxRecord, rawEntry, rawHeader } from '../support/tar.js';

export interface Case {
  /** The larger size; the smaller is a quarter. */
  readonly n: number;
  /** MiB of heap that the larger size has to do with. */
  readonly heap: number;
  /** How often the measured part runs, for sizes that are done at once. */
  readonly times?: number;
  readonly prepare: (n: number) => () => void;
}

interface Built {
  readonly root: Inode;
  readonly space: number;
}

function build(tar: Buffer): Built {
  const reader = new TarReader((entry) => builder.add(entry));
  const builder = new TreeBuilder(reader.notes);
  reader.push(tar);
  reader.end();
  const start = Math.ceil(tar.length / 65_536) * 65_536;
  const { root, appendix } = builder.finish(start);
  return { root, space: start + appendix.size };
}

const encode = (root: Inode, devices: readonly number[]): ErofsReader =>
  new ErofsReader(Buffer.concat(encodeTree(root, { devices })));

/** Layers, base first, from tar to the merged tree, by way of their images as in the store. */
function merged(tars: readonly Buffer[]): ErofsReader {
  const built = tars.map(build);
  const trees = built.map(({ root, space }) => loadTree(encode(root, [space])));
  return encode(
    mergeLayers(trees, 'spec'),
    built.map(({ space }) => space),
  );
}

/** `n` headers, the `i`th with this name. */
function many(n: number, name: (i: number) => string, type = '0', linkname = ''): Buffer {
  const template = rawHeader({ name: '', type, linkname });
  const base = template.reduce((sum, byte, i) => sum + (i >= 148 && i < 156 ? 0x20 : byte), 0);
  const tar = Buffer.alloc(n * 512);
  for (let i = 0; i < n; i++) {
    template.copy(tar, i * 512);
    const length = tar.write(name(i), i * 512, 'latin1');
    let sum = base;
    for (let k = 0; k < length; k++) sum += tar[i * 512 + k] ?? 0;
    tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, i * 512 + 148, 'latin1');
  }
  return tar;
}

/** A sparse file as GNU tar's version 1.0 has it, with a block of data in every second block. */
function sparseFile(name: string, segments: number): Buffer {
  const lines = [segments, ...Array.from({ length: segments }, (_, i) => `${i * 1024}\n512`)].join('\n');
  const map = padded(Buffer.from(`${lines}\n`));
  const records = {
    'GNU.sparse.major': '1',
    'GNU.sparse.minor': '0',
    'GNU.sparse.name': name,
    'GNU.sparse.realsize': String(segments * 1024),
  };
  return Buffer.concat([paxEntry(records), rawEntry({ name }, Buffer.concat([map, Buffer.alloc(segments * 512)]))]);
}

function lookUpAll(reader: ErofsReader, names: readonly string[]): void {
  const directory = reader.lookup(1, Buffer.from('d'), 0, 1);
  for (const name of names) {
    const bytes = Buffer.from(name);
    if (reader.lookup(directory, bytes, 0, bytes.length) === 0) throw new Error(`${name} is not there`);
  }
  let count = 0;
  reader.readdir(directory, 0, () => ++count > 0);
  if (count !== names.length + 2) throw new Error(`${count} entries`);
}

export const cases: Readonly<Record<string, Case>> = {
  'entries in one directory': {
    n: 200_000,
    heap: 400,
    prepare(n) {
      const names = Array.from({ length: n }, (_, i) => `file-${i}`);
      const tar = many(n, (i) => `d/${names[i] ?? ''}`);
      return () => lookUpAll(merged([tar]), names);
    },
  },
  files: {
    n: 1_000_000,
    heap: 2000,
    prepare(n) {
      const tar = many(n, (i) => `d${Math.floor(i / 1000)}/f${i}`);
      return () => void merged([tar]);
    },
  },
  'whiteouts of one directory': {
    n: 100_000,
    heap: 400,
    prepare(n) {
      const tars = [many(n, (i) => `d/f${i}`), many(n, (i) => `d/.wh.f${i}`)];
      return () => void merged(tars);
    },
  },
  'components of a path': {
    n: 4000,
    // In 64 MB, Node 24 spends most of the time on collecting what 4,000 leave, but not what 1,000 do.
    heap: 128,
    times: 20,
    prepare(n) {
      const path = `${'a/'.repeat(n - 1)}f`;
      const tar = Buffer.concat([paxEntry({ path }), rawEntry({ name: 'f' }), END]);
      return () => void merged([tar, tar]);
    },
  },
  layers: {
    n: 300,
    heap: 128,
    prepare(n) {
      const tars = Array.from({ length: n }, (_, layer) =>
        Buffer.concat([
          rawHeader({ name: `own-${layer}/`, type: '5' }),
          many(50, (i) => `d/f${i}`),
          many(50, (i) => `own-${layer}/f${i}`),
          many(25, (i) => `own-${layer - 1}/.wh.f${i}`),
          END,
        ]),
      );
      return () => void merged(tars);
    },
  },
  'hard links to one sparse file': {
    n: 100_000,
    heap: 256,
    prepare(n) {
      const tar = Buffer.concat([sparseFile('f', n / 20), many(n, (i) => `l${i}`, '1', 'f')]);
      const below = rawEntry({ name: 'below' });
      return () => void merged([below, tar]);
    },
  },
  'segments of a sparse file': {
    n: 200_000,
    heap: 256,
    prepare(n) {
      const tar = sparseFile('f', n);
      return () => void merged([tar]);
    },
  },
  'bytes of a PAX header': {
    n: 1024 * 1024 - 64,
    heap: 128,
    times: 5,
    prepare(n) {
      const records: Buffer[] = [];
      for (let length = 0, i = 0; ; i++) {
        const record = paxRecord(`LAMINA.key.${i}`, 'v');
        length += record.length;
        if (length > n) break;
        records.push(record);
      }
      const tar = Buffer.concat([rawEntry({ type: 'x' }, Buffer.concat(records)), rawEntry({ name: 'f' }), END]);
      return () => void merged([tar]);
    },
  },
  'names behind symlinks that lead on and on': {
    n: 8000,
    heap: 128,
    prepare(n) {
      const steps = 'd/../'.repeat(6);
      const chain = Array.from({ length: 200 }, (_, i) =>
        rawHeader({ name: `l${i}`, type: '2', linkname: i === 199 ? 'd' : `${steps}l${i + 1}` }),
      );
      const tar = Buffer.concat([rawHeader({ name: 'd/', type: '5' }), ...chain, many(n, (i) => `l0/f${i}`)]);
      return () => void merged([tar]);
    },
  },
};
