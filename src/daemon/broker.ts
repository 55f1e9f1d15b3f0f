/**
 * The server's side of the supervisor: opening FUSE connections and letting them go. When the supervisor has died the
 * server goes on without: it opens connections itself, and a crash would then lose them.
 */
import { closeSync } from 'node:fs';
import { LaminaError } from '../errors.js';
import { openFuseMount, type FuseMount } from '../mount/fuse-mount.js';
import { receiveFd } from '../native/libc.js';
import type { TypedCredentials } from '../source/fetch/fetcher.js';
import type { Message, Request } from './supervisor.js';

/** The descriptor on which the supervisor sends others. */
const FD_SOCKET = 4;

export interface Held {
  readonly supervisorPid: number;
  /** How often a server has died under this supervisor. */
  readonly restarts: number;
  /** Connections that an earlier server has left: key to descriptor. */
  readonly connections: ReadonlyMap<string, number>;
  /** What was typed while earlier servers ran. */
  readonly typed: readonly TypedCredentials[];
}

export class Broker {
  readonly #waiting = new Map<number, { resolve: () => void; reject: (e: Error) => void }>();
  readonly #fds = new Map<string, number>();
  readonly #onOrphaned: () => void;
  #next = 1;
  #onHeld: ((message: Extract<Message, { op: 'held' }>) => void) | undefined;

  constructor(onOrphaned: () => void) {
    this.#onOrphaned = onOrphaned;
  }

  get supervised(): boolean {
    return process.connected;
  }

  /** Takes over what the supervisor holds. */
  async start(): Promise<Held> {
    const said = new Promise<Extract<Message, { op: 'held' }>>((resolve) => {
      this.#onHeld = resolve;
    });
    process.on('message', (message: Message) => this.#handle(message));
    process.on('disconnect', () => {
      const e = new LaminaError('DAEMON_FAILED', 'The supervisor died');
      for (const { reject } of this.#waiting.values()) reject(e);
      this.#waiting.clear();
      this.#onOrphaned();
    });
    const { keys, supervisorPid, restarts, typed } = await said;
    for (const key of keys) {
      await this.#request({ op: 'take', id: this.#next++, key });
      this.#fds.set(key, receiveFd(FD_SOCKET));
    }
    return { supervisorPid, restarts, connections: new Map(this.#fds), typed };
  }

  /** Mounts and returns the descriptor to serve. Throws FUSE_UNAVAILABLE, MOUNT_FAILED. */
  async open(key: string, mount: FuseMount): Promise<number> {
    const fd = this.supervised ? await this.#openSupervised(key, mount) : openFuseMount(mount);
    this.#fds.set(key, fd);
    return fd;
  }

  async #openSupervised(key: string, mount: FuseMount): Promise<number> {
    await this.#request({ op: 'open', id: this.#next++, key, mount });
    return receiveFd(FD_SOCKET);
  }

  /** Lets go of a connection, which ends it unless the kernel has done so. */
  async close(key: string): Promise<void> {
    const fd = this.#fds.get(key);
    this.#fds.delete(key);
    if (fd !== undefined) closeSync(fd);
    if (this.supervised) await this.#request({ op: 'close', id: this.#next++, key });
  }

  /** For the servers to come. */
  async keep(typed: TypedCredentials): Promise<void> {
    if (this.supervised) await this.#request({ op: 'keep', id: this.#next++, typed });
  }

  /** Call when this process serves. */
  async announceServing(): Promise<void> {
    if (this.supervised) await this.#request({ op: 'serving', id: this.#next++ });
  }

  /** Call before this process ends on purpose. */
  async announceEnd(): Promise<void> {
    if (this.supervised) await this.#request({ op: 'stopping', id: this.#next++ });
  }

  #request(request: Request): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(request.id, { resolve, reject });
      process.send?.(request);
    });
  }

  #handle(message: Message): void {
    if (message.op === 'held') {
      this.#onHeld?.(message);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error === undefined) waiting?.resolve();
    else waiting?.reject(LaminaError.fromJSON(message.error));
  }
}
