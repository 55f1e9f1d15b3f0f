import type { Command } from 'commander';
import { LaminaError } from '../../errors.js';
import { FixedCredentials, type Credentials } from '../../source/registry/credentials.js';
import { storeCredentials } from '../../source/registry/login.js';
import { Secret } from '../../source/registry/secret.js';
import { ask, readPassword } from '../ask.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { examples } from '../help.js';
import {
  addRegistryOptions,
  authPlaces,
  parseRegistryHost,
  tlsVerify,
  userAgent,
  type RegistryOptions,
} from '../registry-options.js';

export interface LoginOptions extends RegistryOptions {
  readonly username?: string;
  readonly passwordStdin?: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('login')
    .description('Keep the user name and password for a registry, where podman and skopeo have them too.')
    .argument('<host>', 'the registry: HOST[:PORT], or HOST/PART for a part of it')
    .option('-u, --username <name>', 'the user name')
    .option('--password-stdin', 'read the password from standard input');
  addRegistryOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina login quay.io', 'asks for both'],
        ['lamina login -u me --password-stdin ghcr.io <token', 'asks for nothing'],
      ]),
    )
    .action((host: string, options: LoginOptions) => cli.run(command, (context) => login(context, host, options)));
}

async function login(context: Context, text: string, options: LoginOptions): Promise<void> {
  const { out, env } = context;
  const { host, key } = parseRegistryHost(text);
  const credentials = await credentialsFrom(options);
  // Loading HTTP takes longer than most commands, which do without.
  const [{ RegistryClient }, { ConfiguredEndpoints }] = await Promise.all([
    import('../../source/registry/client.js'),
    import('../../source/registry/configuration.js'),
  ]);
  const client = new RegistryClient({
    host,
    credentials: new FixedCredentials(host, credentials),
    endpoints: new ConfiguredEndpoints({ env, tlsVerify: tlsVerify(options) }),
    env,
    userAgent: userAgent(),
  });
  try {
    await client.ping();
  } catch (e) {
    if (!(e instanceof LaminaError) || e.code !== 'REGISTRY_AUTH') throw e;
    const message = `${host} does not take this user name and password`;
    throw new LaminaError(e.code, message, { details: e.details, cause: e });
  } finally {
    await client.close();
  }
  const { username } = credentials;
  const storedIn = await storeCredentials(authPlaces(context, options), key, credentials);
  if (out.json) await out.document({ host: key, username, storedIn });
  else out.note(`Logged in to ${key} as ${username} (kept in ${storedIn})`);
}

async function credentialsFrom(options: LoginOptions): Promise<Extract<Credentials, { kind: 'password' }>> {
  const { stdin } = process;
  const interactive = stdin.isTTY && options.passwordStdin !== true;
  if (!interactive && options.username === undefined) {
    throw new LaminaError('USAGE', 'Standard input is no terminal to ask for the user name', {
      hint: 'Say --username NAME --password-stdin, and give the password on standard input.',
    });
  }
  if (!interactive && options.passwordStdin !== true) {
    throw new LaminaError('USAGE', 'Standard input is no terminal to ask for the password', {
      hint: 'Say --password-stdin, and give the password on standard input.',
    });
  }
  const username = options.username ?? (await ask(process, 'User name: ', false));
  const password = interactive ? await ask(process, 'Password: ', true) : await readPassword(stdin);
  if (username === '' || username.includes(':'))
    throw new LaminaError('USAGE', 'A user name is not empty and has no ":"');
  if (password === '') throw new LaminaError('USAGE', 'The password is empty');
  return { kind: 'password', username, password: new Secret(password) };
}
