/**
 * Work on made-up layers, for a thread that has nothing to do yet: JavaScript runs three times as fast once it has run for a
 * while, and the first image that a daemon is asked for should not be the one that pays for it.
 */
import { digestOf } from '../digest/index.js';
import { loadTree } from '../erofs/load.js';
import { ErofsReader } from '../erofs/reader.js';
import type { Inode } from '../erofs/tree.js';
import { encodeTree } from '../erofs/writer.js';
import { encodeTocTable } from '../layer/toc-table.js';
import { TreeBuilder } from '../layer/tree-builder.js';
import { tarEntryOf } from '../source/soci/entries.js';
import { decodeZtoc, encodeZtoc, type ZtocFile } from '../source/soci/ztoc.js';
import { parseToc, type TocDocument } from '../source/toc/document.js';
import { BLOCK } from '../tar/header.js';
import { Notes } from '../tar/notes.js';
import { mergeLayers } from '../union/merge.js';

const ROUNDS = 8;
/** The others merge what was just built (src/layer/fresh-trees.ts). */
const ROUND_READ_BACK = 3;
const DIRECTORIES = 60;
/** In each directory. */
const FILES = 50;
/** Bytes of a large file that are compressed alone, and more than the blob has. */
const [CHUNK, BLOB] = [4 * 1024 * 1024, 2 ** 29];

/** Everything between a table of contents, or a list of files, and a merged tree, in steps of some milliseconds. */
export function* rehearse(): Generator<void, void, void> {
  const json = madeUpToc();
  const list = madeUpZtoc(parseToc(json, BLOB));
  yield;
  for (let round = 0; round < ROUNDS; round++) {
    const layers: Inode[] = [];
    const devices: number[] = [];
    for (let layer = 0; layer < 2; layer++) {
      const document = parseToc(json, BLOB);
      yield;
      const tree = new TreeBuilder(new Notes());
      for (const entry of document.entries) tree.add(entry);
      yield;
      const { root } = tree.finish(document.addressSpace);
      encodeTocTable(document, 'gzip');
      yield;
      const encoded = encodeTree(root, { devices: [document.addressSpace] });
      layers.push(round === ROUND_READ_BACK ? loadTree(new ErofsReader(Buffer.concat(encoded))) : root);
      devices.push(document.addressSpace);
      yield;
    }
    const merged = mergeLayers(layers, 'spec');
    yield;
    encodeTree(merged, { devices });
    yield;
    const { files, uncompressedSize } = decodeZtoc(list);
    yield;
    const tree = new TreeBuilder(new Notes());
    files.forEach((file, i) => tree.add(tarEntryOf(file, i + 1)));
    tree.finish(uncompressedSize);
    yield;
  }
}

/** Of the same files. */
function madeUpZtoc({ entries }: TocDocument): Buffer {
  let end = 0;
  const files = entries.map(({ xattrs: _, ...entry }): ZtocFile => {
    const offset = end + BLOCK;
    end = Math.ceil((offset + entry.size) / BLOCK) * BLOCK;
    return { ...entry, offset, uname: 'root', gname: 'root', records: new Map() };
  });
  return encodeZtoc({
    tool: 'rehearsal',
    compressedSize: BLOB,
    uncompressedSize: end,
    algorithm: 'gzip',
    files,
    maxSpanId: 0,
    spanDigests: [digestOf(Buffer.alloc(0))],
    checkpoints: Buffer.alloc(0),
  });
}

/** As converters write them, with their fields in that order: what runs fast for one form of objects does not for others. */
function madeUpToc(): Buffer {
  const entries: object[] = [];
  const modtime = '2026-01-02T03:04:05Z';
  const digest = `sha256:${'ab'.repeat(32)}`;
  let offset = 0;
  for (let d = 0; d < DIRECTORIES; d++) {
    const directory = `./usr/lib/package-${d}`;
    entries.push({ name: `${directory}/`, type: 'dir', modtime, mode: 0o755, ...(d % 7 === 0 ? { gid: d } : {}) });
    for (let f = 0; f < FILES; f++) {
      const [name, content] = [`${directory}/file-${f}.py`, { offset, digest, chunkDigest: digest }];
      if (f === 0) entries.push({ name, type: 'symlink', modtime, linkName: 'file-1.py', mode: 0o777 });
      else if (f === 1) entries.push({ name, type: 'reg', modtime, mode: 0o600, digest });
      else if (f === 2) entries.push({ name, type: 'char', modtime, mode: 0o600, devMajor: 5, devMinor: 1 });
      else if (f === 3)
        entries.push({ name, type: 'hardlink', modtime, linkName: `${directory}/file-1.py`, mode: 0o600 });
      else if (f === 4) {
        const parts = { offset, digest, chunkSize: CHUNK, chunkDigest: digest };
        entries.push({ name, type: 'reg', size: 2 * CHUNK, modtime, mode: 0o755, ...parts });
        entries.push({ name, type: 'chunk', offset: (offset += 1000), chunkOffset: CHUNK, chunkDigest: digest });
      } else if (f % 20 === 5)
        entries.push({ name, type: 'reg', size: 364, modtime, mode: 0o640, gid: 42, ...content });
      else entries.push({ name, type: 'reg', size: 172 + f * d, modtime, mode: 0o644, ...content });
      offset += 1000;
    }
  }
  return Buffer.from(JSON.stringify({ version: 1, entries }));
}
