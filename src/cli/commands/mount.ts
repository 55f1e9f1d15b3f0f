import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import type { MountRequestInput, MountStatus } from '../../daemon/protocol.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { mountVisibly, sharesMountNamespace, startedDaemon } from '../daemon-mount.js';
import { examples } from '../help.js';
import { imageRequestOf } from '../image-argument.js';
import { addServedTreeOptions, collect, type ServedTreeOptions } from '../options.js';
import { interruptible } from '../signals.js';
import { applyMountOptions, parseMountOptions } from '../mount-options.js';
import { idMapOf, parseIdRange, type IdRange } from '../../mount/id-map.js';
import type { MountFlag } from '../../mount/flags.js';
import { LaminaError } from '../../errors.js';
import { plural } from '../text.js';

export interface MountOptions extends ServedTreeOptions {
  readonly verify?: 'every-read' | 'first-read';
  readonly transport?: 'dev-fuse' | 'fuse-native';
  readonly rw?: boolean;
  readonly upper?: string;
  readonly subdir?: string;
  readonly uidMap?: readonly IdRange[];
  readonly gidMap?: readonly IdRange[];
  readonly option?: readonly string[];
  readonly flags?: readonly MountFlag[];
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('mount')
    .description('Mount an image. Without a mountpoint: under RUN/mnt, and the path is printed.')
    .argument('<image>', 'what to mount')
    .argument('[mountpoint]', 'an empty directory');
  addServedTreeOptions(command)
    .addOption(new Option('--verify <when>', 'when cached data is hashed again').choices(['every-read', 'first-read']))
    .addOption(
      new Option('--transport <transport>', 'how our FUSE server speaks with the kernel').choices([
        'dev-fuse',
        'fuse-native',
      ]),
    )
    .option('--rw', 'writable: an overlay over the image; without --upper the changes go with the mount')
    .option('--upper <dir>', 'where the writes go, and stay (with --rw)')
    .option('--subdir <path>', 'show this directory of the image instead of all of it')
    .option(
      '--uid-map <container:host:size>',
      "show users' ids of the image as others; once for each range",
      collectRange,
    )
    .option('--gid-map <container:host:size>', "the same of groups' (default: as the users')", collectRange)
    .option('-o, --option <list>', 'options as in fstab: nosuid,nodev,noexec, and those above as name=value', collect)
    .addHelpText(
      'after',
      examples([
        ['lamina mount oci:app.oci:latest /mnt', 'read-only'],
        ['dir=$(lamina mount -q app.tar)', 'somewhere; the path is printed'],
        ['lamina mount --rw --upper ./changes app.oci /mnt', 'writes are kept in ./changes'],
        ['lamina mount --subdir /usr/share/doc app.oci /mnt', 'one directory'],
        ['lamina mount --uid-map 0:100000:65536 app.oci /mnt', "for a user namespace: the image's root is user 100000"],
        ['lamina mount docker://quay.io/fedora/fedora:40 /mnt', 'from a registry; what was read is kept'],
        ['lamina mount -o nosuid,nodev,engine=fuse app.oci /mnt', 'as mount(8) has it'],
      ]) + FSTAB,
    )
    .action((image: string, mountpoint: string | undefined, options: MountOptions) => {
      const { args, flags, unknown } = parseMountOptions(options.option ?? []);
      const [first] = unknown;
      if (first !== undefined) throw new LaminaError('USAGE', `There is no mount option ${first}`);
      applyMountOptions(command, args);
      return cli.run(command, (context) =>
        mount(context, image, mountpoint, { ...command.opts<MountOptions>(), flags }),
      );
    });
}

function collectRange(text: string, before: readonly IdRange[] = []): readonly IdRange[] {
  return [...before, parseIdRange(text)];
}

const FSTAB = `

In /etc/fstab, with /sbin/mount.fuse.lamina a link to lamina:
  oci:/srv/app:latest  /mnt/app  fuse.lamina  ro,nosuid,nodev,_netdev,nofail  0 0`;

async function mount(
  context: Context,
  image: string,
  mountpoint: string | undefined,
  options: MountOptions,
): Promise<void> {
  const { out } = context;
  const mounted = await mountImage(context, image, mountpoint, options);
  if (out.json) await out.document(mounted);
  else if (out.quiet || mountpoint === undefined) await out.lines([out.text(mounted.mountpoint)]);
  out.note(describeMount(mounted, options.upper === undefined));
  if (!(await sharesMountNamespace(context))) {
    out.warn('the daemon runs in another mount namespace: the mount is seen there, and not here');
  }
}

export async function mountImage(
  context: Context,
  image: string,
  mountpoint: string | undefined,
  options: MountOptions,
): Promise<MountStatus> {
  const request = await mountRequestOf(context, image, mountpoint, options);
  return interruptible(async (signal) => mountVisibly(context, await startedDaemon(context), request, signal));
}

export async function mountRequestOf(
  context: Context,
  image: string,
  mountpoint: string | undefined,
  options: MountOptions,
): Promise<MountRequestInput> {
  const { engine, transport, verify, rw, upper, subdir, flags } = options;
  const idMap = idMapOf(options.uidMap ?? [], options.gidMap ?? []);
  if (upper !== undefined && rw !== true) {
    throw new LaminaError('USAGE', '--upper says where writes go, but the mount is read-only', { hint: 'Add --rw.' });
  }
  return {
    ...(await imageRequestOf(context, image, options)),
    ...(mountpoint === undefined ? {} : { mountpoint: resolve(context.cwd, mountpoint) }),
    ...(engine === undefined ? {} : { engine }),
    ...(transport === undefined ? {} : { transport }),
    ...(verify === undefined ? {} : { verify }),
    ...(subdir === undefined ? {} : { subdir }),
    ...(flags === undefined ? {} : { flags: [...flags] }),
    ...(idMap === undefined ? {} : { idMap: { uid: [...idMap.uid], gid: [...idMap.gid] } }),
    ...(rw === true ? { writable: upper === undefined ? {} : { upper: resolve(context.cwd, upper) } } : {}),
  };
}

/** `ownsUpper`: the overlay's upper directory was not named by the user. */
export function describeMount(
  { reference, mountpoint, engine, reason, layers, upper, subdir }: MountStatus,
  ownsUpper: boolean,
): string {
  const access =
    upper === null ? 'read-only' : `writable, changes in ${upper}${ownsUpper ? ' until it is unmounted' : ''}`;
  const what = subdir === null ? reference : `${subdir} of ${reference}`;
  return `Mounted ${what} on ${mountpoint} (${plural(layers, 'layer')}, ${access}; engine ${engine}: ${reason})`;
}
