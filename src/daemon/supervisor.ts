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
import { closeSync, constants, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { toLaminaError, type SerializedError } from '../errors.js';
import { mount, sendFd, setNonBlocking, socketpair, tryLock } from '../native/libc.js';
import { RunDir } from './run-dir.js';

/** Server to supervisor. `key` names a connection for as long as it lives. */
export type Request =
  | { readonly op: 'open'; readonly id: number; readonly key: string; readonly mount: FuseMount }
  | { readonly op: 'close'; readonly id: number; readonly key: string };

export interface FuseMount {
  readonly target: string;
  readonly source: string;
  readonly subtype: string;
  /** mount(2) flags. */
  readonly flags: number;
  /** Options after `fd=`, as the kernel takes them. */
  readonly options: string;
}

/** Supervisor to server. Descriptors of `held`, in this order, and of a successful `open` are sent on the socket first. */
export type Message =
  | { readonly op: 'held'; readonly keys: readonly string[]; readonly supervisorPid: number; readonly restarts: number }
  | { readonly op: 'done'; readonly id: number; readonly error?: SerializedError };

/** Exit codes of the supervisor's own. */
const ALREADY_RUNNING = 75;

const RESTART_DELAY_MAX_MS = 2000;
/** A server that lived this long was well: the next restart is immediate again. */
const HEALTHY_AFTER_MS = 5000;

function log(level: 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown> = {}): void {
  process.stderr.write(
    `${JSON.stringify({ time: new Date().toISOString(), level, part: 'supervisor', pid: process.pid, ...facts, msg: message })}\n`,
  );
}

class Supervisor {
  readonly #args: readonly string[];
  readonly #held = new Map<string, number>();
  #server: ChildProcess | undefined;
  #socket = -1;
  #stopping = false;
  #restarts = 0;
  #delay = 0;

  constructor(args: readonly string[]) {
    this.#args = args;
  }

  start(): void {
    const startedAt = Date.now();
    const [ours, theirs] = socketpair();
    this.#socket = ours;
    const server = fork(fileURLToPath(new URL('./server.js', import.meta.url)), this.#args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', theirs],
      serialization: 'json',
    });
    closeSync(theirs);
    this.#server = server;
    server.on('message', (request: Request) => this.#handle(server, request));
    server.on('error', (e) => log('error', 'the server could not be started', { error: e.message }));
    server.once('exit', (code, signal) => {
      closeSync(ours);
      this.#server = undefined;
      if (code === 0 || this.#stopping) {
        log('info', 'the server has stopped', { code, signal });
        process.exit(code ?? 0);
      }
      if (Date.now() - startedAt > HEALTHY_AFTER_MS) this.#delay = 0;
      this.#restarts++;
      log('warn', 'the server died; starting another', { code, signal, restarts: this.#restarts, held: this.#held.size });
      setTimeout(() => this.start(), this.#delay);
      this.#delay = Math.min(this.#delay * 2 + 50, RESTART_DELAY_MAX_MS);
    });
    for (const fd of this.#held.values()) sendFd(ours, fd);
    this.#send(server, {
      op: 'held',
      keys: [...this.#held.keys()],
      supervisorPid: process.pid,
      restarts: this.#restarts,
    });
  }

  stop(signal: NodeJS.Signals): void {
    this.#stopping = true;
    if (this.#server === undefined) process.exit(0);
    this.#server.kill(signal);
  }

  #handle(server: ChildProcess, request: Request): void {
    try {
      if (request.op === 'open') this.#open(request.key, request.mount);
      else this.#close(request.key);
      this.#send(server, { op: 'done', id: request.id });
    } catch (e) {
      this.#send(server, { op: 'done', id: request.id, error: toLaminaError(e).toJSON() });
    }
  }

  #open(key: string, { target, source, subtype, flags, options }: FuseMount): void {
    const fd = openSync('/dev/fuse', constants.O_RDWR);
    try {
      setNonBlocking(fd);
      mount(source, target, `fuse.${subtype}`, flags, `fd=${fd},${options}`);
      sendFd(this.#socket, fd);
    } catch (e) {
      closeSync(fd);
      throw e;
    }
    this.#held.set(key, fd);
  }

  #close(key: string): void {
    const fd = this.#held.get(key);
    if (fd === undefined) return;
    this.#held.delete(key);
    closeSync(fd);
  }

  #send(server: ChildProcess, message: Message): void {
    if (server.connected) server.send(message);
  }
}

function main(): void {
  const args = process.argv.slice(2);
  const run = new RunDir(args[0] ?? '');
  run.create();
  if (!tryLock(openSync(run.lock, constants.O_RDWR | constants.O_CREAT, 0o600))) {
    log('info', 'another daemon has the run directory', { run: run.path });
    process.exit(ALREADY_RUNNING);
  }
  const supervisor = new Supervisor(args);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => supervisor.stop('SIGTERM'));
  process.on('SIGHUP', () => undefined);
  log('info', 'started', { run: run.path });
  supervisor.start();
}

main();
