import type { Command } from 'commander';
import type { MountStatus } from '../../daemon/protocol.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { findDaemon } from '../daemon-mount.js';
import { examples } from '../help.js';
import { table, type Output } from '../output.js';
import { formatBytes, shortDigest } from '../text.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('mounts')
    .description('List what is mounted.')
    .addHelpText(
      'after',
      examples([
        ['lamina mounts', 'a table'],
        ["lamina mounts --json | jq -r '.[].mountpoint'", 'for a program'],
      ]),
    )
    .action(() => cli.run(command, mounts));
}

async function mounts(context: Context): Promise<void> {
  const { out } = context;
  const list = await listMounts(context);
  if (out.json) await out.document(list);
  else if (out.quiet) await out.lines(list.map((mount) => mount.id));
  else if (list.length > 0) await out.lines(mountTable(out, list));
}

/** Nothing is mounted where no daemon runs; none is started. */
export async function listMounts(context: Context): Promise<readonly MountStatus[]> {
  const daemon = await findDaemon(context);
  return daemon === undefined ? [] : daemon.mounts();
}

const RIGHT_ALIGNED = [5, 6];

export function mountTable(out: Output, list: readonly MountStatus[]): string[] {
  const heading = ['ID', 'MOUNTPOINT', 'ENGINE', 'ACCESS', 'DIGEST', 'FETCHED', 'VERIFIED', 'IMAGE', 'WHY'];
  const rows = list.map((mount) => [
    mount.id,
    out.text(mount.mountpoint),
    mount.engine,
    mount.upper === null ? 'ro' : 'rw',
    shortDigest(mount.manifestDigest ?? mount.configDigest),
    formatBytes(mount.bytes.filled),
    formatBytes(mount.bytes.verified),
    out.text(mount.reference),
    out.text(mount.reason),
  ]);
  return table([heading, ...rows], RIGHT_ALIGNED);
}
