import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import type { MountRequestInput, MountStatus } from '../../daemon/protocol.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { mountVisibly, sharesMountNamespace, startedDaemon } from '../daemon-mount.js';
import { examples } from '../help.js';
import { referenceOf } from '../open-image.js';
import { addServedTreeOptions, type ServedTreeOptions } from '../options.js';
import { interruptible } from '../signals.js';
import { LaminaError } from '../../errors.js';
import { plural } from '../text.js';

export interface MountOptions extends ServedTreeOptions {
  readonly verify?: 'every-read' | 'first-read';
  readonly rw?: boolean;
  readonly upper?: string;
}

export function registerMount(program: Command, cli: Cli): void {
  const command = program
    .command('mount')
    .description('Mount an image. Without a mountpoint: under RUN/mnt, and the path is printed.')
    .argument('<image>', 'what to mount')
    .argument('[mountpoint]', 'an empty directory');
  addServedTreeOptions(command)
    .addOption(new Option('--verify <when>', 'when cached data is hashed again').choices(['every-read', 'first-read']))
    .option('--rw', 'writable: an overlay over the image; without --upper the changes go with the mount')
    .option('--upper <dir>', 'where the writes go, and stay (with --rw)')
    .addHelpText(
      'after',
      examples([
        ['lamina mount oci:app.oci:latest /mnt', 'read-only'],
        ['dir=$(lamina mount -q app.tar)', 'somewhere; the path is printed'],
        ['lamina mount --rw --upper ./changes app.oci /mnt', 'writes are kept in ./changes'],
      ]),
    )
    .action((image: string, mountpoint: string | undefined, options: MountOptions) =>
      cli.run(command, (context) => mount(context, image, mountpoint, options)),
    );
}

async function mount(
  context: Context,
  image: string,
  mountpoint: string | undefined,
  options: MountOptions,
): Promise<void> {
  const { out } = context;
  const request = mountRequestOf(context, image, mountpoint, options);
  const mounted = await interruptible(async (signal) => {
    return mountVisibly(context, await startedDaemon(context), request, signal);
  });
  if (out.json) await out.document(mounted);
  else if (out.quiet || mountpoint === undefined) await out.lines([out.text(mounted.mountpoint)]);
  out.note(describeMount(mounted, options.upper === undefined));
  if (!(await sharesMountNamespace(context))) {
    out.warn('the daemon runs in another mount namespace: the mount is seen there, and not here');
  }
}

export function mountRequestOf(
  context: Context,
  image: string,
  mountpoint: string | undefined,
  { platform, engine, verify, compat, rw, upper }: MountOptions,
): MountRequestInput {
  if (upper !== undefined && rw !== true) {
    throw new LaminaError('USAGE', '--upper says where writes go, but the mount is read-only', { hint: 'Add --rw.' });
  }
  return {
    reference: referenceOf(context, image).text,
    ...(mountpoint === undefined ? {} : { mountpoint: resolve(context.cwd, mountpoint) }),
    ...(platform === undefined ? {} : { platform }),
    ...(engine === undefined ? {} : { engine }),
    ...(verify === undefined ? {} : { verify }),
    ...(compat === undefined ? {} : { compat }),
    ...(rw === true ? { writable: upper === undefined ? {} : { upper: resolve(context.cwd, upper) } } : {}),
  };
}

/** `ownsUpper`: the overlay's upper directory was not named by the user. */
export function describeMount(
  { reference, mountpoint, engine, reason, layers, upper }: MountStatus,
  ownsUpper: boolean,
): string {
  const access =
    upper === null ? 'read-only' : `writable, changes in ${upper}${ownsUpper ? ' until it is unmounted' : ''}`;
  return `Mounted ${reference} on ${mountpoint} (${plural(layers, 'layer')}, ${access}; engine ${engine}: ${reason})`;
}
