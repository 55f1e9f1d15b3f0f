import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { isatty } from 'node:tty';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { startedDaemon } from '../daemon-mount.js';
import type { BindVolume } from '../../bundle/runtime-config.js';
import type { DaemonClient } from '../../daemon/client.js';
import { LaminaError, toLaminaError } from '../../errors.js';
import { isOrdinaryUser } from '../../mount/subordinate-ids.js';
import type { Cli } from '../cli.js';
import { makeMountedBundle, removeMountedBundle } from '../container-bundle.js';
import type { Context } from '../context.js';
import { Exit, printError, report } from '../errors.js';
import { examples } from '../help.js';
import { addServedTreeOptions, collect, type ServedTreeOptions } from '../options.js';
import { deleteContainer, findRuntime, holdSignals, runContainer, type Container } from '../runtime.js';
import { RootlessContainer } from '../rootless-container.js';
import { Interrupted, interruptible } from '../signals.js';

export interface RunOptions extends ServedTreeOptions {
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly runtime?: string;
  readonly env?: readonly string[];
  readonly volume?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
  readonly readOnly?: boolean;
}

/** What docker and podman give when they, and not the container, have failed. */
const OUR_FAILURE = 125;

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('run')
    .description('Run a container from an image, in the foreground. Nothing of it is left afterwards.')
    .argument('<image>', 'what to run')
    .argument('[command...]', "in place of the image's Cmd; options behind the image belong to it")
    .passThroughOptions()
    .option('-i, --interactive', 'give the container our stdin')
    .option('-t, --tty', 'give the container a terminal')
    .option('--rm', 'as docker: what happens in any case')
    .option('--runtime <runtime>', 'runc, crun, or a path (LAMINA_RUNTIME; default: the first there is)')
    .option('-e, --env <name=value>', 'set a variable; NAME alone passes ours on', collect)
    .option('-v, --volume <source:path[:ro]>', 'show a file or directory of the host at a path', collect)
    .option('-w, --workdir <dir>', 'working directory')
    .option('-u, --user <user[:group]>', 'names or numbers')
    .option('--read-only', 'mount the image read-only (default: an overlay, thrown away)');
  addServedTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina run oci:app.oci:latest', "the image's own command"],
        ['lamina run -it app.tar sh', 'a shell'],
        ['lamina run -v .:/src:ro -w /src app.tar ls -l', 'with a directory of the host'],
      ]),
    )
    .action((image: string, args: string[], options: RunOptions) =>
      cli.run(command, (context) => runReportingOurFailures(context, image, args, options)),
    );
}

async function runReportingOurFailures(
  context: Context,
  image: string,
  args: readonly string[],
  options: RunOptions,
): Promise<number> {
  const release = holdSignals();
  try {
    return await run(context, image, args, options);
  } catch (e) {
    if (e instanceof Interrupted) throw e;
    const { out, env } = context;
    const code = report(e, { json: out.json, stderr: out.stderr, env });
    const usage = e instanceof LaminaError && e.code === 'USAGE';
    throw new Exit(usage ? code : OUR_FAILURE);
  } finally {
    release();
  }
}

async function run(context: Context, image: string, args: readonly string[], options: RunOptions): Promise<number> {
  const runtime = findRuntime(options.runtime ?? context.env['LAMINA_RUNTIME'], context.env);
  if (options.tty === true && ![0, 1, 2].some((fd) => isatty(fd))) {
    throw new LaminaError('USAGE', 'Cannot give the container a terminal: none of stdin, stdout and stderr is one', {
      hint: 'Leave out -t.',
    });
  }
  const id = `lamina-${randomBytes(6).toString('hex')}`;
  const directory = join(context.run, 'bundles', id);
  const rootless = isOrdinaryUser() ? new RootlessContainer(context, id, directory) : undefined;
  const request = {
    reference: image,
    directory,
    image: options,
    lasting: false,
    runtime: {
      readonlyRootfs: options.readOnly === true,
      terminal: options.tty === true,
      args,
      env: variables(options.env ?? [], context.env),
      volumes: (options.volume ?? []).map((volume) => parseVolume(volume, context.cwd)),
      workdir: options.workdir,
      user: options.user,
      rootless: rootless?.config,
    },
  };
  const daemon = await interruptible(async (signal) => {
    const client = await startedDaemon(context);
    await makeMountedBundle(context, client, request, signal);
    return client;
  });
  const container = {
    runtime,
    id,
    directory,
    stdin: options.interactive === true || options.tty === true,
    rootless: rootless?.runtime(options.readOnly === true),
  };
  try {
    rootless?.makeOverlay();
    return await runContainer(container);
  } finally {
    await removeContainer(context, daemon, container, rootless);
  }
}

/** The container's exit code matters more than what goes wrong here, which is only said. */
async function removeContainer(
  context: Context,
  daemon: DaemonClient,
  container: Container,
  rootless: RootlessContainer | undefined,
): Promise<void> {
  const { out, env } = context;
  try {
    await deleteContainer(container);
    await rootless?.removeOverlay();
    await removeMountedBundle(daemon, container.directory, true);
  } catch (e) {
    printError(toLaminaError(e, 'Cannot clean up'), { json: out.json, stderr: out.stderr, env });
  }
}

/** `NAME` alone has the value that it has here, and is left out where it has none. */
export function variables(list: readonly string[], env: NodeJS.ProcessEnv): string[] {
  return list.flatMap((variable) => {
    if (variable.includes('=')) return [variable];
    const value = env[variable];
    return value === undefined ? [] : [`${variable}=${value}`];
  });
}

/** `SOURCE:PATH[:ro|rw]`. Throws USAGE. */
export function parseVolume(text: string, cwd: string): BindVolume {
  const [source, destination, mode = 'rw', ...rest] = text.split(':');
  if (!source || !destination?.startsWith('/') || !['ro', 'rw'].includes(mode) || rest.length > 0) {
    throw new LaminaError('USAGE', `Cannot read the volume ${JSON.stringify(text)}`, {
      hint: 'A volume is SOURCE:PATH or SOURCE:PATH:ro, with an absolute path in the container.',
    });
  }
  const path = resolve(cwd, source);
  if (!existsSync(path)) throw new LaminaError('USAGE', `Cannot show ${path} in the container: it does not exist here`);
  return { source: path, destination, readonly: mode === 'ro' };
}
