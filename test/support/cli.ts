/** The command line as a child process, as a user starts it. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const cliPath = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

export interface CliOptions {
  /** Over the test's own environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Standard input; closed when absent. */
  readonly input?: string | Uint8Array;
  /** Milliseconds after which it is killed. */
  readonly timeout?: number;
}

export interface CliResult {
  /** Exit code; -1 when a signal ended it. */
  readonly code: number;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stdoutBytes: Buffer;
  readonly stderr: string;
}

const TIMEOUT_MS = 120_000;

/** Runs `lamina ARGS`. A daemon that it starts lives on: give LAMINA_RUN and LAMINA_STORE of a test daemon. */
export function lamina(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return runCommand(process.execPath, [cliPath, ...args], options);
}

/**
 * A command as users start it: without the loader by which the test runner follows the processes of its tests. That loader is in
 * every thread of a daemon, which takes three times as long to start with it.
 */
export function plainly(command: string, args: readonly string[]): [string, string[]] {
  return ['env', ['-u', 'NODE_OPTIONS', command, ...args]];
}

/** Any command, without a shell. */
export function runCommand(command: string, args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const { env = {}, cwd, input, timeout = TIMEOUT_MS } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(...plainly(command, args), {
      cwd,
      env: { ...process.env, NO_COLOR: '1', ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout,
      killSignal: 'SIGKILL',
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (bytes: Buffer) => stdout.push(bytes));
    child.stderr.on('data', (bytes: Buffer) => stderr.push(bytes));
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      const bytes = Buffer.concat(stdout);
      resolve({
        code: code ?? -1,
        signal,
        stdout: bytes.toString('utf8'),
        stdoutBytes: bytes,
        stderr: Buffer.concat(stderr).toString('utf8'),
      });
    });
  });
}
