import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { LayerContent, MountContent } from '../../daemon/protocol.js';
import { LaminaError } from '../../errors.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { findDaemon } from '../daemon-mount.js';
import { examples } from '../help.js';
import { table, type Output } from '../output.js';
import { formatBytes, shortDigest } from '../text.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('status')
    .description('Say what of the mounted images is here, what has to be fetched, and what it is checked against.')
    .argument('[mountpoint]', 'one mount, by its mountpoint, id or image (default: all)')
    .addHelpText(
      'after',
      examples([
        ['lamina status', 'all mounts'],
        ["lamina status --json /mnt | jq '.[].layers[].fetched'", 'for a program'],
      ]),
    )
    .action((target: string | undefined) => cli.run(command, (context) => status(context, target)));
}

async function status(context: Context, target: string | undefined): Promise<void> {
  const { out, cwd } = context;
  const daemon = await findDaemon(context);
  const all = daemon === undefined ? [] : await daemon.contents();
  const found = target === undefined ? all : all.filter((mount) => isMeant(mount, target, cwd));
  if (target !== undefined && found.length === 0) {
    throw new LaminaError('MOUNT_NOT_FOUND', `Nothing of ours is mounted as ${target}`, {
      hint: '`lamina mounts` lists what is.',
      details: { target },
    });
  }
  if (out.json) await out.document(found);
  else if (out.quiet) await out.lines(found.map(({ id }) => id));
  else await out.lines(found.flatMap((mount) => mountLines(out, mount)));
}

function isMeant({ id, mountpoint, reference }: MountContent, target: string, cwd: string): boolean {
  return id === target || reference === target || mountpoint === resolve(cwd, target);
}

const RIGHT_ALIGNED = [0, 3, 4, 5, 6];

function mountLines(out: Output, { mountpoint, reference, layers }: MountContent): string[] {
  const sum = (field: 'fetched' | 'size'): number => layers.reduce((n, layer) => n + layer[field], 0);
  const heading = ['LAYER', 'DIGEST', 'HOW', 'SIZE', 'HERE', 'NEEDED', 'CACHED', 'CHECKED AGAINST'];
  const rows = layers.map((layer, i) => [
    String(i + 1),
    shortDigest(layer.digest ?? layer.diffId),
    how(layer),
    formatBytes(layer.size),
    formatBytes(layer.fetched),
    layer.index !== 'tar' ? formatBytes(layer.needed) : '-',
    formatBytes(layer.cached),
    layer.verified,
  ]);
  return [
    `${out.text(reference)} on ${out.text(mountpoint)}: ${formatBytes(sum('fetched'))} of ${formatBytes(sum('size'))} are here`,
    ...table([heading, ...rows], RIGHT_ALIGNED),
  ];
}

function how({ index, source, fetched, size }: LayerContent): string {
  if (source === 'local') return 'local';
  if (fetched === size) return 'here';
  return index !== 'tar' ? 'fetched when read' : 'fetched when lost';
}
