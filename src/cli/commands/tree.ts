import { InvalidArgumentError, type Command } from 'commander';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { S_IFDIR, S_IFMT, S_IFREG } from '../../erofs/tree.js';
import type { ImageTree } from '../../image/tree.js';
import { describe, entryDocument, walk, type Entry } from '../entries.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath, type ImagePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import type { Output } from '../output.js';
import { formatBytes, toBytes } from '../text.js';

export interface ShowTreeOptions extends TreeOptions {
  readonly depth?: number;
  readonly size?: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('tree')
    .description('Show a directory of an image and what is below it.')
    .argument('<image>', 'what to look into')
    .argument('[path]', 'a path inside the image', '/')
    .option('--depth <n>', 'levels below the path', parseDepth)
    .option('--size', 'bytes of each file, and of all files below each directory');
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina tree --depth 2 oci:app.oci:latest', 'the first two levels'],
        ['lamina tree app.tar /opt', 'everything below /opt'],
        ['lamina tree --size --depth 1 app.oci /usr', 'where the bytes are'],
      ]),
    )
    .action((image: string, path: string, options: ShowTreeOptions) =>
      cli.run(command, (context) => showTree(context, image, path, options)),
    );
}

function parseDepth(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('It must be a whole number from 1 on.');
  return Number(text);
}

async function showTree(context: Context, image: string, path: string, options: ShowTreeOptions): Promise<void> {
  const { out } = context;
  await withTree(context, image, options, (tree) => {
    const imagePath = parseImagePath(path);
    const branches = listTree(tree, imagePath, options.depth ?? Infinity);
    const sizes = options.size === true ? totalSizes(tree, resolvePath(tree, imagePath, true)) : undefined;
    return out.json ? out.array(documents(branches, sizes)) : out.lines(lines(out, branches, sizes));
  });
}

export interface Branch {
  readonly entry: Entry;
  /** 0 is the path itself. */
  readonly depth: number;
  /** For the entry and each directory above it, but not the path: whether it is the last of its siblings. */
  readonly last: readonly boolean[];
}

/** The path itself, then what is below it, depth first. */
export function* listTree(tree: ImageTree, path: ImagePath, depth: number): Generator<Branch> {
  const start = resolvePath(tree, path, true);
  yield { entry: describe(tree, start, path.path), depth: 0, last: [] };
  if ((tree.reader.mode(start) & S_IFMT) !== S_IFDIR) return;
  for (const { nid, path: below, depth: level, last } of walk(tree, start, path.path, { depth, all: true })) {
    yield { entry: describe(tree, nid, below), depth: level, last };
  }
}

/**
 * Bytes of the files below each directory, by nid. A file with several names counts once, in the directory where the
 * walk meets it first; holes count.
 */
export function totalSizes(tree: ImageTree, start: number): ReadonlyMap<number, number> {
  const totals = new Map<number, number>();
  const counted = new Set<number>();
  const parents: number[] = [start];
  if ((tree.reader.mode(start) & S_IFMT) !== S_IFDIR) return totals;
  totals.set(start, 0);
  for (const { nid, depth } of walk(tree, start, '/', { depth: Infinity, all: true })) {
    const type = tree.reader.mode(nid) & S_IFMT;
    parents.length = depth;
    if (type === S_IFDIR) {
      parents.push(nid);
      totals.set(nid, 0);
    } else if (type === S_IFREG && !counted.has(nid)) {
      if (tree.reader.nlink(nid) > 1) counted.add(nid);
      for (const parent of parents) totals.set(parent, (totals.get(parent) ?? 0) + tree.reader.size(nid));
    }
  }
  return totals;
}

type Sizes = ReadonlyMap<number, number> | undefined;

function* documents(branches: Iterable<Branch>, sizes: Sizes): Generator<unknown> {
  for (const { entry, depth } of branches) {
    const total = sizes === undefined ? {} : { totalSize: sizes.get(entry.nid) ?? entry.size };
    yield { depth, ...entryDocument(entry), ...total };
  }
}

/** "12.3 kB  ", aligned; nothing where sizes were not asked for. */
function sizeColumn(entry: Entry, sizes: Sizes): string {
  if (sizes === undefined) return '';
  const bytes = sizes.get(entry.nid) ?? (entry.type === 'file' ? entry.size : undefined);
  return `${(bytes === undefined ? '' : formatBytes(bytes)).padStart(SIZE_WIDTH)}  `;
}

/** "1000 kB" does not occur; "999 kB" does. */
const SIZE_WIDTH = 7;

const [BAR, GAP, TEE, CORNER] = ['│   ', '    ', '├── ', '└── '].map(toBytes) as [string, string, string, string];

function* lines(out: Output, branches: Iterable<Branch>, sizes: Sizes): Generator<string> {
  let directories = 0;
  let others = 0;
  for (const { entry, depth, last } of branches) {
    if (depth === 0) yield sizeColumn(entry, sizes) + out.name(entry.path);
    else {
      if (entry.type === 'directory') directories++;
      else others++;
      const indent = last.slice(0, -1).map((isLast) => (isLast ? GAP : BAR));
      const target = entry.target === undefined ? '' : ` -> ${out.name(entry.target)}`;
      yield `${sizeColumn(entry, sizes)}${indent.join('')}${last.at(-1) === true ? CORNER : TEE}${out.name(entry.name)}${target}`;
    }
  }
  yield '';
  yield `${directories} ${directories === 1 ? 'directory' : 'directories'}, ${others} ${others === 1 ? 'file' : 'files'}`;
}
