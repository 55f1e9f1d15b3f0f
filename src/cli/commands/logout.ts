import type { Command } from 'commander';
import { LaminaError } from '../../errors.js';
import { primaryAuthFile } from '../../source/registry/auth-file.js';
import { eraseCredentials } from '../../source/registry/login.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { examples } from '../help.js';
import { authPlaces, parseRegistryHost } from '../registry-options.js';

export interface LogoutOptions {
  readonly all?: boolean;
  readonly authfile?: string;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('logout')
    .description('Forget the user name and password for a registry.')
    .argument('[host]', 'the registry')
    .option('--all', 'all registries')
    .option('--authfile <file>', 'where credentials are (REGISTRY_AUTH_FILE)')
    .addHelpText(
      'after',
      examples([
        ['lamina logout quay.io', 'one'],
        ['lamina logout --all', 'all of the file'],
      ]),
    )
    .action((host: string | undefined, options: LogoutOptions) =>
      cli.run(command, (context) => logout(context, host, options)),
    );
}

async function logout(context: Context, text: string | undefined, options: LogoutOptions): Promise<void> {
  const { out } = context;
  if ((text === undefined) !== (options.all === true)) {
    throw new LaminaError('USAGE', 'Name a registry, or say --all');
  }
  const places = authPlaces(context, options);
  const key = text === undefined ? undefined : parseRegistryHost(text).key;
  const gone = await eraseCredentials(places, key);
  if (key !== undefined && gone.length === 0) {
    throw new LaminaError('REGISTRY_AUTH', `You are not logged in to ${key}`, {
      hint: `Only ${primaryAuthFile(places)} is looked into: name another file with --authfile.`,
    });
  }
  if (out.json) await out.document(gone);
  else for (const name of gone) out.note(`Logged out of ${name}`);
}
