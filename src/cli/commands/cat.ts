import type { Command } from 'commander';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { S_IFDIR, S_IFMT, S_IFREG } from '../../erofs/tree.js';
import { LaminaError } from '../../errors.js';
import type { ImageTree } from '../../image/tree.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import { breathe } from '../signals.js';
import { toText } from '../text.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('cat')
    .description('Write files of an image to stdout. Every byte is verified before it is written.')
    .argument('<image>', 'what to look into')
    .argument('<path...>', 'files inside the image; symlinks are followed inside it');
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina cat oci:app.oci:latest /etc/os-release', 'one file'],
        ['lamina cat app.tar /usr/bin/node > node', 'nothing else is extracted'],
      ]),
    )
    .action((image: string, paths: string[], options: TreeOptions) =>
      cli.run(command, (context) => cat(context, image, paths, options)),
    );
}

async function cat(context: Context, image: string, paths: readonly string[], options: TreeOptions): Promise<void> {
  await withTree(context, image, options, async (tree) => {
    const files = paths.map((path) => regularFile(tree, path));
    for (const nid of files) {
      for (const chunk of contents(tree, nid)) {
        await context.out.write(chunk);
        await breathe();
      }
    }
  });
}

/** All are looked up before the first is written, so that a wrong name leaves no half output. */
function regularFile(tree: ImageTree, argument: string): number {
  const path = parseImagePath(argument);
  const nid = resolvePath(tree, path, true);
  const type = tree.reader.mode(nid) & S_IFMT;
  if (type !== S_IFREG) {
    const what = type === S_IFDIR ? 'is a directory' : 'is not a regular file';
    throw new LaminaError('USAGE', `Cannot print ${toText(path.path)}: it ${what}`);
  }
  return nid;
}

const CHUNK = 1 << 20;

/** The verified bytes of a file. Every chunk is a buffer of its own: a stream may hold it for a while. */
export function* contents(tree: ImageTree, nid: number): Generator<Buffer> {
  const size = tree.reader.size(nid);
  for (let offset = 0; offset < size;) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK, size - offset));
    const n = tree.readRange(nid, offset, chunk.length, chunk);
    if (n <= 0) throw new LaminaError('INTERNAL', `A file ends at ${offset} of ${size} bytes`);
    yield chunk.subarray(0, n);
    offset += n;
  }
}
