import { resolve } from 'node:path';
import type { Command } from 'commander';
import { extractTree } from '../../image/extract.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import { breathe, interruptible } from '../signals.js';
import { formatBytes, plural } from '../text.js';

export interface ExtractOptions extends TreeOptions {
  readonly rootless?: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('extract')
    .description('Write the tree of an image as files, its layers flattened. Every byte is verified.')
    .argument('<image>', 'what to extract')
    .argument('<dir>', 'a new or empty directory')
    .argument('[path]', 'a path inside the image, which becomes DIR', '/')
    .option('--rootless', 'without owners, devices and privileged attributes (always so for ordinary users)');
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina extract oci:app.oci:latest ./rootfs', 'everything, as root with owners and devices'],
        ['lamina extract app.oci ./etc /etc', 'one directory'],
        ['lamina extract --rootless app.oci ./look', 'as files of your own'],
      ]),
    )
    .action((image: string, directory: string, path: string, options: ExtractOptions) =>
      cli.run(command, (context) => extract(context, image, directory, path, options)),
    );
}

async function extract(
  context: Context,
  image: string,
  directory: string,
  argument: string,
  options: ExtractOptions,
): Promise<void> {
  const { out } = context;
  const target = resolve(context.cwd, directory);
  await withTree(context, image, options, async (tree) => {
    const path = parseImagePath(argument);
    const start = resolvePath(tree, path, true);
    const name = path.path.slice(path.path.lastIndexOf('/') + 1);
    const rootless = options.rootless === true || process.geteuid?.() !== 0;
    const { entries, bytes, notes } = await interruptible((signal) => {
      const pause = async (): Promise<void> => {
        await breathe();
        signal.throwIfAborted();
      };
      return extractTree(tree, start, name, target, { rootless, breathe: pause });
    });
    for (const note of notes) out.warn(note);
    if (rootless && options.rootless !== true)
      out.note('Not root: files belong to you, whoever owns them in the image');
    if (out.json) await out.document({ path: target, entries, bytes, rootless, notes });
    else if (out.quiet) await out.lines([out.text(target)]);
    out.note(`Extracted ${plural(entries, 'name')}, ${formatBytes(bytes)}, into ${target}`);
  });
}
