/** The control API (protocol.ts) over HTTP on a unix socket. Who may connect may do everything: the socket is 0600. */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { z } from 'zod';
import { LaminaError, toLaminaError } from '../errors.js';
import type { Logger } from './log.js';
import {
  backgroundRequest,
  mountRequest,
  stopRequest,
  type DaemonStatus,
  type MountContent,
  type MountEvent,
  type MountRequest,
  type MountStatus,
  type Mounted,
  type PrepareEvent,
} from './protocol.js';

type OnEvent = (event: PrepareEvent) => void;

export interface Handlers {
  readonly status: () => Promise<DaemonStatus>;
  readonly mounts: () => Promise<MountStatus[]>;
  readonly contents: () => Promise<MountContent[]>;
  readonly mount: (request: MountRequest, onEvent: OnEvent, signal: AbortSignal) => Promise<Mounted>;
  readonly unmount: (target: string, lazy: boolean) => Promise<MountStatus[]>;
  readonly background: (paused: boolean) => void;
  readonly stop: (force: boolean) => Promise<void>;
  /** The answer to a successful `stop` has been sent. */
  readonly stopped: () => void;
}

/** A command's arguments and environment fit: the kernel takes 6 MiB of them at most (execve(2)). */
const BODY_MAX = 8 * 1024 * 1024;
/** A reference of the greatest length, every byte of it percent-encoded, fits. */
const HEADER_MAX = 64 * 1024;
/** Progress that a client does not read is dropped beyond this. */
const UNREAD_MAX = 1024 * 1024;

const unmountQuery = z.strictObject({ target: z.string().min(1).max(8192), lazy: z.literal('1').optional() });

export class Control {
  readonly #handlers: Handlers;
  readonly #log: Logger;
  readonly #server: Server;

  constructor(handlers: Handlers, log: Logger) {
    this.#handlers = handlers;
    this.#log = log;
    this.#server = createServer(
      { maxHeaderSize: HEADER_MAX },
      (request, response) => void this.#serve(request, response),
    );
  }

  /** Takes the place of a dead server's socket. The caller's umask has to keep others out until the mode is set. */
  async listen(path: string): Promise<void> {
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
  }

  /** Takes no more requests. */
  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#route(request, response);
    } catch (e) {
      const error = toLaminaError(e);
      this.#log.info({ method: request.method, url: request.url, code: error.code, error: error.message }, 'refused');
      if (error.code === 'INTERNAL') this.#log.error({ err: e }, 'internal error');
      if (!response.headersSent) sendJson(response, statusOf(error), error.toJSON());
      else response.destroy();
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://lamina');
    switch (`${request.method} ${url.pathname}`) {
      case 'GET /v1/status':
        return sendJson(response, 200, await this.#handlers.status());
      case 'GET /v1/mounts':
        return sendJson(response, 200, await this.#handlers.mounts());
      case 'GET /v1/contents':
        return sendJson(response, 200, await this.#handlers.contents());
      case 'POST /v1/mounts':
        return this.#mount(parse(mountRequest, await readJson(request)), response);
      case 'DELETE /v1/mounts': {
        const { target, lazy } = parse(unmountQuery, uniqueParameters(url));
        return sendJson(response, 200, await this.#handlers.unmount(target, lazy === '1'));
      }
      case 'POST /v1/background': {
        const { paused } = parse(backgroundRequest, await readJson(request));
        this.#handlers.background(paused);
        return sendJson(response, 200, {});
      }
      case 'POST /v1/stop': {
        const { force } = parse(stopRequest, await readJson(request));
        await this.#handlers.stop(force);
        // Who asked may have gone while it took its time: nothing is mounted any more, and the daemon ends all the same.
        if (response.destroyed) return this.#handlers.stopped();
        response.once('close', this.#handlers.stopped);
        return sendJson(response, 200, {});
      }
      default:
        return sendJson(
          response,
          404,
          new LaminaError('USAGE', `No such call: ${request.method} ${url.pathname}`).toJSON(),
        );
    }
  }

  /** Sends what happens meanwhile, and last what was made, or what it failed with. */
  async #mount(request: MountRequest, response: ServerResponse): Promise<void> {
    const { reference } = request;
    const controller = new AbortController();
    let made: Mounted | undefined;
    response.once('close', () => {
      controller.abort();
      if (made !== undefined && !response.writableFinished) this.#undo(made.mount);
    });
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    const send = (event: MountEvent): void => {
      if (event.type === 'progress' && response.writableLength > UNREAD_MAX) return;
      response.write(`${JSON.stringify(event)}\n`);
    };
    try {
      made = await this.#handlers.mount(request, send, controller.signal);
      send({ type: 'mounted', ...made });
    } catch (e) {
      if (controller.signal.aborted) {
        this.#log.info({ reference }, 'the client has gone: nothing is mounted for it');
        return;
      }
      const error = toLaminaError(e);
      this.#log.warn({ reference, code: error.code, error: error.message }, 'cannot mount');
      if (error.code === 'INTERNAL') this.#log.error({ err: e }, 'internal error');
      send({ type: 'error', error: error.toJSON() });
    }
    response.end();
  }

  /** The client went away when its mount had just been made: it does not know of it. */
  #undo({ id }: MountStatus): void {
    this.#handlers.unmount(id, true).catch((e: unknown) => this.#log.error({ err: e, id }, 'undoing a mount failed'));
  }
}

function statusOf(error: LaminaError): number {
  if (error.exitCode === 2) return 400;
  if (error.exitCode === 4) return 404;
  return error.code === 'MOUNT_BUSY' || error.code === 'MOUNTPOINT_BUSY' ? 409 : 500;
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new LaminaError('USAGE', `Not a valid request: ${z.prettifyError(parsed.error).slice(0, 1000)}`);
}

/** Throws USAGE for a parameter that stands twice: which one was meant? */
function uniqueParameters(url: URL): Record<string, string> {
  const names = [...url.searchParams.keys()];
  if (new Set(names).size < names.length) throw new LaminaError('USAGE', 'A parameter was given twice');
  return Object.fromEntries(url.searchParams);
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > BODY_MAX) throw new LaminaError('USAGE', `A request has at most ${BODY_MAX} bytes`);
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8')) as unknown;
  } catch {
    throw new LaminaError('USAGE', 'Not a valid request: no JSON');
  }
}
