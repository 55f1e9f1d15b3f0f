import { closeSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import { LaminaError, toLaminaError } from '../../errors.js';
import { exportTree } from '../../image/export.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import { breathe, interruptible } from '../signals.js';
import { formatBytes, toText } from '../text.js';

export interface ExportOptions extends TreeOptions {
  readonly output: string;
  readonly sparse: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('export')
    .description('Write the tree of an image, its layers flattened, as one tar archive.')
    .argument('<image>', 'what to write')
    .argument('[path]', 'a path inside the image, which becomes the root of the archive', '/')
    .option('-o, --output <file>', 'where to write; "-" is stdout', '-')
    .option('--no-sparse', 'write the holes of sparse files as zeros, for readers that know no GNU sparse files');
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina export oci:app.oci:latest -o app.tar', 'everything: owners, xattrs, devices, times'],
        ['lamina export app.oci | tar -tv', 'on stdout'],
        ['lamina export app.oci /etc | tar -xC ./etc', 'one directory'],
      ]),
    )
    .action((image: string, path: string, options: ExportOptions) =>
      cli.run(command, (context) => exportImage(context, image, path, options)),
    );
}

async function exportImage(context: Context, image: string, argument: string, options: ExportOptions): Promise<void> {
  const { out, cwd } = context;
  const toStdout = options.output === '-';
  if (toStdout && out.tty) {
    throw new LaminaError('USAGE', 'The archive would go to a terminal', { hint: 'Give -o FILE, or a pipe.' });
  }
  if (toStdout && out.json) {
    throw new LaminaError('USAGE', 'With --json the archive needs another place than stdout', {
      hint: 'Give -o FILE.',
    });
  }
  await withTree(context, image, options, async (tree) => {
    const path = parseImagePath(argument);
    const start = resolvePath(tree, path, true);
    const onSkip = (name: string): void => out.warn(`${toText(name)} is a socket, which a tar cannot hold: left out`);
    const name = path.path.slice(path.path.lastIndexOf('/') + 1);
    const pieces = exportTree(tree, start, name, { sparse: options.sparse, onSkip });
    if (toStdout) {
      for (const piece of pieces) {
        await out.write(piece);
        await breathe();
      }
      return;
    }
    const file = resolve(cwd, options.output);
    const bytes = await interruptible((signal) => writeFile(file, pieces, signal));
    if (out.json) await out.document({ path: file, bytes });
    else if (out.quiet) await out.lines([out.text(file)]);
    out.note(`Wrote ${basename(file)}, ${formatBytes(bytes)}`);
  });
}

/** A regular file appears under its name when it is whole; a pipe or device is written to. Bytes written. */
async function writeFile(file: string, pieces: Iterable<Buffer>, signal: AbortSignal): Promise<number> {
  const there = statSync(file, { throwIfNoEntry: false });
  const aside = there === undefined || there.isFile() ? `${file}.${process.pid}.part` : undefined;
  let bytes = 0;
  try {
    const fd = openSync(aside ?? file, aside === undefined ? 'w' : 'wx');
    try {
      for (const piece of pieces) {
        for (let at = 0; at < piece.length;) at += writeSync(fd, piece, at);
        bytes += piece.length;
        await breathe();
        signal.throwIfAborted();
      }
    } finally {
      closeSync(fd);
    }
    if (aside !== undefined) renameSync(aside, file);
    return bytes;
  } catch (e) {
    if (aside !== undefined) rmSync(aside, { force: true });
    signal.throwIfAborted();
    throw toLaminaError(e, `Cannot write ${file}`);
  }
}
