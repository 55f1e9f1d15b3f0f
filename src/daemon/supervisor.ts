/**
 * The supervisor: opens /dev/fuse, mounts, holds the descriptors, and starts the server again whenever it dies. A FUSE
 * connection lives as long as one descriptor of it is open, so a dead server loses no mount: readers wait until the
 * next one asks the kernel to send their requests again. It parses nothing that came from an image and does nothing
 * that could wait for the server (mount(2) of type fuse returns before INIT is answered).
 *
 * Argument: the run directory. The server gets the same arguments, an IPC channel (below) and, as descriptor 4, a
 * socket over which FUSE descriptors come.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { closeSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LaminaError, toLaminaError, type SerializedError } from '../errors.js';
import { openFuseMount, type FuseMount } from '../mount/fuse-mount.js';
import { sendFd, socketpair } from '../native/libc.js';
import type { TypedCredentials } from '../source/fetch/fetcher.js';
import { RUN_DIR_TAKEN } from './lock.js';
import { takeLock } from './take-lock.js';
import { RestartPause } from './restart-pause.js';
import { RunDir } from './run-dir.js';

/** Server to supervisor; every request gets a `done`. `key` names a connection for as long as it lives. */
export type Request =
  | { readonly op: 'take'; readonly id: number; readonly key: string }
  /** It answers, and has taken over the mounts. */
  | { readonly op: 'serving'; readonly id: number }
  /** The server is about to end, however it does: no other is wanted. */
  | { readonly op: 'stopping'; readonly id: number }
  /** Mounts go on by them after a crash. They are in memory only. */
  | { readonly op: 'keep'; readonly id: number; readonly typed: TypedCredentials }
  | { readonly op: 'open'; readonly id: number; readonly key: string; readonly mount: FuseMount }
  | { readonly op: 'close'; readonly id: number; readonly key: string };

/**
 * Supervisor to server. The descriptor of a successful `take` or `open` is sent on the socket first: one at a time, for a
 * socket's buffer holds few, and a supervisor must never wait for its server.
 */
export type Message =
  | {
      readonly op: 'held';
      readonly keys: readonly string[];
      readonly typed: readonly TypedCredentials[];
      readonly supervisorPid: number;
      readonly restarts: number;
    }
  | { readonly op: 'done'; readonly id: number; readonly error?: SerializedError };

const FAILED = 1;

/** A server that was told to stop has deadlines of its own for everything; this is for one that hangs. */
const STOP_TIMEOUT_MS = 60_000;

/** Calls that wait for a mount occupy a thread of libuv's; the default of 4 would soon leave none for the rest. */
const SERVER_THREADS = '16';

/** Of typed credentials, those that were typed last are kept. */
const TYPED_MAX = 1000;

function log(level: 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown> = {}): void {
  process.stderr.write(
    `${JSON.stringify({ time: new Date().toISOString(), level, part: 'supervisor', pid: process.pid, ...facts, msg: message })}\n`,
  );
}

class Supervisor {
  readonly #args: readonly string[];
  readonly #held = new Map<string, number>();
  readonly #typed: TypedCredentials[] = [];
  #server: ChildProcess | undefined;
  #socket = -1;
  #stopping = false;
  #restarts = 0;
  /** Of performance.now(); undefined before the server serves, which takes it long on a busy machine. */
  #servingSince: number | undefined;
  readonly #pause = new RestartPause();

  constructor(args: readonly string[]) {
    this.#args = args;
  }

  start(): void {
    const [ours, theirs] = socketpair();
    this.#socket = ours;
    this.#servingSince = undefined;
    const server = fork(fileURLToPath(new URL('./server.js', import.meta.url)), this.#args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', theirs],
      serialization: 'json',
      env: { ...process.env, UV_THREADPOOL_SIZE: SERVER_THREADS },
    });
    closeSync(theirs);
    this.#server = server;
    server.on('message', (request: Request) => this.#handle(server, request));
    server.on('error', (e) => {
      log('error', 'the server could not be started', { error: e.message });
      if (server.pid === undefined) this.#ended(ours, null, null);
    });
    server.once('exit', (code, signal) => this.#ended(ours, code, signal));
    this.#send(server, {
      op: 'held',
      keys: [...this.#held.keys()],
      typed: this.#typed,
      supervisorPid: process.pid,
      restarts: this.#restarts,
    });
  }

  stop(signal: NodeJS.Signals): void {
    this.#expectEnd();
    if (this.#server === undefined) process.exit(0);
    this.#server.kill(signal);
  }

  #expectEnd(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    setTimeout(() => this.#server?.kill('SIGKILL'), STOP_TIMEOUT_MS);
  }

  #ended(socket: number, code: number | null, signal: NodeJS.Signals | null): void {
    closeSync(socket);
    this.#server = undefined;
    if (code === 0 || this.#stopping) {
      log('info', 'the server has stopped', { code, signal });
      process.exit(code ?? 0);
    }
    const pause = this.#pause.died(
      this.#servingSince === undefined ? undefined : performance.now() - this.#servingSince,
    );
    this.#restarts++;
    // With mounts held, giving up would lose them.
    if (this.#pause.hopeless && this.#held.size === 0) {
      log('error', 'the server dies whenever it is started: giving up', { code, signal });
      process.exit(FAILED);
    }
    log('warn', 'the server died; starting another', { code, signal, restarts: this.#restarts, held: this.#held.size });
    setTimeout(() => this.start(), pause);
  }

  #handle(server: ChildProcess, request: Request): void {
    try {
      this.#do(request);
      this.#send(server, { op: 'done', id: request.id });
    } catch (e) {
      this.#send(server, { op: 'done', id: request.id, error: toLaminaError(e).toJSON() });
    }
  }

  #do(request: Request): void {
    switch (request.op) {
      case 'open':
        return this.#open(request.key, request.mount);
      case 'take':
        return this.#take(request.key);
      case 'close':
        return this.#close(request.key);
      case 'serving':
        this.#servingSince = performance.now();
        return;
      case 'stopping':
        return this.#expectEnd();
      case 'keep':
        this.#typed.push(request.typed);
        if (this.#typed.length > TYPED_MAX) this.#typed.shift();
        return;
    }
  }

  #take(key: string): void {
    const fd = this.#held.get(key);
    if (fd === undefined) throw new LaminaError('INTERNAL', `No connection ${key}`);
    sendFd(this.#socket, fd);
  }

  #open(key: string, mount: FuseMount): void {
    const fd = openFuseMount(mount);
    this.#held.set(key, fd);
    sendFd(this.#socket, fd);
  }

  #close(key: string): void {
    const fd = this.#held.get(key);
    if (fd === undefined) return;
    this.#held.delete(key);
    closeSync(fd);
  }

  #send(server: ChildProcess, message: Message): void {
    // Without a callback a server that has just died would end this process by an 'error' event.
    if (server.connected) server.send(message, () => undefined);
  }
}

function main(): void {
  const [runPath = '', ...rest] = process.argv.slice(2);
  new RunDir(runPath).create();
  // mountinfo has real paths.
  const run = new RunDir(realpathSync(runPath));
  if (!takeLock(run)) {
    log('info', 'another daemon has the run directory', { run: run.path });
    process.exit(RUN_DIR_TAKEN);
  }
  const supervisor = new Supervisor([run.path, ...rest]);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => supervisor.stop('SIGTERM'));
  process.on('SIGHUP', () => undefined);
  // A log that cannot be written must not end the mounts.
  process.stderr.on('error', () => undefined);
  log('info', 'started', { run: run.path });
  supervisor.start();
}

try {
  main();
} catch (e) {
  const { code, message } = toLaminaError(e);
  log('error', message, { code });
  process.exit(FAILED);
}
