/** The command line as commander sees it: every command, and the options that all of them take. */
import { Command } from 'commander';
import type { Cli } from './cli.js';
import { addGlobalOptions } from './context.js';
import { registerBundle } from './commands/bundle.js';
import { registerCat } from './commands/cat.js';
import { registerCompletion } from './commands/completion.js';
import { registerDaemon } from './commands/daemon.js';
import { registerDiff } from './commands/diff.js';
import { registerDoctor } from './commands/doctor.js';
import { registerExport } from './commands/export.js';
import { registerExtract } from './commands/extract.js';
import { registerFind } from './commands/find.js';
import { registerIndex } from './commands/index.js';
import { registerInspect } from './commands/inspect.js';
import { registerLogin } from './commands/login.js';
import { registerLogout } from './commands/logout.js';
import { registerLs } from './commands/ls.js';
import { registerMount } from './commands/mount.js';
import { registerMounts } from './commands/mounts.js';
import { registerRun } from './commands/run.js';
import { registerStatus } from './commands/status.js';
import { registerStat } from './commands/stat.js';
import { registerTree } from './commands/tree.js';
import { registerUmount } from './commands/umount.js';
import { registerVerify } from './commands/verify.js';
import { registerVersion } from './commands/version.js';

const groups: readonly (readonly [string, readonly ((program: Command, cli: Cli) => void)[]])[] = [
  ['Mounting:', [registerMount, registerUmount, registerMounts, registerStatus]],
  [
    'Looking into images:',
    [
      registerLs,
      registerCat,
      registerStat,
      registerTree,
      registerFind,
      registerDiff,
      registerInspect,
      registerVerify,
      registerIndex,
    ],
  ],
  ['Writing images out:', [registerExport, registerExtract]],
  ['Containers:', [registerBundle, registerRun]],
  ['Registries:', [registerLogin, registerLogout]],
  ['This machine:', [registerDaemon, registerDoctor, registerCompletion, registerVersion]],
];

export function createProgram(cli: Cli): Command {
  const program = new Command('lamina')
    .description('Mounts container images as verified, lazy file systems: no extraction, no conversion.')
    .usage('[options] COMMAND')
    .enablePositionalOptions()
    .exitOverride()
    // errors.ts prints what commander throws
    .configureOutput({ outputError: () => undefined })
    .configureHelp({ subcommandTerm: (command) => [command.name(), ...command.aliases()].join(', ') })
    .addHelpText('after', IMAGE_HELP);
  for (const [heading, registrations] of groups) {
    program.commandsGroup(heading);
    for (const register of registrations) register(program, cli);
  }
  program.helpCommand('help [command]', 'Show the help of a command.');
  addGlobalOptions(program);
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
