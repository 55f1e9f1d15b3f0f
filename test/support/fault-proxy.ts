/** An HTTP proxy before a registry that misbehaves as a test says. On 127.0.0.1; what is not about faults it passes on. */
import { Agent, createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';

/** What happens to one request. Nothing of it: it is passed on as it is. */
export interface Fault {
  /** Milliseconds before it is passed on. */
  readonly delayMs?: number;
  /** Answered so, and not passed on. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Nothing is ever answered. */
  readonly hang?: boolean;
  /** The connection is cut after so many bytes of the body. */
  readonly cutAfter?: number;
  /** The body stops after so many bytes, and the connection stays. */
  readonly stallAfter?: number;
  /** This byte of the body is another. */
  readonly flipAt?: number;
  /** Every byte of the body is another. */
  readonly garble?: boolean;
  /** The range header does not reach the registry. */
  readonly ignoreRange?: boolean;
  /** The answer's range begins so many bytes further on than what was asked for. */
  readonly shiftRange?: number;
  /** Bytes of the body a second. */
  readonly bytesPerSecond?: number;
}

export interface Passing {
  readonly method: string;
  readonly url: string;
  /** "bytes=0-99" */
  readonly range: string | undefined;
  /** From 1. */
  readonly n: number;
}

export interface FaultProxy {
  /** "127.0.0.1:PORT" */
  readonly host: string;
  readonly seen: readonly Passing[];
  /** Decides on each request from now on; undefined: all are passed on. */
  fault: ((passing: Passing) => Fault | undefined) | undefined;
  /** Bytes of bodies that were sent to the client. */
  readonly sent: number;
  /** Nothing listens there any more. */
  stop(): Promise<void>;
}

/** Whether a request is for a blob: where faults of data belong. */
export const isBlob = ({ method, url }: Passing): boolean => method === 'GET' && url.includes('/blobs/');

/** In front of `upstream`, "127.0.0.1:PORT". Ends with the test. */
export async function startFaultProxy(t: Test, upstream: string): Promise<FaultProxy> {
  const [hostname, port] = upstream.split(':');
  const agent = new Agent({ keepAlive: true });
  const seen: Passing[] = [];
  const sockets = new Set<Socket>();
  const state = { fault: undefined as FaultProxy['fault'], sent: 0 };

  const pass = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const { method = '', url = '', headers } = incoming;
    const passing = { method, url, range: headers.range, n: seen.length + 1 };
    seen.push(passing);
    const fault = state.fault?.(passing) ?? {};
    if (fault.delayMs !== undefined) await sleep(fault.delayMs);
    if (fault.hang === true) return;
    if (fault.status !== undefined) {
      outgoing.writeHead(fault.status, fault.headers).end();
      return;
    }
    const forwarded = { ...headers };
    if (fault.ignoreRange === true) delete forwarded.range;
    if (fault.shiftRange !== undefined) forwarded.range = shifted(headers.range ?? 'bytes=0-', fault.shiftRange);
    const onward = httpRequest({ hostname, port, method, path: url, headers: forwarded, agent });
    onward.once('error', () => outgoing.destroy());
    onward.once('response', (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, { ...answer.headers, ...fault.headers });
      void sendBody(answer, outgoing, fault, (bytes) => (state.sent += bytes));
    });
    incoming.pipe(onward);
  };

  const server = createServer((incoming, outgoing) => void pass(incoming, outgoing));
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of sockets) socket.destroy();
    agent.destroy();
    await closed;
  };
  t.teardown(stop);
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    get fault() {
      return state.fault;
    },
    set fault(fault) {
      state.fault = fault;
    },
    get sent() {
      return state.sent;
    },
    stop,
  };
}

async function sendBody(
  answer: IncomingMessage,
  outgoing: ServerResponse,
  { cutAfter, stallAfter, flipAt, garble, bytesPerSecond }: Fault,
  onBytes: (bytes: number) => void,
): Promise<void> {
  let at = 0;
  for await (const piece of answer as AsyncIterable<Buffer>) {
    let bytes = piece;
    if (flipAt !== undefined && at <= flipAt && flipAt < at + bytes.length) {
      bytes = Buffer.from(bytes);
      bytes[flipAt - at] = (bytes[flipAt - at] ?? 0) ^ 1;
    }
    if (garble === true) bytes = bytes.map((byte) => byte ^ 1) as Buffer;
    const end = Math.min(cutAfter ?? Infinity, stallAfter ?? Infinity);
    const last = at + bytes.length >= end;
    if (last) bytes = bytes.subarray(0, end - at);
    if (bytesPerSecond !== undefined) await sleep((bytes.length * 1000) / bytesPerSecond);
    await new Promise<void>((resolve) => outgoing.write(bytes, () => resolve()));
    at += bytes.length;
    onBytes(bytes.length);
    if (!last) continue;
    answer.destroy();
    if (cutAfter !== undefined) outgoing.destroy();
    return;
  }
  outgoing.end();
}

function shifted(range: string, by: number): string {
  const [, first = '0', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(range) ?? [];
  return `bytes=${Number(first) + by}-${last === '' ? '' : Number(last) + by}`;
}
