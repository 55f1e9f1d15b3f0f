/** Starting a daemon where none runs. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LaminaError } from '../errors.js';
import { DaemonClient } from './client.js';
import { RUN_DIR_TAKEN, lockOwner } from './lock.js';
import { RunDir } from './run-dir.js';

export interface DaemonPlace {
  /** The run directory. */
  readonly run: string;
  /** The store of a daemon that has to be started. */
  readonly store: string;
}

/** On a slow machine a server that cannot start takes ten seconds until its supervisor has given it up. */
const START_MS = 30_000;
const POLL_MS = 20;
/** A log that has grown beyond this is put aside, as RUN/log.old, when a daemon starts. */
const LOG_MAX = 8 * 1024 * 1024;
const LOG_LINES = 10;

/** A client of the daemon that has the run directory, which is started when there is none. Throws DAEMON_FAILED. */
export async function ensureDaemon({ run: path, store }: DaemonPlace): Promise<DaemonClient> {
  const run = new RunDir(resolve(path));
  const running = await DaemonClient.connect(run.path);
  if (running !== undefined) return running;
  run.create();
  const log = openLog(run);
  try {
    let ours = startSupervisor(run, store, log.fd);
    for (const deadline = Date.now() + START_MS; Date.now() < deadline; await delay(POLL_MS)) {
      const client = await connectIfAnswering(run.path);
      if (client !== undefined) return client;
      if (ours.ended === undefined) continue;
      if (!ours.foundAnother) throw failure(run, log.size, ours.ended);
      // That one may be slow to start; where it was about to end, ours has come too soon.
      if (lockOwner(run) === undefined) ours = startSupervisor(run, store, log.fd);
    }
    throw failure(run, log.size, `it did not answer within ${START_MS / 1000} s`);
  } finally {
    closeSync(log.fd);
  }
}

interface Started {
  /** How, once it has. */
  ended: string | undefined;
  /** It ended because another client had started one. */
  foundAnother: boolean;
}

function startSupervisor(run: RunDir, store: string, log: number): Started {
  const started: Started = { ended: undefined, foundAnother: false };
  const supervisor = spawn(
    process.execPath,
    [fileURLToPath(new URL('./supervisor.js', import.meta.url)), run.path, resolve(store)],
    { cwd: '/', detached: true, stdio: ['ignore', log, log] },
  );
  supervisor.unref();
  supervisor.once('error', (e) => (started.ended = e.message));
  supervisor.once('exit', (code, signal) => {
    started.ended = `it ended with ${signal ?? `code ${code}`}`;
    started.foundAnother = code === RUN_DIR_TAKEN;
  });
  return started;
}

/** One that does not answer yet may do so later, or end and have said why. */
async function connectIfAnswering(path: string): Promise<DaemonClient | undefined> {
  try {
    return await DaemonClient.connect(path);
  } catch (e) {
    if (e instanceof LaminaError && e.code === 'DAEMON_UNREACHABLE') return undefined;
    throw e;
  }
}

function openLog(run: RunDir): { fd: number; size: number } {
  const before = statSync(run.log, { throwIfNoEntry: false });
  if (before !== undefined && before.size > LOG_MAX) renameSync(run.log, `${run.log}.old`);
  const fd = openSync(run.log, 'a', 0o600);
  return { fd, size: statSync(run.log).size };
}

function failure(run: RunDir, logBefore: number, why: string): LaminaError {
  const lines = readFileSync(run.log).subarray(logBefore).toString('utf8').trimEnd().split('\n').slice(-LOG_LINES);
  const said = lines
    .map(messageOf)
    .filter((line) => line !== '')
    .join('; ');
  return new LaminaError('DAEMON_FAILED', `Cannot start the daemon: ${why}${said === '' ? '' : `. It says: ${said}`}`, {
    hint: `The whole log is ${run.log}; \`lamina doctor\` looks for what is missing.`,
    details: { log: run.log },
  });
}

/** What a log line says, without its time and process ids. */
function messageOf(line: string): string {
  try {
    const { msg, err, error } = JSON.parse(line) as { msg?: string; err?: { message?: string }; error?: string };
    const cause = err?.message ?? error;
    return cause === undefined ? (msg ?? line) : `${msg ?? ''}: ${cause}`;
  } catch {
    return line;
  }
}
