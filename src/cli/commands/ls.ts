import type { Command } from 'commander';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { S_IFDIR, S_IFMT } from '../../erofs/tree.js';
import type { ImageTree } from '../../image/tree.js';
import { children, describe, entryDocument, join, walk, type Entry } from '../entries.js';
import { modeString, shortTime } from '../format.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath, type ImagePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import { table, type Output } from '../output.js';

export interface LsOptions extends TreeOptions {
  readonly long?: boolean;
  readonly all?: boolean;
  readonly recursive?: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('ls')
    .description('List a directory of an image, without mounting it.')
    .argument('<image>', 'what to look into')
    .argument('[path]', 'a path inside the image', '/')
    .option('-l, --long', 'mode, links, owner, size, time (UTC), layer, name')
    .option('-a, --all', 'names that start with a dot, too')
    .option('-R, --recursive', 'everything below');
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina ls oci:app.oci:latest', 'the root directory'],
        ['lamina ls -la app.tar /etc', 'with owner, mode, size, mtime and layer'],
        ['lamina ls -R --json app.oci /usr', 'everything, for a program'],
      ]),
    )
    .action((image: string, path: string, options: LsOptions) =>
      cli.run(command, (context) => ls(context, image, path, options)),
    );
}

async function ls(context: Context, image: string, path: string, options: LsOptions): Promise<void> {
  const { out } = context;
  await withTree(context, image, options, (tree) => {
    const sections = list(tree, parseImagePath(path), options);
    return out.json ? out.array(documents(sections)) : out.lines(lines(out, sections, options));
  });
}

export interface Section {
  /** Undefined: PATH is not a directory, and is the only entry. */
  readonly directory: string | undefined;
  readonly entries: readonly Entry[];
}

/** As ls(1): a symlink named by PATH is followed, unless -l asks about the link itself. */
export function* list(tree: ImageTree, path: ImagePath, options: LsOptions): Generator<Section> {
  const start = resolvePath(tree, path, options.long !== true);
  const all = options.all === true;
  if (!isDirectory(tree, start)) {
    yield { directory: undefined, entries: [describe(tree, start, path.path)] };
    return;
  }
  yield section(tree, start, path.path, all);
  if (options.recursive !== true) return;
  for (const { nid, path: below } of walk(tree, start, path.path, { depth: Infinity, all })) {
    if (isDirectory(tree, nid)) yield section(tree, nid, below, all);
  }
}

function section(tree: ImageTree, nid: number, path: string, all: boolean): Section {
  return {
    directory: path,
    entries: children(tree, nid, all).map((child) => describe(tree, child.nid, join(path, child.name))),
  };
}

function isDirectory(tree: ImageTree, nid: number): boolean {
  return (tree.reader.mode(nid) & S_IFMT) === S_IFDIR;
}

function* documents(sections: Iterable<Section>): Generator<unknown> {
  for (const { entries } of sections) yield* entries.map(entryDocument);
}

function* lines(out: Output, sections: Iterable<Section>, { long, recursive }: LsOptions): Generator<string> {
  let first = true;
  for (const { directory, entries } of sections) {
    if (recursive === true && directory !== undefined) {
      yield `${first ? '' : '\n'}${out.name(directory)}:`;
    }
    first = false;
    const name = directory === undefined ? (entry: Entry) => entry.path : (entry: Entry) => entry.name;
    if (long === true) yield* longLines(out, entries, name);
    else yield* entries.map((entry) => out.name(name(entry)));
  }
}

const RIGHT_ALIGNED = [1, 3, 5];

function longLines(out: Output, entries: readonly Entry[], name: (entry: Entry) => string): string[] {
  const columns = table(
    entries.map((entry) => [
      modeString(entry.mode),
      String(entry.nlink),
      `${entry.uid}:${entry.gid}`,
      entry.device === undefined ? String(entry.size) : `${entry.device.major},${entry.device.minor}`,
      shortTime(entry.mtime),
      entry.layer === undefined ? '-' : String(entry.layer),
    ]),
    RIGHT_ALIGNED,
  );
  return entries.map((entry, i) => {
    const target = entry.target === undefined ? '' : ` -> ${out.name(entry.target)}`;
    return `${columns[i]}  ${out.name(name(entry))}${target}`;
  });
}
