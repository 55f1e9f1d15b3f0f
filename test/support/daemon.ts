/** A daemon of a test's own: a child process with run directory and store under a temporary directory. */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { detachBeneath, killDaemon } from '../../scripts/leftovers.js';
import { lamina, plainly, type CliOptions, type CliResult } from './cli.js';
import { tempDir } from './tmp.js';

const supervisorPath = fileURLToPath(new URL('../../src/daemon/supervisor.js', import.meta.url));
const START_MS = 20_000;
const STOP_MS = 15_000;

export interface TestDaemon {
  /** The temporary directory that holds everything else; mountpoints belong here too. */
  readonly directory: string;
  readonly run: string;
  readonly store: string;
  /** LAMINA_RUN and LAMINA_STORE, for commands that shall use this daemon. */
  readonly env: Readonly<Record<string, string>>;
  readonly supervisorPid: number;
  /** What supervisor and server have logged so far. */
  log(): string;
  /** The command line, on this daemon. */
  lamina(args: readonly string[], options?: CliOptions): Promise<CliResult>;
  /** A request on the control socket, path from "/v1/" on; the answer is parsed, line by line when it is NDJSON. */
  control(method: string, path: string, body?: unknown): Promise<ControlAnswer>;
  /** As a teardown does it: stops the daemon, kills it if it does not stop, unmounts what is left. */
  stop(): Promise<void>;
  /** Resolves when it answers. Throws with its log when it does not come up. */
  ready(): Promise<void>;
}

export interface ControlAnswer {
  readonly status: number;
  /** The JSON body, or the list of NDJSON documents; undefined for an empty body. */
  readonly body: unknown;
}

/**
 * Started and answering. `directory` (a test's own) is used instead of a new one, for a second daemon after a stop. `env`:
 * variables of the daemon, beside those of the test.
 */
export async function startDaemon(
  t: Test,
  directory = tempDir(t),
  env: Readonly<Record<string, string>> = {},
): Promise<TestDaemon> {
  // What a test reads shall come from the server, not from what the kernel has kept of an earlier mount.
  const daemon = spawnDaemon(directory, { LAMINA_CACHE_TIME: '0', ...env });
  t.teardown(() => daemon.stop());
  await daemon.ready();
  return daemon;
}

/** Outside a test: the caller has to see to it that it is stopped. */
export function spawnDaemon(directory: string, variables: Readonly<Record<string, string>> = {}): TestDaemon {
  const run = join(directory, 'run');
  const store = join(directory, 'store');
  const logPath = join(directory, 'daemon.log');
  mkdirSync(run, { recursive: true });
  const log = openSync(logPath, 'a');
  const child = spawn(...plainly(process.execPath, ['--enable-source-maps', supervisorPath, run, store]), {
    stdio: ['ignore', log, log],
    env: { ...process.env, ...variables },
  });
  closeSync(log);
  let ended = false;
  child.once('exit', () => (ended = true));
  child.once('error', () => (ended = true));

  const env = { LAMINA_RUN: run, LAMINA_STORE: store };
  const daemon: TestDaemon = {
    directory,
    run,
    store,
    env,
    supervisorPid: child.pid ?? -1,
    log: () => readFileSync(logPath, 'utf8'),
    lamina: (args, options = {}) => lamina(args, { ...options, env: { ...env, ...options.env } }),
    control: (method, path, body) => control(join(run, 'control.sock'), method, path, body),
    async stop() {
      await daemon.control('POST', '/v1/stop', { force: true }).catch(() => undefined);
      await until(() => ended, STOP_MS);
      await killDaemon(run);
      await detachBeneath(directory);
    },
    async ready() {
      const answers = async (): Promise<boolean> => {
        if (ended) throw new Error(`The daemon ended at once:\n${daemon.log()}`);
        const answer = await daemon.control('GET', '/v1/status').catch(() => undefined);
        return answer?.status === 200;
      };
      if (!(await until(answers, START_MS))) throw new Error(`The daemon does not answer:\n${daemon.log()}`);
    },
  };
  return daemon;
}

/** Waits for a condition, looking every few milliseconds; false when it did not come true in time. */
export async function until(condition: () => boolean | Promise<boolean>, milliseconds: number): Promise<boolean> {
  const end = Date.now() + milliseconds;
  for (;;) {
    if (await condition()) return true;
    if (Date.now() > end) return false;
    await sleep(10);
  }
}

function control(socketPath: string, method: string, path: string, body?: unknown): Promise<ControlAnswer> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    // Not kept alive: the daemon closes idle connections, and a test may be busy for longer.
    const outgoing = request({ socketPath, method, path, headers, agent: false }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (bytes: Buffer) => parts.push(bytes));
      answer.once('error', reject);
      answer.once('end', () => {
        const text = Buffer.concat(parts).toString('utf8');
        const lines = answer.headers['content-type']?.includes('ndjson') === true;
        try {
          resolve({ status: answer.statusCode ?? 0, body: lines ? parseLines(text) : parse(text) });
        } catch (e) {
          reject(e instanceof Error ? e : new Error(String(e)));
        }
      });
    });
    outgoing.once('error', reject);
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function parse(text: string): unknown {
  return text.trim() === '' ? undefined : (JSON.parse(text) as unknown);
}

function parseLines(text: string): unknown[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => parse(line));
}
