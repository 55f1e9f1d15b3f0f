/**
 * The command line as commander sees it: every command, and the options that all of them take. A process runs one of them:
 * only that one's modules are loaded, which is most of the time that a short command takes.
 */
import { Command } from 'commander';
import { packageVersion } from '../daemon/version.js';
import type { Cli } from './cli.js';
import { addGlobalOptions } from './context.js';

interface CommandModule {
  readonly register: (program: Command, cli: Cli) => void;
}

/** By heading and name; what each imports is loaded when it is called. */
const groups: Readonly<Record<string, Readonly<Record<string, () => Promise<CommandModule>>>>> = {
  'Mounting:': {
    mount: () => import('./commands/mount.js'),
    umount: () => import('./commands/umount.js'),
    mounts: () => import('./commands/mounts.js'),
    status: () => import('./commands/status.js'),
  },
  'Looking into images:': {
    ls: () => import('./commands/ls.js'),
    cat: () => import('./commands/cat.js'),
    stat: () => import('./commands/stat.js'),
    tree: () => import('./commands/tree.js'),
    find: () => import('./commands/find.js'),
    diff: () => import('./commands/diff.js'),
    inspect: () => import('./commands/inspect.js'),
    verify: () => import('./commands/verify.js'),
    index: () => import('./commands/index.js'),
  },
  'Writing images out:': {
    export: () => import('./commands/export.js'),
    extract: () => import('./commands/extract.js'),
  },
  'Containers:': {
    bundle: () => import('./commands/bundle.js'),
    run: () => import('./commands/run.js'),
  },
  'Registries:': {
    login: () => import('./commands/login.js'),
    logout: () => import('./commands/logout.js'),
  },
  'This machine:': {
    daemon: () => import('./commands/daemon.js'),
    doctor: () => import('./commands/doctor.js'),
    completion: () => import('./commands/completion.js'),
    version: () => import('./commands/version.js'),
  },
};

/** Other names of commands. */
const aliases: Readonly<Record<string, string>> = { unmount: 'umount' };
const VERSION_FLAGS = ['-V', '--version'];

/** The command that the first word of a command line is a name of, or does the same as. */
export function commandOf(word: string | undefined): string | undefined {
  if (word === undefined) return undefined;
  if (VERSION_FLAGS.includes(word)) return 'version';
  const name = Object.hasOwn(aliases, word) ? aliases[word] : word;
  return Object.values(groups).some((group) => Object.hasOwn(group, name ?? '')) ? name : undefined;
}

/** `only`: the one command that is needed; without it all, for help and completion. */
export async function createProgram(cli: Cli, only?: string): Promise<Command> {
  const program = new Command('lamina')
    .description('Mounts container images as verified, lazy file systems: no extraction, no conversion.')
    .usage('[options] COMMAND')
    .enablePositionalOptions()
    .exitOverride()
    // errors.ts prints what commander throws
    .configureOutput({ outputError: () => undefined })
    .configureHelp({ subcommandTerm: (command) => [command.name(), ...command.aliases()].join(', ') })
    .addHelpText('after', IMAGE_HELP);
  for (const [heading, commands] of Object.entries(groups)) {
    program.commandsGroup(heading);
    for (const [name, load] of Object.entries(commands)) {
      if (only === undefined || only === name) (await load()).register(program, cli);
    }
  }
  for (const [alias, name] of Object.entries(aliases)) program.commands.find((c) => c.name() === name)?.alias(alias);
  program.helpCommand('help [command]', 'Show the help of a command.');
  addGlobalOptions(program);
  program.version(`lamina ${packageVersion()}`, VERSION_FLAGS.join(', '), 'show the version');
  return program;
}

const IMAGE_HELP = `
IMAGE is one of
  oci:DIR[:TAG|@DIGEST]            an OCI image layout
  oci-archive:FILE[:TAG]           the same in a tar
  docker-archive:FILE[:REF|:@N]    what docker save writes
  aci:FILE                         an appc image; its dependencies: --aci-path
  aci:HOST/NAME[:VERSION][,LABEL=VALUE]  the same, found by its name
  docker://HOST/NAME[:TAG][@DIGEST]  an image in a registry
  PATH                             any of these in a file or directory, found out

Environment: LAMINA_STORE, LAMINA_RUN, LAMINA_RUNTIME, LAMINA_ACI_PATH,
REGISTRY_AUTH_FILE, DOCKER_CONFIG, HTTPS_PROXY, HTTP_PROXY, NO_PROXY, NO_COLOR;
LAMINA_DEBUG=1 adds a stack to internal errors.

Exit codes: 0 done, 1 failed, 2 usage, 3 verification failed, 4 not found,
125 run itself failed (the container's code otherwise).`;
