/**
 * The FUSE connections that this server serves, from the main thread's side: opened through the supervisor, served by
 * the workers, let go when the kernel has ended them.
 */
import type { Negotiated } from '../fuse/init.js';
import { resend } from '../fuse/serve-loop.js';
import { abortConnection } from '../mount/fuse-control.js';
import type { FuseMount } from '../mount/fuse-mount.js';
import type { Broker } from './broker.js';
import type { Logger } from './log.js';
import type { ConnectionContent } from './served.js';
import type { WorkerPool } from './worker-pool.js';

export interface ConnectionsOptions {
  readonly broker: Broker;
  readonly pool: WorkerPool;
  readonly log: Logger;
  /** INIT was answered: to be recorded before a crash. */
  readonly onInit: (key: string, negotiated: Negotiated) => void;
  /** The kernel has ended the connection: it is mounted nowhere any more. */
  readonly onGone: (key: string) => void;
}

interface Connection {
  readonly id: number;
  readonly key: string;
  readonly fd: number;
  readonly gone: Promise<void>;
  readonly end: () => void;
}

export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #byKey = new Map<string, Connection>();
  readonly #byId = new Map<number, Connection>();
  #next = 1;

  constructor(options: ConnectionsOptions) {
    this.#options = options;
  }

  has(key: string): boolean {
    return this.#byKey.has(key);
  }

  /** What a message of a worker with this connection id is about. */
  keyOf(id: number): string | undefined {
    return this.#byId.get(id)?.key;
  }

  /** Mounts and serves. Throws FUSE_UNAVAILABLE, MOUNT_FAILED. */
  async open(key: string, mount: FuseMount, content: ConnectionContent): Promise<void> {
    // A process that waits for its own mount before it serves that could not even be killed.
    await this.#options.pool.ready();
    const fd = await this.#options.broker.open(key, mount);
    this.#serve(key, fd, content, undefined);
  }

  /**
   * Serves a connection that an earlier server has left. What that one had taken and not answered, the kernel is asked to
   * give again; a kernel before 6.9 cannot, and those readers wait for ever: ending the whole mount for the sake of
   * them would be worse, so it is left to the administrator, who is told.
   */
  adopt(key: string, fd: number, content: ConnectionContent, negotiated: Negotiated | undefined): void {
    // Before the workers read, so that nothing is given twice.
    if (!resend(fd)) {
      this.#options.log.error(
        { connection: key },
        'this kernel cannot give a dead server’s requests again: processes that waited for one wait until the mount is aborted',
      );
    }
    this.#serve(key, fd, content, negotiated);
  }

  /** Whether the kernel ends the connection within that time. */
  async ends(key: string, milliseconds: number): Promise<boolean> {
    const connection = this.#byKey.get(key);
    if (connection === undefined) return true;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), milliseconds);
    });
    const ended = await Promise.race([connection.gone.then(() => true), late]);
    clearTimeout(timer);
    return ended;
  }

  /** Ends a connection whatever uses it: every access fails from now on. `device` is that of its mount. */
  abort(key: string, device: string | undefined): void {
    const connection = this.#byKey.get(key);
    if (connection === undefined) return;
    this.#options.log.warn({ connection: key }, 'aborting a FUSE connection');
    if (device !== undefined) abortConnection(device);
    this.#end(connection);
  }

  /** The kernel has ended it, as its list of connections tells: a busy worker would be later to notice. */
  ended(key: string): void {
    const connection = this.#byKey.get(key);
    if (connection !== undefined) this.#end(connection);
  }

  /** A worker's "gone"; each worker that sees it sends one. */
  gone(id: number): void {
    const connection = this.#byId.get(id);
    if (connection !== undefined) this.#end(connection);
  }

  initialised(id: number, negotiated: Negotiated): void {
    const connection = this.#byId.get(id);
    if (connection !== undefined) this.#options.onInit(connection.key, negotiated);
  }

  #serve(key: string, fd: number, content: ConnectionContent, negotiated: Negotiated | undefined): void {
    let end = (): void => undefined;
    const gone = new Promise<void>((resolve) => {
      end = resolve;
    });
    const connection = { id: this.#next++, key, fd, gone, end };
    this.#byKey.set(key, connection);
    this.#byId.set(connection.id, connection);
    this.#options.pool.connect({ id: connection.id, fd, content, negotiated });
  }

  #end(connection: Connection): void {
    const { broker, pool, log, onGone } = this.#options;
    this.#byKey.delete(connection.key);
    this.#byId.delete(connection.id);
    connection.end();
    pool
      .disconnect(connection)
      .then(() => broker.close(connection.key))
      .catch((e: unknown) =>
        log.warn({ err: e, connection: connection.key }, 'letting go of a FUSE connection failed'),
      );
    onGone(connection.key);
  }
}
