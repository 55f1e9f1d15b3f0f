/** The inflating thread's side of {@link Ring}: the same calls as hashing in place, done by another thread. */
import { MessageChannel, Worker, receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import type { RestartPoint } from '../compress/types.js';
import { LaminaError } from '../errors.js';
import type { HashResult, PassSink } from './hasher.js';
import { POINT_WINDOW, Ring, SLOT, slotKind, type HashWorkerData, type PassEnd, type PassStart } from './ring.js';

export class HashThread implements PassSink {
  readonly #ring = new Ring();
  readonly #port: MessagePort;
  readonly #worker: Worker;
  /** The stream slot being filled. */
  #slot: Buffer | undefined;
  #filled = 0;
  #passes = 0;

  constructor() {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const workerData: HashWorkerData = { memory: this.#ring.memory, port: port2 };
    this.#worker = new Worker(new URL('./hash-worker.js', import.meta.url), { workerData, transferList: [port2] });
    // A dead thread is found by who waits for it; nobody listening, the event would end the process too.
    this.#worker.on('error', () => undefined).unref();
  }

  start(start: PassStart): void {
    this.#filled = 0;
    this.#slot = undefined;
    this.#send(slotKind.start, Buffer.from(JSON.stringify(start)));
  }

  blob(bytes: Buffer): void {
    // A slot that is being filled with stream bytes must not be overtaken by another acquire.
    this.#flush();
    for (let at = 0; at < bytes.length; at += SLOT) this.#send(slotKind.blob, bytes.subarray(at, at + SLOT));
  }

  stream(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const slot = (this.#slot ??= this.#ring.acquire());
      const n = Math.min(SLOT - this.#filled, bytes.length - at);
      bytes.copy(slot, this.#filled, at, at + n);
      this.#filled += n;
      at += n;
      if (this.#filled === SLOT) this.#flush();
    }
  }

  point({ input, output, bits, kind, window }: RestartPoint): void {
    this.#flush();
    const slot = this.#ring.acquire();
    slot.writeBigUInt64LE(BigInt(input), 0);
    slot.writeBigUInt64LE(BigInt(output), 8);
    slot.writeUInt8(bits, 16);
    slot.writeUInt8(kind === 'block' ? 1 : 0, 17);
    slot.set(window, POINT_WINDOW);
    this.#ring.publish(slotKind.point, POINT_WINDOW + window.length);
  }

  end(): HashResult {
    this.#flush();
    this.#send(slotKind.end, Buffer.alloc(0));
    this.#ring.awaitResult(++this.#passes);
    const result = receiveMessageOnPort(this.#port)?.message as PassEnd | undefined;
    if (result === undefined) throw new LaminaError('INTERNAL', 'The hashing thread gave no result');
    return {
      blob: result.blob,
      diffId: result.diffId,
      chunks: Buffer.from(result.chunks.buffer, result.chunks.byteOffset, result.chunks.byteLength),
      points: result.points.map((p) => ({ ...p, packed: Buffer.from(p.packed) })),
    };
  }

  close(): void {
    this.#port.close();
    void this.#worker.terminate();
  }

  #flush(): void {
    if (this.#slot === undefined) return;
    this.#ring.publish(slotKind.stream, this.#filled);
    this.#slot = undefined;
    this.#filled = 0;
  }

  #send(kind: number, bytes: Buffer): void {
    bytes.copy(this.#ring.acquire());
    this.#ring.publish(kind, bytes.length);
  }
}
