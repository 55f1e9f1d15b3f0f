import { spawn } from 'node:child_process';
import type { Command } from 'commander';
import type { DaemonStatus } from '../../daemon/protocol.js';
import { fileURLToPath } from 'node:url';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { findDaemon, requireDaemon, startedDaemon } from '../daemon-mount.js';
import { examples } from '../help.js';
import { keyValues, type Output } from '../output.js';
import { signalExitCode } from '../signals.js';
import { formatDuration, plural } from '../text.js';
import { mountTable } from './mounts.js';

export interface StopOptions {
  readonly force?: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('daemon')
    .description('The daemon that serves the mounts. It starts by itself with the first of them.')
    .addHelpText(
      'after',
      examples([
        ['lamina daemon status', 'processes, store, mounts'],
        ['lamina daemon stop', 'unmounts everything first'],
        ['lamina daemon pause', 'leaves the network to others, until `lamina daemon resume`'],
        ['lamina daemon run', 'in the foreground, for a service manager'],
      ]),
    );
  const status = command
    .command('status', { isDefault: true })
    .description('Show whether it runs, and what it serves.')
    .action(() => cli.run(status, showStatus));
  const start = command
    .command('start')
    .description('Start it, unless it runs.')
    .action(() => cli.run(start, startDaemon));
  const stop = command
    .command('stop')
    .description('Unmount everything and stop it.')
    .option('--force', 'unmount lazily what is in use')
    .action((options: StopOptions) => cli.run(stop, (context) => stopDaemon(context, options)));
  const pause = command
    .command('pause')
    .description('Fetch nothing from registries but what is read.')
    .action(() => cli.run(pause, (context) => pauseBackground(context, true)));
  const resume = command
    .command('resume')
    .description('Complete images in the background again.')
    .action(() => cli.run(resume, (context) => pauseBackground(context, false)));
  const run = command
    .command('run')
    .description('Run it in the foreground.')
    .action(() => cli.run(run, runDaemon));
}

async function showStatus(context: Context): Promise<void> {
  const daemon = await requireDaemon(context);
  await printStatus(context.out, await daemon.status());
}

async function startDaemon(context: Context): Promise<void> {
  const daemon = await startedDaemon(context);
  const status = await daemon.status();
  if (context.out.json || context.out.quiet) return printStatus(context.out, status);
  context.out.note(`The daemon runs (pid ${status.supervisorPid}), store ${status.store}, run directory ${status.run}`);
}

async function stopDaemon(context: Context, { force = false }: StopOptions): Promise<void> {
  const { out } = context;
  const daemon = await findDaemon(context);
  await daemon?.stop({ force });
  if (out.json) await out.document({ stopped: daemon !== undefined });
  else out.note(daemon === undefined ? 'No daemon was running' : 'The daemon has stopped');
}

async function pauseBackground(context: Context, paused: boolean): Promise<void> {
  const { out } = context;
  await (await requireDaemon(context)).pauseBackground(paused);
  if (out.json) await out.document({ background: paused ? 'paused' : 'on' });
  else out.note(paused ? 'Only what is read is fetched now' : 'Images are completed in the background');
}

async function printStatus(out: Output, status: DaemonStatus): Promise<void> {
  if (out.json) await out.document(status);
  else if (out.quiet) await out.lines([String(status.supervisorPid)]);
  else await out.lines(statusLines(out, status));
}

function statusLines(out: Output, status: DaemonStatus): string[] {
  const supervisor = status.supervised
    ? `pid ${status.supervisorPid}`
    : 'dead: a crash of the server would lose the mounts';
  return [
    ...keyValues([
      ['supervisor', supervisor],
      ['server', `pid ${status.serverPid}, up ${formatDuration(status.uptime)}, ${plural(status.restarts, 'restart')}`],
      ['version', status.version],
      ['store', out.text(status.store)],
      ['run', out.text(status.run)],
      ['background', status.background === 'on' ? 'images are completed' : 'paused: only what is read is fetched'],
      ['mounts', String(status.mounts.length)],
    ]),
    ...(status.mounts.length === 0 ? [] : mountTable(out, status.mounts)),
  ];
}

/** Signals go to the supervisor, which ends the server. */
async function runDaemon({ run, store }: Context): Promise<number> {
  const supervisor = fileURLToPath(new URL('../../daemon/supervisor.js', import.meta.url));
  const child = spawn(process.execPath, [supervisor, run, store], {
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, forward);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(signal === null ? (code ?? 1) : signalExitCode(signal)));
  });
}
