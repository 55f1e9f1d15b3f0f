/** A TCP relay on 127.0.0.1 with the delay and the bandwidth of a link that is neither here nor near. */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Link {
  /** Bytes a second, of all connections together, towards the client. */
  readonly bytesPerSecond: number;
  /** Milliseconds that a byte takes there and back. */
  readonly roundTripMs: number;
}

export interface SlowLink {
  /** "127.0.0.1:PORT" */
  readonly host: string;
  stop(): Promise<void>;
}

/** `upstream`: "127.0.0.1:PORT". */
export async function startSlowLink(upstream: string, { bytesPerSecond, roundTripMs }: Link): Promise<SlowLink> {
  const [host, port] = upstream.split(':');
  const sockets = new Set<Socket>();
  /** When the link is free again: bytes of all connections go over it one after the other. */
  let free = 0;
  const relay = async (from: Socket, to: Socket, rate: number): Promise<void> => {
    let arrived = Promise.resolve();
    for await (const bytes of from as AsyncIterable<Buffer>) {
      free = Math.max(free, performance.now()) + (bytes.length * 1000) / rate;
      const arrives = (rate === Infinity ? performance.now() : free) + roundTripMs / 2;
      // What is under way does not keep what follows from setting out, and is not overtaken.
      arrived = arrived.then(async () => {
        await sleep(Math.max(arrives - performance.now(), 0));
        to.write(bytes);
      });
      if (rate !== Infinity) await sleep(Math.max(free - performance.now(), 0));
    }
    await arrived;
    to.end();
  };
  const server = createServer({ noDelay: true }, (client) => {
    const onward = connect({ host, port: Number(port), noDelay: true });
    for (const socket of [client, onward]) {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket)).on('error', () => undefined);
    }
    relay(client, onward, Infinity).catch(() => onward.destroy());
    relay(onward, client, bytesPerSecond).catch(() => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async stop() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
