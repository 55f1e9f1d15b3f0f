/** A thread that has just built the trees of layers merges them as they are: what comes out is what their form on disk gives. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadTree } from '../../src/erofs/load.js';
import { ErofsReader } from '../../src/erofs/reader.js';
import type { Inode } from '../../src/erofs/tree.js';
import { encodeTree } from '../../src/erofs/writer.js';
import { LaminaError } from '../../src/errors.js';
import { TreeBuilder } from '../../src/layer/tree-builder.js';
import { Notes } from '../../src/tar/notes.js';
import { TarReader } from '../../src/tar/reader.js';
import { mergeLayers } from '../../src/union/merge.js';
import { generateStack } from '../differential/generate.js';
import { layerTar, worlds, type Stack } from '../differential/stack.js';
import { projectRoot } from '../support/project.js';

const SEED = 30_000;
const STACKS = 100;
const SPACE = 2 ** 30;

function built(tar: Buffer): Inode {
  const builder = new TreeBuilder(new Notes());
  const reader = new TarReader((entry) => builder.add(entry));
  reader.push(tar);
  reader.end();
  return builder.finish(SPACE / 2).root;
}

/** The merged tree as it is written, or the code of what is thrown. */
function outcome({ layers, world }: Stack, form: (root: Inode) => Inode): Buffer | string {
  try {
    const trees = layers.map((entries) => form(built(layerTar(entries))));
    const merged = mergeLayers(trees, world === 'spec' ? 'spec' : 'overlay');
    return Buffer.concat(encodeTree(merged, { devices: trees.map(() => SPACE) }));
  } catch (e) {
    if (e instanceof LaminaError) return `${e.code} ${e.message}`;
    throw e;
  }
}

function encoded(root: Inode): Buffer {
  return Buffer.concat(encodeTree(root, { devices: [SPACE] }));
}

const asBuilt = (root: Inode): Inode => {
  encoded(root);
  return root;
};
const readBack = (root: Inode): Inode => loadTree(new ErofsReader(encoded(root)));

t.test('layers are merged as built as they are read back', async (t) => {
  const fixtures = join(projectRoot, 'test/differential/fixtures');
  const known = readdirSync(fixtures).map((name) => JSON.parse(readFileSync(join(fixtures, name), 'utf8')) as Stack);
  const random = Array.from({ length: STACKS }, (_, i) => worlds.map((world) => generateStack(SEED + i, world))).flat();
  let trees = 0;
  const different = [...known, ...random].filter((stack) => {
    const [fresh, stored] = [outcome(stack, asBuilt), outcome(stack, readBack)];
    if (typeof stored !== 'string') trees++;
    return !Buffer.from(fresh).equals(Buffer.from(stored));
  });
  t.same(different, []);
  t.ok(trees > STACKS, `${trees} trees`);
});
