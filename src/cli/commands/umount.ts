import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { DaemonClient } from '../../daemon/client.js';
import type { MountStatus } from '../../daemon/protocol.js';
import { Records } from '../../daemon/records.js';
import { RunDir } from '../../daemon/run-dir.js';
import { LaminaError, toLaminaError } from '../../errors.js';
import { parseReference } from '../../source/sniff.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { findDaemon, startedDaemon } from '../daemon-mount.js';
import { Exit, printError } from '../errors.js';
import { examples } from '../help.js';

export interface UmountOptions {
  readonly all?: boolean;
  readonly lazy?: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('umount')
    .description('Unmount what lamina has mounted.')
    .argument('[target...]', 'mountpoints, ids or images')
    .option('--all', 'everything')
    .option('--lazy', 'now, even where it is in use; it is gone when the last user is')
    .addHelpText(
      'after',
      examples([
        ['lamina umount /mnt', 'one mountpoint'],
        ['lamina umount oci:app.oci:latest', 'every mount of an image'],
        ['lamina umount --all', 'everything'],
      ]),
    )
    .action((targets: string[], options: UmountOptions) =>
      cli.run(command, (context) => umount(context, targets, options)),
    );
}

async function umount(context: Context, targets: readonly string[], options: UmountOptions): Promise<void> {
  const { out, cwd, env } = context;
  if (targets.length > 0 === (options.all === true)) {
    throw new LaminaError('USAGE', 'Name what to unmount, or say --all', {
      hint: '`lamina mounts` lists what is mounted.',
    });
  }
  const daemon = await findDaemon(context);
  const cleared = daemon === undefined ? await clearDead(context) : [];
  const lazy = options.lazy === true;
  const unmounted: MountStatus[] = [];
  const errors: LaminaError[] = [];
  for (const names of options.all === true ? [['*']] : targets.map((target) => meanings(target, cwd))) {
    if (cleared.some((dead) => names.some((name) => dead.includes(name)))) continue;
    try {
      unmounted.push(...(await unmountFirst(daemon, names, lazy)));
    } catch (e) {
      errors.push(toLaminaError(e));
    }
  }
  if (out.json) await out.document(unmounted);
  else if (out.quiet) await out.lines(unmounted.map((mount) => mount.id));
  else for (const { reference, mountpoint } of unmounted) out.note(`Unmounted ${reference} from ${mountpoint}`);
  const [first] = errors;
  if (first === undefined) return;
  for (const error of errors) printError(error, { json: out.json, stderr: out.stderr, env });
  throw new Exit(first.exitCode);
}

/**
 * A daemon that died has left mounts that nobody serves: a new one clears them when it starts. Returns the names by
 * which each of them could be called.
 */
async function clearDead(context: Context): Promise<string[][]> {
  const run = new RunDir(context.run);
  const records = existsSync(run.records) ? new Records(run).all().records : [];
  if (records.length === 0) return [];
  await startedDaemon(context);
  return records.map(({ id, reference, mountpoint }) => {
    context.out.note(`${reference} on ${mountpoint} was left by a daemon that died, and has been cleared`);
    return ['*', id, reference, mountpoint];
  });
}

/** What a target may be, most likely first: a mountpoint, an id, an image. */
function meanings(target: string, cwd: string): string[] {
  const names = [resolve(cwd, target)];
  if (/^[0-9a-f]+$/.test(target)) names.push(target);
  try {
    names.push(parseReference(target, cwd).text);
  } catch (e) {
    if (!(e instanceof LaminaError)) throw e;
  }
  return names;
}

/** Unmounts what the first of the names that names something names. Throws MOUNT_NOT_FOUND, MOUNT_BUSY, MOUNT_FAILED. */
async function unmountFirst(
  daemon: DaemonClient | undefined,
  names: readonly string[],
  lazy: boolean,
): Promise<readonly MountStatus[]> {
  for (const name of names) {
    if (daemon === undefined) break;
    try {
      return await daemon.unmount(name, { lazy });
    } catch (e) {
      if (!(e instanceof LaminaError) || e.code !== 'MOUNT_NOT_FOUND') throw e;
    }
  }
  const [target = ''] = names;
  if (target === '*') return [];
  throw new LaminaError('MOUNT_NOT_FOUND', `Nothing of ours is mounted as ${target}`, {
    hint: '`lamina mounts` lists what is.',
    details: { target },
  });
}
