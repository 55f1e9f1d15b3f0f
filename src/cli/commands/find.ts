import { InvalidArgumentError, type Command } from 'commander';
import { S_IFDIR, S_IFMT } from '../../erofs/tree.js';
import { LaminaError } from '../../errors.js';
import { origins } from '../../image/provenance.js';
import { realPath } from '../../image/real-path.js';
import type { ImageTree } from '../../image/tree.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { describe, entryDocument, join, walk, type Entry } from '../entries.js';
import type { FileType } from '../format.js';
import { globMatcher } from '../glob.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath, type ImagePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, collect, type TreeOptions } from '../options.js';
import { breathe } from '../signals.js';
import { argumentBytes, plural } from '../text.js';

export interface FindOptions extends TreeOptions {
  readonly name?: readonly string[];
  readonly type?: ReadonlySet<FileType>;
  readonly size?: readonly SizeTest[];
  readonly layer?: number;
  readonly print0?: boolean;
}

/** A file's size in bytes is more than, less than or just so many. */
export interface SizeTest {
  readonly is: '+' | '-' | '=';
  readonly bytes: number;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('find')
    .description('Find files of an image by name, type, size or layer. All conditions must hold.')
    .argument('<image>', 'what to look into')
    .argument('[path]', 'a path inside the image', '/')
    .option('--name <glob>', 'last part of the path: * ? [a-z]; again: either of them', collect)
    .option(
      '--type <letters>',
      'f file, d directory, l symlink, c b device, p fifo, s socket; several: f,l',
      parseTypes,
    )
    .option('--size <n>', 'files of +N more, -N less or N bytes; k M G for powers of 1024', parseSize)
    .option('--layer <n>', 'what layer N put there, 1 is the base', parseLayer)
    .option('-0, --print0', 'end each path with a NUL instead of a newline');
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ["lamina find oci:app.oci:latest --name '*.so*'", 'by name, everywhere'],
        ['lamina find app.oci /usr --type f --size +10M', 'what is large'],
        ['lamina find app.oci --layer 3 --json', 'what the third layer put there'],
      ]),
    )
    .action((image: string, path: string, options: FindOptions) =>
      cli.run(command, (context) => find(context, image, path, options)),
    );
}

const TYPE_LETTERS: Readonly<Partial<Record<string, FileType>>> = {
  f: 'file',
  d: 'directory',
  l: 'symlink',
  c: 'character-device',
  b: 'block-device',
  p: 'fifo',
  s: 'socket',
};

function parseTypes(text: string, before: ReadonlySet<FileType> = new Set()): ReadonlySet<FileType> {
  const types = text.split(',').map((letter) => TYPE_LETTERS[letter]);
  if (types.includes(undefined))
    throw new InvalidArgumentError('It takes letters of f, d, l, c, b, p, s with commas between.');
  return new Set([...before, ...types.filter((type) => type !== undefined)]);
}

const UNITS: Readonly<Partial<Record<string, number>>> = { '': 1, c: 1, k: 1024, M: 1024 ** 2, G: 1024 ** 3 };

function parseSize(text: string, before: readonly SizeTest[] = []): readonly SizeTest[] {
  const [, sign = '', digits = '', unit = ''] = /^([+-]?)(\d{1,15})([ckMG]?)$/.exec(text) ?? [];
  const factor = UNITS[unit];
  if (digits === '' || factor === undefined)
    throw new InvalidArgumentError('It takes a number of bytes, as +N, -N or N; N may end in k, M or G.');
  return [...before, { is: sign === '+' || sign === '-' ? sign : '=', bytes: Number(digits) * factor }];
}

function parseLayer(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('Layers are numbered from 1 on.');
  return Number(text);
}

async function find(context: Context, image: string, path: string, options: FindOptions): Promise<void> {
  const { out } = context;
  await withTree(context, image, options, async (tree) => {
    const found = findEntries(tree, parseImagePath(path), options);
    if (out.json) return out.array(documents(found));
    if (options.print0 !== true) return out.lines(paths(found, (entry) => out.name(entry.path)));
    for (const entry of found) {
      await out.write(Buffer.from(`${entry.path}\0`, 'latin1'));
      await breathe();
    }
  });
}

/** The path itself, too, as find(1); a symlink there is not followed unless a slash ends it. */
export function* findEntries(tree: ImageTree, path: ImagePath, options: FindOptions): Generator<Entry> {
  const matches = condition(tree, path, options);
  const start = resolvePath(tree, path, false);
  const first = describe(tree, start, path.path);
  if (matches(first)) yield first;
  if ((tree.reader.mode(start) & S_IFMT) !== S_IFDIR) return;
  for (const { nid, path: below } of walk(tree, start, path.path, { depth: Infinity, all: true })) {
    const entry = describe(tree, nid, below);
    if (matches(entry)) yield entry;
  }
}

function condition(tree: ImageTree, path: ImagePath, options: FindOptions): (entry: Entry) => boolean {
  const names = options.name?.map((glob) => globMatcher(argumentBytes(glob)));
  const { type, size } = options;
  const isOfLayer = layerCondition(tree, path, options);
  return (entry) =>
    (names === undefined || names.some((matches) => matches(entry.name))) &&
    (type === undefined || type.has(entry.type)) &&
    (size === undefined || (entry.type === 'file' && size.every((test) => hasSize(entry.size, test)))) &&
    isOfLayer(entry);
}

function hasSize(size: number, { is, bytes }: SizeTest): boolean {
  if (is === '+') return size > bytes;
  return is === '-' ? size < bytes : size === bytes;
}

function layerCondition(
  tree: ImageTree,
  path: ImagePath,
  { layer, compat = 'spec' }: FindOptions,
): (entry: Entry) => boolean {
  if (layer === undefined) return () => true;
  const { layers } = tree.prepared;
  if (layer > layers.length)
    throw new LaminaError('USAGE', `There is no layer ${layer}: the image has ${plural(layers.length, 'layer')}`);
  const origin = origins(tree.prepared, compat);
  const real = realPath(tree, path.directory ? `${path.path}/` : path.path, { followLast: false });
  return (entry) => {
    const below = entry.path.slice(path.path.length).replace(/^\//, '');
    return origin(below === '' ? real : join(real, below)) === layer;
  };
}

function* documents(entries: Iterable<Entry>): Generator<unknown> {
  for (const entry of entries) yield entryDocument(entry);
}

function* paths(entries: Iterable<Entry>, text: (entry: Entry) => string): Generator<string> {
  for (const entry of entries) yield text(entry);
}
