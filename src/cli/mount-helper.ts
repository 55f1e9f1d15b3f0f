/**
 * The mount helper: what mount(8) calls for a line of /etc/fstab. It is called as
 *
 *     mount.fuse.lamina IMAGE MOUNTPOINT [-sfnvrw] [-t TYPE] [-o OPTIONS]
 *     lamina IMAGE MOUNTPOINT -o OPTIONS           by mount.fuse(8) of libfuse
 *
 * says nothing when it works, and exits with the codes of mount(8).
 */
import { parseArgs } from 'node:util';
import { CommanderError, type Command } from 'commander';
import { LaminaError, toLaminaError, type ErrorCode } from '../errors.js';
import { createContext, type GlobalOptions } from './context.js';
import { mountImage, type MountOptions } from './commands/mount.js';
import { report } from './errors.js';
import { applyMountOptions, parseMountOptions } from './mount-options.js';
import { Interrupted } from './signals.js';

/** Exit codes of mount(8). */
const exits = { usage: 1, system: 2, internal: 4, interrupted: 8, failed: 32 } as const;

const exitOf: Readonly<Partial<Record<ErrorCode, number>>> = {
  USAGE: exits.usage,
  REFERENCE_INVALID: exits.usage,
  IMAGE_AMBIGUOUS: exits.usage,
  PERMISSION_DENIED: exits.usage,
  NATIVE_UNAVAILABLE: exits.system,
  DAEMON_FAILED: exits.system,
  DAEMON_UNREACHABLE: exits.system,
  DISK_FULL: exits.system,
  INTERNAL: exits.internal,
};

/** Mounts; the exit code. */
export async function mountHelper(args: readonly string[], program: Command, host: NodeJS.Process): Promise<number> {
  try {
    const { image, mountpoint, options, verbose, fake } = parse(args);
    const { args: ours, flags, unknown } = parseMountOptions(options);
    const command = program.commands.find((c) => c.name() === 'mount');
    if (command === undefined) throw new LaminaError('INTERNAL', 'There is no command mount');
    applyMountOptions(command, ours);
    const chosen = command.opts<MountOptions & GlobalOptions>();
    const context = createContext({ ...chosen, quiet: !verbose, progress: verbose ? 'auto' : 'none' }, host);
    for (const option of unknown) context.out.warn(`the mount option ${option} is not known and does nothing`);
    if (!fake) await mountImage(context, image, mountpoint, { ...chosen, flags });
    return 0;
  } catch (e) {
    report(e, { json: false, stderr: host.stderr, env: host.env });
    return exitCode(e);
  }
}

interface Invocation {
  readonly image: string;
  readonly mountpoint: string;
  readonly options: readonly string[];
  readonly verbose: boolean;
  readonly fake: boolean;
}

function parse(args: readonly string[]): Invocation {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        options: { type: 'string', short: 'o', multiple: true, default: [] },
        type: { type: 'string', short: 't' },
        verbose: { type: 'boolean', short: 'v', default: false },
        fake: { type: 'boolean', short: 'f', default: false },
        sloppy: { type: 'boolean', short: 's' },
        'no-mtab': { type: 'boolean', short: 'n' },
        'read-only': { type: 'boolean', short: 'r' },
        'read-write': { type: 'boolean', short: 'w' },
      },
    });
    const [image, mountpoint, ...more] = positionals;
    if (image === undefined || mountpoint === undefined || more.length > 0)
      throw new Error('it takes an image and a mountpoint');
    return { image, mountpoint, options: values.options, verbose: values.verbose, fake: values.fake };
  } catch (e) {
    throw new LaminaError('USAGE', `Wrong arguments: ${(e as Error).message}`, {
      cause: e,
      hint: 'mount.fuse.lamina IMAGE MOUNTPOINT [-fnsvrw] [-o OPTIONS]',
    });
  }
}

function exitCode(e: unknown): number {
  if (e instanceof Interrupted) return exits.interrupted;
  if (e instanceof CommanderError) return exits.usage;
  return exitOf[toLaminaError(e).code] ?? exits.failed;
}
