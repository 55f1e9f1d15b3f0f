import { InvalidArgumentError, type Command } from 'commander';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { S_IFDIR, S_IFMT } from '../../erofs/tree.js';
import type { ImageTree } from '../../image/tree.js';
import { describe, entryDocument, walk, type Entry } from '../entries.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath, type ImagePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import type { Output } from '../output.js';
import { toBytes } from '../text.js';

export interface ShowTreeOptions extends TreeOptions {
  readonly depth?: number;
}

export function registerTree(program: Command, cli: Cli): void {
  const command = program
    .command('tree')
    .description('Show a directory of an image and what is below it.')
    .argument('<image>', 'what to look into')
    .argument('[path]', 'a path inside the image', '/')
    .option('--depth <n>', 'levels below the path', parseDepth);
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina tree --depth 2 oci:app.oci:latest', 'the first two levels'],
        ['lamina tree app.tar /opt', 'everything below /opt'],
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
    const branches = listTree(tree, parseImagePath(path), options.depth ?? Infinity);
    return out.json ? out.array(documents(branches)) : out.lines(lines(out, branches));
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

function* documents(branches: Iterable<Branch>): Generator<unknown> {
  for (const { entry, depth } of branches) yield { depth, ...entryDocument(entry) };
}

const [BAR, GAP, TEE, CORNER] = ['│   ', '    ', '├── ', '└── '].map(toBytes) as [string, string, string, string];

function* lines(out: Output, branches: Iterable<Branch>): Generator<string> {
  let directories = 0;
  let others = 0;
  for (const { entry, depth, last } of branches) {
    if (depth === 0) yield out.name(entry.path);
    else {
      if (entry.type === 'directory') directories++;
      else others++;
      const indent = last.slice(0, -1).map((isLast) => (isLast ? GAP : BAR));
      const target = entry.target === undefined ? '' : ` -> ${out.name(entry.target)}`;
      yield `${indent.join('')}${last.at(-1) === true ? CORNER : TEE}${out.name(entry.name)}${target}`;
    }
  }
  yield '';
  yield `${directories} ${directories === 1 ? 'directory' : 'directories'}, ${others} ${others === 1 ? 'file' : 'files'}`;
}
