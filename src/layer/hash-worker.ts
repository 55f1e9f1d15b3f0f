/** The hashing thread of an indexing pass. It lives in {@link Ring.take} until it is terminated. */
import { workerData } from 'node:worker_threads';
import type { Digest } from '../digest/index.js';
import { PassHasher } from './hasher.js';
import { POINT_WINDOW, Ring, slotKind, type HashWorkerData, type PassEnd, type PassStart } from './ring.js';

function main({ memory, port }: HashWorkerData): void {
  const ring = new Ring(memory);
  let hasher = new PassHasher(undefined, 'sha256' as Digest);
  for (;;) {
    const { kind, bytes } = ring.take();
    switch (kind) {
      case slotKind.start: {
        const start = JSON.parse(bytes.toString()) as PassStart;
        hasher = new PassHasher(start.blob, start.diffId);
        break;
      }
      case slotKind.blob:
        hasher.blob(bytes);
        break;
      case slotKind.stream:
        hasher.stream(bytes);
        break;
      case slotKind.point:
        hasher.point({
          input: Number(bytes.readBigUInt64LE(0)),
          output: Number(bytes.readBigUInt64LE(8)),
          bits: bytes.readUInt8(16),
          kind: bytes.readUInt8(17) === 1 ? 'block' : 'member',
          window: bytes.subarray(POINT_WINDOW),
        });
        break;
      case slotKind.end: {
        const result: PassEnd = hasher.end();
        port.postMessage(result);
        ring.announceResult();
        break;
      }
    }
    ring.release();
  }
}

main(workerData as HashWorkerData);
