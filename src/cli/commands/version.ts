import type { Command } from 'commander';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { packageVersion } from '../../daemon/version.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('version')
    .description('Show the version.')
    .action(() => cli.run(command, showVersion));
}

async function showVersion({ out }: Context): Promise<void> {
  const facts = { version: packageVersion(), node: process.version, platform: `${process.platform}/${process.arch}` };
  if (out.json) await out.document(facts);
  else if (out.quiet) await out.lines([facts.version]);
  else await out.lines([`lamina ${facts.version} (Node ${facts.node}, ${facts.platform})`]);
}
