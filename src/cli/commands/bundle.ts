import { resolve } from 'node:path';
import type { Command } from 'commander';
import { LaminaError } from '../../errors.js';
import { isOrdinaryUser } from '../../mount/subordinate-ids.js';
import { namespaceIds } from '../../mount/user-namespace.js';
import type { Cli } from '../cli.js';
import { makeMountedBundle, removeMountedBundle } from '../container-bundle.js';
import type { Context } from '../context.js';
import { findDaemon, startedDaemon } from '../daemon-mount.js';
import { examples } from '../help.js';
import { addServedTreeOptions, collect, type ServedTreeOptions } from '../options.js';
import { interruptible } from '../signals.js';

export interface BundleOptions extends ServedTreeOptions {
  readonly rw?: boolean;
  readonly arg?: readonly string[];
  readonly remove?: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('bundle')
    .usage('[options] <image> <dir>\n       lamina bundle --remove <dir>')
    .description('Make a bundle for an OCI runtime: DIR/config.json, and the image mounted on DIR/rootfs.')
    .argument('[image]', 'what to mount; with --remove the bundle')
    .argument('[dir]', 'the bundle, made where it is missing')
    .option('--rw', 'a writable rootfs: an overlay, whose changes go with the bundle')
    .option('--arg <arg>', "an argument in place of the image's Cmd; once for each", collect)
    .option('--remove', 'unmount and remove a bundle');
  addServedTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina bundle oci:app.oci:latest /run/app', 'then: runc run --bundle /run/app app'],
        ['lamina bundle --rw --arg sh app.tar b', 'another command'],
        ['lamina bundle --remove b', 'all of it again'],
      ]),
    )
    .action((image: string | undefined, directory: string | undefined, options: BundleOptions) =>
      cli.run(command, (context) => bundle(context, image, directory, options)),
    );
}

async function bundle(
  context: Context,
  image: string | undefined,
  directory: string | undefined,
  options: BundleOptions,
): Promise<void> {
  const { out, cwd } = context;
  if (options.remove === true) {
    if (image === undefined || directory !== undefined) {
      throw new LaminaError('USAGE', '--remove takes the bundle and nothing else', {
        hint: 'lamina bundle --remove DIR',
      });
    }
    const path = resolve(cwd, image);
    await removeMountedBundle(await findDaemon(context), path, false);
    if (out.json) await out.document({ removed: path });
    else if (out.quiet) await out.lines([out.text(path)]);
    return out.note(`Removed the bundle ${path}`);
  }
  if (image === undefined || directory === undefined) {
    throw new LaminaError('USAGE', 'A bundle needs an image and a directory', { hint: 'lamina bundle IMAGE DIR' });
  }
  const made = await interruptible(async (signal) => {
    const daemon = await startedDaemon(context);
    const rootless = isOrdinaryUser() ? { map: namespaceIds(), namespace: 'new' as const } : undefined;
    if (rootless !== undefined && options.rw === true) {
      throw new LaminaError('PERMISSION_DENIED', 'Cannot make a writable bundle: its overlay needs root', {
        hint: '`lamina run` gives a container of yours a writable root.',
      });
    }
    const runtime = {
      readonlyRootfs: options.rw !== true,
      terminal: false,
      args: options.arg,
      fallback: ['sh'],
      rootless,
    };
    const request = { reference: image, directory: resolve(cwd, directory), image: options, runtime, lasting: true };
    return makeMountedBundle(context, daemon, request, signal);
  });
  if (out.json) await out.document({ bundle: made.directory, mount: made.mount });
  else if (out.quiet) await out.lines([out.text(made.directory)]);
  out.note(`${made.directory} holds ${made.mount.reference}: runc run --bundle ${made.directory} NAME`);
}
