import t from 'tap';
import { createDecoder } from '../../src/compress/index.js';
import { Decompressor } from '../../src/native/zstd.js';
import { skipUnless } from '../support/skip.js';
import { codeOf, decodeAll, decodeRange, layerLike, pipe, sourceOf } from './support.js';

const MIB = 2 ** 20;
const data = layerLike(4 * MIB);
const small = layerLike(3000);

/** A frame of one raw block, no checksum (RFC 8878, 3.1.1); the window descriptor says 2^`windowLog` bytes. */
function rawFrame(bytes: Uint8Array, windowLog = 20): Buffer {
  const block = Buffer.alloc(3);
  block.writeUIntLE((bytes.length << 3) | 1, 0, 3);
  return Buffer.concat([Buffer.from('28b52ffd00', 'hex'), Buffer.from([(windowLog - 10) << 3]), block, bytes]);
}

function skippable(length: number, low = 0): Buffer {
  const frame = Buffer.alloc(8 + length, 0x28);
  frame.writeUInt32LE(0x184d2a50 + low, 0);
  frame.writeUInt32LE(length, 4);
  return frame;
}

/** One RLE block of 128 KiB per 4 bytes. */
function bomb(blocks: number): Buffer {
  const parts = [Buffer.from('28b52ffd0050', 'hex')];
  for (let i = 0; i < blocks; i++) {
    const block = Buffer.alloc(4);
    block.writeUIntLE((131_072 << 3) | (1 << 1) | (i === blocks - 1 ? 1 : 0), 0, 3);
    parts.push(block);
  }
  return Buffer.concat(parts);
}

const compressed = pipe('zstd', ['-c'], data);

t.test('zstd decodes what the zstd command writes', (t) => {
  if (skipUnless(t, compressed !== undefined, 'zstd is not installed')) return;
  for (const args of [['-1'], ['-19'], ['--long=27'], ['--no-check'], ['--fast=5'], ['-T2', '-B600KB']]) {
    const bytes = pipe('zstd', ['-c', ...args], data)!;
    for (const cut of [bytes.length, 300_000, 1000]) {
      const { output, points, diagnostics } = decodeAll('zstd', bytes, cut, MIB);
      t.ok(output.equals(data), `${args.join(' ')}, cut ${cut}`);
      t.same(diagnostics, []);
      t.match(points, [{ input: 0, output: 0, bits: 0, kind: 'member' }]);
      t.equal(points.length, 1);
    }
    const start = { input: 0, bits: 0, output: 0, kind: 'member', window: new Uint8Array(0) } as const;
    t.ok(decodeRange('zstd', start, sourceOf(bytes), 2 * MIB).equals(data.subarray(0, 2 * MIB)));
    t.ok(decodeRange('zstd', start, sourceOf(bytes), 9 * MIB).equals(data), 'again, to the end');
  }
  t.end();
});

t.test('zstd frames: points at their starts, but not too close', (t) => {
  if (skipUnless(t, compressed !== undefined, 'zstd is not installed')) return;
  const sizes = [10, 50_000, 20_000, 400_000, 1, 65_536, 65_536];
  const parts: Buffer[] = [skippable(100)];
  let at = 0;
  for (const [i, size] of sizes.entries()) {
    parts.push(pipe('zstd', ['-c'], data.subarray(at, (at += size)))!, skippable(i * 50_000, i));
  }
  const bytes = Buffer.concat(parts);
  const expected = data.subarray(0, at);
  t.ok(pipe('zstd', ['-dc'], bytes)?.equals(expected), 'the zstd command agrees');
  const { output, points } = decodeAll('zstd', bytes, 5000, MIB);
  t.ok(output.equals(expected));
  t.same(
    points.map((p) => p.output),
    [0, 70_010, 470_010, 535_547],
  );
  const source = sourceOf(bytes);
  for (const p of points) t.ok(decodeRange('zstd', p, source, MIB).equals(expected.subarray(p.output)), `${p.output}`);
  t.ok(
    points.every((p) => bytes.readUInt32LE(p.input) === 0xfd2fb528),
    'a point stands behind skippable frames',
  );
  t.end();
});

t.test('zstd input cut and truncated at each byte', (t) => {
  const frames = [skippable(9), rawFrame(small), rawFrame(Buffer.alloc(0)), skippable(0, 15), rawFrame(small)];
  const bytes = Buffer.concat(frames);
  const expected = Buffer.concat([small, small]);
  let end = 0;
  const ends = new Set(frames.map((f) => (end += f.length)));
  const wrong: string[] = [];
  for (let cut = 0; cut <= bytes.length; cut++) {
    const { output, diagnostics } = decodeAll('zstd', Buffer.concat([bytes, Buffer.alloc(3)]), [cut], MIB);
    if (!output.equals(expected) || diagnostics.length > 0) wrong.push(`cut ${cut}`);
    const code = codeOf(() => decodeAll('zstd', bytes.subarray(0, cut), 100, MIB));
    if (code !== (ends.has(cut) ? 'none' : 'COMPRESSION_TRUNCATED')) wrong.push(`truncated ${cut}: ${code}`);
  }
  t.same(wrong, []);
  t.ok(decodeAll('zstd', bytes, 1, MIB).output.equals(expected), 'byte by byte');
  t.end();
});

t.test('zstd: bytes after the last frame', (t) => {
  const run = (tail: Uint8Array): readonly string[] => {
    const bytes = Buffer.concat([rawFrame(small), tail]);
    const { output, points, diagnostics } = decodeAll('zstd', bytes, bytes.length, MIB);
    t.ok(output.equals(small));
    t.same(decodeAll('zstd', bytes, 1, MIB).diagnostics, diagnostics);
    t.ok(decodeRange('zstd', points[0]!, sourceOf(bytes), MIB).equals(small));
    return diagnostics;
  };
  for (const length of [1, 3, 4, 100_000]) t.same(run(Buffer.alloc(length)), []);
  t.same(run(Buffer.from('no')), ['ignored 2 bytes after the last zstd frame']);
  t.same(run(Buffer.from('\0\0garbage')), ['ignored 9 bytes after the last zstd frame']);
  t.end();
});

t.test('zstd that is damaged or asks for too much is refused', (t) => {
  const code = (bytes: Uint8Array): string => codeOf(() => decodeAll('zstd', bytes, 512, MIB));
  t.equal(code(rawFrame(small, 27)), 'none', '128 MiB');
  t.equal(code(rawFrame(small, 28)), 'LIMIT_EXCEEDED', '256 MiB');
  t.throws(() => decodeAll('zstd', rawFrame(small, 28), 512, MIB), { message: /larger than 128 MiB/ });
  t.equal(code(Buffer.from('not zstd at all')), 'COMPRESSION_CORRUPT');
  const reserved = rawFrame(small);
  reserved[6]! |= 0b110;
  t.equal(code(reserved), 'COMPRESSION_CORRUPT', 'reserved block type');
  if (compressed !== undefined) {
    const checksum = Buffer.from(compressed);
    checksum[checksum.length - 1]! ^= 1;
    t.equal(code(checksum), 'COMPRESSION_CORRUPT', 'checksum');
    t.equal(code(Buffer.concat([compressed, checksum])), 'COMPRESSION_CORRUPT', 'checksum of the second frame');
  }
  const point = { input: 0, bits: 0, output: 0, kind: 'block', window: new Uint8Array(0) } as const;
  t.equal(
    codeOf(() => decodeRange('zstd', point, sourceOf(rawFrame(small)), 10)),
    'COMPRESSION_CORRUPT',
    'a point inside a frame',
  );
  t.end();
});

t.test('zstd bombs come in bounded pieces', (t) => {
  const { points, output, largest } = decodeAll('zstd', bomb(1000), 100_000, MIB);
  t.equal(output.length, 1000 * 131_072);
  t.ok(largest <= 512 * 1024);
  t.equal(points.length, 1);
  t.end();
});

t.test('zstd: closing is final and may be repeated', (t) => {
  const decoder = createDecoder('zstd');
  decoder.push(rawFrame(small).subarray(0, 100), () => undefined);
  decoder.close();
  decoder.close();
  t.equal(
    codeOf(() => decoder.push(small, () => undefined)),
    'INTERNAL',
  );
  t.end();
});

t.test('decodeFrom gives back the memory of large windows', (t) => {
  if (skipUnless(t, compressed !== undefined, 'zstd is not installed')) return;
  const bytes = pipe('zstd', ['-c', '--long=27'], data)!;
  const probe = new Decompressor(MIB);
  probe.run(bytes, 0, MIB);
  t.ok(probe.memory > 100 * MIB, 'the frame does ask for 128 MiB');
  probe.close();
  const start = { input: 0, bits: 0, output: 0, kind: 'member', window: new Uint8Array(0) } as const;
  const before = process.memoryUsage.rss();
  for (let i = 0; i < 8; i++) {
    t.ok(decodeRange('zstd', start, sourceOf(bytes), 8 * MIB).equals(data));
  }
  t.ok(process.memoryUsage.rss() - before < 200 * MIB);
  t.end();
});
