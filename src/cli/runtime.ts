/** The OCI runtime that `run` hands a bundle to: which one, and one container's life under it. */
import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { LaminaError, errnoOf } from '../errors.js';
import { findExecutable } from '../mount/executable.js';
import type { IdMap } from '../mount/id-map.js';
import { spawnInNamespace } from '../mount/user-namespace.js';
import { signalExitCode } from './signals.js';

const RUNTIMES = ['runc', 'crun'] as const;

/** `wanted` (a name or a path), else the first of runc and crun in PATH. Throws RUNTIME_MISSING. */
export function findRuntime(wanted: string | undefined, env: NodeJS.ProcessEnv): string {
  const names = wanted === undefined || wanted === '' ? RUNTIMES : [wanted];
  for (const name of names) {
    const path = findExecutable(name, env);
    if (path !== undefined) return path;
  }
  throw new LaminaError('RUNTIME_MISSING', `Cannot run a container: there is no ${names.join(' and no ')} here`, {
    hint: 'Install runc or crun, or name a runtime with --runtime or LAMINA_RUNTIME.',
  });
}

/** Of an ordinary user: the runtime runs in a user namespace, and may have an overlay over the bundle's rootfs there. */
export interface RootlessRuntime {
  readonly map: IdMap;
  readonly overlay: 'must' | 'may';
  /** Where the runtime keeps its own state. */
  readonly state: string;
}

export interface Container {
  readonly runtime: string;
  readonly id: string;
  /** The bundle: the runtime's log lies beside it while the container lives. */
  readonly directory: string;
  /** The container gets our stdin, else it reads the end of the file at once. */
  readonly stdin: boolean;
  readonly rootless: RootlessRuntime | undefined;
}

/** A signal that the terminal or somebody else sends us is meant for the container. */
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGCONT'] as const;
const STOPPING: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM'];
/** The first process of a container ignores what it has no handler for. Who asks this often means it. */
const PATIENCE = 3;

/** Signals wait, and none ends the process, until the returned function is called. */
export function holdSignals(): () => void {
  const ignore = (): void => undefined;
  for (const signal of FORWARDED) process.on(signal, ignore);
  return () => {
    for (const signal of FORWARDED) process.off(signal, ignore);
  };
}

/**
 * Runs the container in the foreground to its end and returns its exit code (128 + n when signal n ended it). Signals
 * are passed on; the third SIGINT or SIGTERM kills. Throws RUNTIME_FAILED when no container came to life.
 */
export async function runContainer(container: Container): Promise<number> {
  const { runtime, id, directory, stdin } = container;
  const log = `${directory}.log`;
  const { rootless } = container;
  const args = [...globalArguments(container), '--log', log, '--log-format', 'json', 'run', '--bundle', directory, id];
  const stdio = [stdin ? 'inherit' : 'ignore', 'inherit', 'inherit'] as const;
  // A session of its own: a Ctrl-C at the terminal comes to us alone, and reaches the container once.
  const child =
    rootless === undefined
      ? spawn(runtime, args, { stdio: [...stdio], detached: true })
      : await spawnInNamespace({ ...rootless, command: runtime, args, stdio, cwd: directory });
  let stops = 0;
  const forward = (signal: NodeJS.Signals): void => {
    if (STOPPING.includes(signal) && ++stops >= PATIENCE)
      void call(runtime, [...globalArguments(container), 'kill', id, 'KILL']);
    else child.kill(signal);
  };
  for (const signal of FORWARDED) process.on(signal, forward);
  try {
    const code = await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (status, signal) => resolve(signal === null ? (status ?? 1) : signalExitCode(signal)));
    });
    const failure = code === 0 ? undefined : loggedError(log);
    if (failure !== undefined) throw new LaminaError('RUNTIME_FAILED', `Cannot run the container: ${failure}`);
    return code;
  } catch (e) {
    if (e instanceof LaminaError) throw e;
    throw new LaminaError('RUNTIME_FAILED', `Cannot start ${runtime}: ${errnoOf(e) ?? String(e)}`, { cause: e });
  } finally {
    for (const signal of FORWARDED) process.off(signal, forward);
    rmSync(log, { force: true });
  }
}

/** Removes what the runtime still has of a container; there may be nothing. */
export async function deleteContainer(container: Container): Promise<void> {
  await call(container.runtime, [...globalArguments(container), 'delete', '--force', container.id]);
}

/** As root of a user namespace a runtime would take root's directory for its own. */
function globalArguments({ rootless }: Container): string[] {
  return rootless === undefined ? [] : ['--root', rootless.state];
}

/** Resolves when the runtime has ended, well or not. */
function call(runtime: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve) => {
    const child = spawn(runtime, args, { stdio: 'ignore', detached: true });
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  });
}

/** The last error that the runtime logged (JSON lines, of logrus or of crun). */
function loggedError(path: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
  for (const line of text.split('\n').reverse()) {
    const entry = parseLine(line);
    if (entry?.level === 'error' || entry?.level === 'fatal') return entry.msg;
  }
  return undefined;
}

function parseLine(line: string): { level?: string; msg?: string } | undefined {
  try {
    return JSON.parse(line) as { level?: string; msg?: string };
  } catch {
    return undefined;
  }
}
