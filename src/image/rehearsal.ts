/**
 * Work on made-up layers, for a thread that has nothing to do yet: JavaScript runs three times as fast once it has run for a
 * while, and the first image that a daemon is asked for should not be the one that pays for it.
 */
import { loadTree } from '../erofs/load.js';
import { ErofsReader } from '../erofs/reader.js';
import type { Inode } from '../erofs/tree.js';
import { encodeTree } from '../erofs/writer.js';
import { encodeTocTable } from '../layer/toc-table.js';
import { TreeBuilder } from '../layer/tree-builder.js';
import { parseToc } from '../source/toc/document.js';
import { Notes } from '../tar/notes.js';
import { mergeLayers } from '../union/merge.js';

const ROUNDS = 4;
const DIRECTORIES = 60;
/** In each directory. */
const FILES = 50;
const CHUNK = 4096;

/** Everything between a table of contents and a merged tree, in steps of some milliseconds. */
export function* rehearse(): Generator<void, void, void> {
  const json = madeUpToc();
  for (let round = 0; round < ROUNDS; round++) {
    const layers: Inode[] = [];
    for (let layer = 0; layer < 2; layer++) {
      const document = parseToc(json, DIRECTORIES * FILES * CHUNK);
      yield;
      const tree = new TreeBuilder(new Notes());
      for (const entry of document.entries) tree.add(entry);
      yield;
      const { root } = tree.finish(document.addressSpace);
      encodeTocTable(document, 'gzip');
      yield;
      layers.push(loadTree(new ErofsReader(Buffer.concat(encodeTree(root, { devices: [document.addressSpace] })))));
      yield;
    }
    const merged = mergeLayers(layers, 'spec');
    yield;
    encodeTree(merged, { devices: layers.map(() => DIRECTORIES * FILES * CHUNK) });
    yield;
  }
}

function madeUpToc(): Buffer {
  const entries: object[] = [];
  const common = { modtime: '2026-01-02T03:04:05Z', uid: 0, gid: 0, userName: 'root', groupName: 'root' };
  const digest = `sha256:${'ab'.repeat(32)}`;
  for (let d = 0; d < DIRECTORIES; d++) {
    const directory = `usr/lib/package-${d}`;
    entries.push({ ...common, name: `${directory}/`, type: 'dir', mode: 0o755 });
    for (let f = 0; f < FILES; f++) {
      const name = `${directory}/file-${f}.py`;
      if (f % 10 === 0) entries.push({ ...common, name, type: 'symlink', mode: 0o777, linkName: 'file-1.py' });
      else if (f % 10 === 9)
        entries.push({ ...common, name, type: 'hardlink', linkName: `${directory}/file-${f - 1}.py` });
      else {
        const offset = (d * FILES + f) * CHUNK;
        entries.push({ ...common, name, type: 'reg', mode: 0o644, size: CHUNK, offset, digest, chunkDigest: digest });
      }
    }
  }
  return Buffer.from(JSON.stringify({ version: 1, entries }));
}
