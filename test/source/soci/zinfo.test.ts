import t from 'tap';
import type { RestartPoint } from '../../../src/compress/index.js';
import {
  decodeSpans,
  encodeGzipCheckpoints,
  encodeTarCheckpoints,
  type Spans,
} from '../../../src/source/soci/zinfo.js';
import { codeOf } from '../../compress/support.js';

const RECORD = 32_785;

/** By the layout that zinfo.ts describes. */
function record(input: number, output: number, bits: number, filling: number): Buffer {
  const bytes = Buffer.alloc(RECORD, filling);
  bytes.writeBigInt64LE(BigInt(input), 0);
  bytes.writeBigInt64LE(BigInt(output), 8);
  bytes.writeUInt8(bits, 16);
  return bytes;
}

function blob(count: number, ...records: Buffer[]): Buffer {
  const header = Buffer.alloc(12);
  header.writeInt32LE(count, 0);
  header.writeBigInt64LE(4096n, 4);
  return Buffer.concat([header, ...records]);
}

function spans(checkpoints: Buffer, maxSpanId: number, more: Partial<Spans> = {}): Spans {
  return { checkpoints, maxSpanId, compressedSize: 10_000, uncompressedSize: 100_000, algorithm: 'gzip', ...more };
}

t.test('decodeSpans: the second version, with every checkpoint', async (t) => {
  const checkpoints = blob(3, record(22, 0, 0, 0), record(3000, 20_000, 3, 7), record(7000, 60_000, 0, 9));
  const [first, second, third] = decodeSpans(spans(checkpoints, 2));
  t.match(first, { start: 22, end: 3000, outputEnd: 20_000, point: { input: 22, output: 0, bits: 0, kind: 'block' } });
  t.equal(first?.point.window.length, 0, 'nothing is before it');
  t.match(second, { start: 2999, end: 7000, outputEnd: 60_000, point: { input: 3000, output: 20_000, bits: 3 } });
  t.strictSame(second?.point.window, Buffer.alloc(20_000, 7), 'no more than there was');
  t.match(third, { start: 7000, end: 10_000, outputEnd: 100_000, point: { bits: 0 } });
  t.strictSame(third?.point.window, Buffer.alloc(32_768, 9));
});

t.test('decodeSpans: the first version, whose first span is from the header on', async (t) => {
  const [first, second] = decodeSpans(spans(blob(2, record(3000, 20_000, 3, 7)), 1));
  t.match(first, { start: 10, end: 3000, point: { input: 0, output: 0, kind: 'member' } });
  t.match(second, { start: 2999, end: 10_000, point: { kind: 'block', bits: 3 } });
  t.match(decodeSpans(spans(blob(1), 0)), [{ start: 10, end: 10_000, outputEnd: 100_000 }]);
});

t.test('decodeSpans: gzip checkpoints that make no sense', async (t) => {
  const first = record(10, 0, 0, 0);
  const second = record(3000, 20_000, 3, 7);
  const bad = (checkpoints: Buffer, maxSpanId: number, more: Partial<Spans> = {}): string =>
    codeOf(() => decodeSpans(spans(checkpoints, maxSpanId, more)));
  t.equal(bad(blob(2, first, second), 1), 'none');
  const whole = blob(2, first, second);
  const cuts = [0, 3, 11, 12, 13, 12 + RECORD - 1, 12 + RECORD + 1, whole.length - 1];
  for (const end of cuts) t.equal(bad(whole.subarray(0, end), 1), 'SOCI_INVALID', `cut at ${end}`);
  t.equal(bad(blob(2, first, second), 2), 'SOCI_INVALID', 'another number of digests');
  t.equal(bad(blob(0), -1), 'SOCI_INVALID');
  t.equal(bad(blob(-1), -2), 'SOCI_INVALID');
  t.equal(bad(blob(2, first, record(3000, 20_000, 8, 0)), 1), 'SOCI_INVALID', 'bits');
  t.equal(bad(blob(2, first, record(10_000, 20_000, 0, 0)), 1), 'SOCI_INVALID', 'at the end');
  t.equal(bad(blob(2, first, record(10, 20_000, 0, 0)), 1), 'SOCI_INVALID', 'an empty span');
  t.equal(bad(blob(2, first, record(-1, 20_000, 0, 0)), 1), 'SOCI_INVALID');
  t.equal(bad(blob(2, first, record(2 ** 60, 20_000, 0, 0)), 1), 'SOCI_INVALID');
  t.equal(bad(blob(2, first, record(3000, -5, 0, 0)), 1), 'SOCI_INVALID');
  t.equal(bad(blob(2, record(10, 5, 0, 0), second), 1), 'SOCI_INVALID', 'not from the start');
  t.equal(bad(blob(3, first, second, record(4000, 19_999, 0, 0)), 2), 'SOCI_INVALID', 'backwards');
  t.equal(bad(blob(3, first, record(12, 0, 6, 0), second), 2), 'none', 'an empty block at the start');
});

t.test('encodeGzipCheckpoints: windows end where their records do', async (t) => {
  const point = (more: Partial<RestartPoint>): RestartPoint => ({
    ...{ input: 10, output: 0, bits: 0, kind: 'block', window: new Uint8Array(0) },
    ...more,
  });
  const window = Buffer.alloc(20_000, 7);
  const wanted = record(3000, 20_000, 3, 0);
  wanted.fill(7, RECORD - 20_000);
  t.strictSame(
    encodeGzipCheckpoints([point({}), point({ input: 3000, output: 20_000, bits: 3, window })], 4096),
    blob(2, record(10, 0, 0, 0), wanted),
  );
});

t.test('decodeSpans: a layer that is not compressed', async (t) => {
  // Field by field: root at 20 with its vtable at 10; i64 size at 24, i64 span size at 32, i32 version at 40.
  const bytes = Buffer.alloc(44);
  bytes.writeUInt32LE(20, 0);
  [10, 24, 20, 12, 4].forEach((entry, i) => bytes.writeUInt16LE(entry, 10 + 2 * i));
  bytes.writeInt32LE(10, 20);
  bytes.writeBigInt64LE(10_000n, 24);
  bytes.writeBigInt64LE(4096n, 32);
  bytes.writeInt32LE(2, 40);
  const plain = { algorithm: 'uncompressed', uncompressedSize: 9000 } as const;
  const decoded = decodeSpans(spans(bytes, 2, plain));
  t.match(decoded, [
    { start: 0, end: 4096, outputEnd: 4096, point: { input: 0, output: 0, kind: 'member' } },
    { start: 4096, end: 8192, outputEnd: 8192, point: { input: 4096, output: 4096 } },
    { start: 8192, end: 10_000, outputEnd: 10_000 },
  ]);
  t.strictSame(decodeSpans(spans(encodeTarCheckpoints(10_000, 4096), 2, plain)), decoded);
  const bad = (checkpoints: Buffer, maxSpanId = 2): string =>
    codeOf(() => decodeSpans(spans(checkpoints, maxSpanId, plain)));
  for (let end = 0; end < bytes.length; end++) t.equal(bad(bytes.subarray(0, end)), 'SOCI_INVALID');
  t.equal(bad(bytes, 3), 'SOCI_INVALID');
  t.equal(bad(encodeTarCheckpoints(10_001, 4096)), 'SOCI_INVALID', 'of another size');
  t.equal(bad(encodeTarCheckpoints(10_000, 0)), 'SOCI_INVALID');
  t.equal(bad(encodeTarCheckpoints(10_000, -4096)), 'SOCI_INVALID');
  t.equal(bad(encodeTarCheckpoints(10_000, 1)), 'SOCI_INVALID', 'more spans than digests');
  bytes.writeInt32LE(3, 40);
  t.equal(bad(bytes), 'SOCI_INVALID', 'another version');
});
