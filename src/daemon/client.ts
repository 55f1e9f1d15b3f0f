/** A client of the control API. */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { LaminaError, errnoOf, toLaminaError, type SerializedError } from '../errors.js';
import { lockOwner } from './lock.js';
import type {
  DaemonStatus,
  MountContent,
  Mounted,
  MountEvent,
  MountRequestInput,
  MountStatus,
  PrepareEvent,
} from './protocol.js';
import { isAlive } from './process.js';
import { RunDir } from './run-dir.js';

type OnEvent = (event: PrepareEvent) => void;

interface Call {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
  readonly signal?: AbortSignal | undefined;
}

/** The answer of the daemon is its own; the bound is against a runaway. */
const ANSWER_MAX = 64 * 1024 * 1024;
const ANSWER_MS = 5000;
/** A daemon whose server has died has another by then. */
const RESTART_MS = 10_000;
const POLL_MS = 20;
/** What a daemon that was told to stop gets to end its processes. */
const END_MS = 30_000;

export class DaemonClient {
  readonly #run: RunDir;
  #store = '';

  private constructor(run: RunDir) {
    this.#run = run;
  }

  /**
   * A client of the daemon that has the run directory; undefined when there is none. Waits for one that is starting.
   * Throws DAEMON_UNREACHABLE when it does not answer, PERMISSION_DENIED for a directory that is not ours.
   */
  static async connect(path: string): Promise<DaemonClient | undefined> {
    const run = new RunDir(path);
    if (!run.check()) return undefined;
    const client = new DaemonClient(run);
    for (const deadline = Date.now() + RESTART_MS; ; await delay(POLL_MS)) {
      const status = await client.#greet();
      if (status !== undefined) {
        client.#store = status.store;
        return client;
      }
      const owner = lockOwner(run);
      if (owner === undefined) return undefined;
      if (Date.now() > deadline) {
        throw new LaminaError('DAEMON_UNREACHABLE', `The daemon (process ${owner}) does not answer on ${run.socket}`, {
          hint: `Its log is ${run.log}.`,
        });
      }
    }
  }

  /** The daemon's. */
  get store(): string {
    return this.#store;
  }

  status(): Promise<DaemonStatus> {
    return this.#json<DaemonStatus>({ method: 'GET', path: '/v1/status' });
  }

  contents(): Promise<MountContent[]> {
    return this.#json<MountContent[]>({ method: 'GET', path: '/v1/contents' });
  }

  mounts(): Promise<MountStatus[]> {
    return this.#json<MountStatus[]>({ method: 'GET', path: '/v1/mounts' });
  }

  /** `onEvent` gets progress and warnings. Aborting `signal` undoes the mount. Throws what the daemon says. */
  async mount(request: MountRequestInput, onEvent?: OnEvent, signal?: AbortSignal): Promise<MountStatus> {
    return (await this.mountFor(request, onEvent, signal)).mount;
  }

  /** The same, and what a runtime has to be told, where the request says how it shall run the image. */
  async mountFor(
    request: MountRequestInput,
    onEvent: OnEvent = () => undefined,
    signal?: AbortSignal,
  ): Promise<Mounted> {
    const call: Call = { method: 'POST', path: '/v1/mounts', body: request, signal };
    for await (const line of linesOf(await this.#call(call))) {
      const event = JSON.parse(line) as MountEvent;
      if (event.type === 'mounted') return event;
      if (event.type === 'error') throw LaminaError.fromJSON(event.error);
      onEvent(event);
    }
    signal?.throwIfAborted();
    throw this.#died();
  }

  /** Returns what was unmounted. `target`: a mountpoint, an id, a reference or "*". Throws MOUNT_NOT_FOUND, MOUNT_BUSY. */
  unmount(target: string, { lazy = false }: { lazy?: boolean } = {}): Promise<MountStatus[]> {
    const query = new URLSearchParams({ target, ...(lazy ? { lazy: '1' } : {}) });
    return this.#json<MountStatus[]>({ method: 'DELETE', path: `/v1/mounts?${query.toString()}` });
  }

  /** Whether layers are completed that nobody reads. */
  async pauseBackground(paused: boolean): Promise<void> {
    await this.#json({ method: 'POST', path: '/v1/background', body: { paused } });
  }

  /** Unmounts everything and ends the daemon; resolves when its processes are gone. Throws MOUNT_BUSY without `force`. */
  async stop({ force = false }: { force?: boolean } = {}): Promise<void> {
    const { supervisorPid, serverPid } = await this.status();
    await this.#json({ method: 'POST', path: '/v1/stop', body: { force } });
    const deadline = Date.now() + END_MS;
    while (isAlive(supervisorPid) || isAlive(serverPid)) {
      if (Date.now() > deadline)
        throw new LaminaError('DAEMON_FAILED', 'The daemon has unmounted everything, but does not end');
      await delay(POLL_MS);
    }
  }

  /** Undefined: nobody answers. */
  async #greet(): Promise<DaemonStatus | undefined> {
    try {
      const signal = AbortSignal.timeout(ANSWER_MS);
      return await this.#json<DaemonStatus>({ method: 'GET', path: '/v1/status', signal });
    } catch (e) {
      if (!(e instanceof LaminaError) || e.code === 'DAEMON_UNREACHABLE') return undefined;
      throw e;
    }
  }

  async #json<T>(call: Call): Promise<T> {
    return JSON.parse(await this.#text(await this.#call(call))) as T;
  }

  async #text(response: IncomingMessage): Promise<string> {
    const parts: Buffer[] = [];
    let size = 0;
    try {
      for await (const part of response as AsyncIterable<Buffer>) {
        size += part.length;
        if (size > ANSWER_MAX) throw new LaminaError('DAEMON_FAILED', 'The daemon’s answer does not end');
        parts.push(part);
      }
    } catch (e) {
      throw e instanceof LaminaError ? e : this.#died(e);
    }
    return Buffer.concat(parts).toString('utf8');
  }

  /** Throws DAEMON_UNREACHABLE, PERMISSION_DENIED and what the daemon answers. */
  #call({ method, path, body, signal }: Call): Promise<IncomingMessage> {
    return new Promise<IncomingMessage>((resolve, reject) => {
      const headers = body === undefined ? {} : { 'content-type': 'application/json' };
      const options = { socketPath: this.#run.socket, method, path, headers, agent: false, ...(signal && { signal }) };
      const request = httpRequest(options, (response) => {
        if (response.statusCode === 200) resolve(response);
        else this.#text(response).then((text) => reject(errorOf(text)), reject);
      });
      request.once('error', (e) => reject(signal?.aborted === true ? e : this.#unreachable(e)));
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  #unreachable(e: Error): LaminaError {
    if (errnoOf(e) === 'EACCES') return toLaminaError(e, `Cannot reach the daemon at ${this.#run.socket}`);
    return new LaminaError('DAEMON_UNREACHABLE', `No daemon answers on ${this.#run.socket}: ${e.message}`, {
      cause: e,
    });
  }

  #died(cause?: unknown): LaminaError {
    return new LaminaError('DAEMON_UNREACHABLE', 'The daemon died before it had answered', {
      cause,
      hint: `Its log is ${this.#run.log}. Another takes its place: try again.`,
    });
  }
}

function errorOf(text: string): LaminaError {
  try {
    return LaminaError.fromJSON(JSON.parse(text) as SerializedError);
  } catch {
    return new LaminaError('DAEMON_FAILED', `The daemon answered with what is no error: ${text.slice(0, 200)}`);
  }
}

async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest = Buffer.alloc(0);
  try {
    for await (const part of stream) {
      rest = Buffer.concat([rest, part]);
      for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
        yield rest.toString('utf8', 0, end);
        rest = rest.subarray(end + 1);
      }
    }
  } catch (e) {
    if (e instanceof LaminaError || (e instanceof Error && e.name === 'AbortError')) throw e;
    // A connection that breaks ends the lines: the caller misses the last one.
  }
}
