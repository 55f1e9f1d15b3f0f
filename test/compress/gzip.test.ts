import { constants, crc32, deflateRawSync, gunzipSync, gzipSync } from 'node:zlib';
import t from 'tap';
import { createDecoder, decodeFrom } from '../../src/compress/index.js';
import type { RestartPoint } from '../../src/compress/index.js';
import { skipUnless } from '../support/skip.js';
import { codeOf, decodeAll, decodeRange, layerLike, pipe, sourceOf } from './support.js';

const MIB = 2 ** 20;
const data = layerLike(4 * MIB);
const small = layerLike(3000);

/** As pigz and rsync-friendly gzip write: an empty stored block every so often. */
function gzipWithFlushes(bytes: Uint8Array): Buffer {
  const parts: Buffer[] = [Buffer.from('1f8b08000000000000ff', 'hex')];
  for (let at = 0; at < bytes.length; at += 128 * 1024) {
    const finishFlush = at + 128 * 1024 < bytes.length ? constants.Z_SYNC_FLUSH : constants.Z_FINISH;
    parts.push(deflateRawSync(bytes.subarray(at, at + 128 * 1024), { finishFlush }));
  }
  return Buffer.concat([...parts, trailerOf(bytes)]);
}

function trailerOf(bytes: Uint8Array): Buffer {
  return gzipSync(bytes, { level: 1 }).subarray(-8);
}

/** A member with every optional header field (RFC 1952, 2.3.1). */
function withHeaderFields(bytes: Uint8Array, headerCrc?: number): Buffer {
  const head = Buffer.concat([
    Buffer.from('1f8b081e0000000002ff', 'hex'),
    Buffer.from([6, 0, 0x53, 0x47, 2, 0, 0xaa, 0xbb]),
    Buffer.from('layer.tar\0', 'latin1'),
    Buffer.from('a comment\0', 'latin1'),
  ]);
  const crc = Buffer.alloc(2);
  crc.writeUInt16LE((headerCrc ?? crc32(head)) & 0xffff);
  return Buffer.concat([head, crc, deflateRawSync(bytes), trailerOf(bytes)]);
}

/** One fixed-Huffman block: "A", then `matches` times 258 bytes copied from one byte back (RFC 1951, 3.2.6). */
function hugeBlock(matches: number): Buffer {
  const out = Buffer.alloc(16 + Math.ceil((matches * 13) / 8));
  let bit = 0;
  const put = (value: number, bits: number): void => {
    for (let i = bits - 1; i >= 0; i--, bit++) if (((value >> i) & 1) === 1) out[bit >> 3]! |= 1 << (bit & 7);
  };
  put(0b110, 3);
  put(0x30 + 0x41, 8);
  for (let i = 0; i < matches; i++) {
    put(0b11000101, 8);
    put(0, 5);
  }
  put(0, 7);
  const raw = out.subarray(0, (bit + 7) >> 3);
  const trailer = Buffer.alloc(8);
  const length = 1 + 258 * matches;
  trailer.writeUInt32LE(crc32(Buffer.alloc(length, 'A')), 0);
  trailer.writeUInt32LE(length, 4);
  return Buffer.concat([Buffer.from('1f8b08000000000000ff', 'hex'), raw, trailer]);
}

t.test('gzip decodes and restarts at every point, whatever wrote it', (t) => {
  const streams: Record<string, Buffer | undefined> = {
    'level 1': gzipSync(data, { level: 1 }),
    'level 6': gzipSync(data),
    'level 9, least memory': gzipSync(data, { level: 9, memLevel: 1 }),
    'stored blocks': gzipSync(data, { level: 0 }),
    'fixed codes': gzipSync(data, { strategy: constants.Z_FIXED }),
    'huffman only': gzipSync(data, { strategy: constants.Z_HUFFMAN_ONLY }),
    'small window': gzipSync(data, { windowBits: 9 }),
    'empty blocks between': gzipWithFlushes(data),
    'the gzip command': pipe('gzip', ['-c'], data),
  };
  for (const [name, bytes] of Object.entries(streams)) {
    t.test(name, (t) => {
      if (skipUnless(t, bytes !== undefined, 'gzip is not installed') || bytes === undefined) return;
      const spacing = 256 * 1024;
      const { output, points, diagnostics } = decodeAll('gzip', bytes, 300_000, spacing);
      t.ok(output.equals(data));
      t.same(diagnostics, []);
      t.ok(points.length > 7, `${points.length} points`);
      t.match(points[0], { input: 0, output: 0, bits: 0, kind: 'member' });
      t.ok(points.every((p, i) => i === 0 || p.output - points[i - 1]!.output >= spacing));
      t.ok(points.every((p) => p.window.length <= 32_768));
      const source = sourceOf(bytes);
      for (const p of points) {
        const end = Math.min(data.length, p.output + MIB);
        t.ok(decodeRange('gzip', p, source, MIB).equals(data.subarray(p.output, end)), `at ${p.output}`);
      }
      t.end();
    });
  }
  t.end();
});

t.test('gzip restarts at every block, at every bit', (t) => {
  const part = data.subarray(0, MIB / 2);
  const bytes = gzipSync(part, { memLevel: 1 });
  const { points } = decodeAll('gzip', bytes, bytes.length, 1);
  t.ok(points.length > 300, `${points.length} points`);
  t.same([...new Set(points.map((p) => p.bits))].sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
  const source = sourceOf(bytes);
  const wrong = points.filter(
    (p) => !decodeRange('gzip', p, source, 40_000).equals(part.subarray(p.output, p.output + 40_000)),
  );
  t.same(wrong, []);
  t.end();
});

t.test('gzip output and restart points do not depend on how the input is cut', (t) => {
  const bytes = Buffer.concat([
    gzipSync(data.subarray(0, 400_000)),
    gzipWithFlushes(data.subarray(MIB, MIB + 300_000)),
  ]);
  const summary = (points: readonly RestartPoint[]): unknown[] =>
    points.map((p) => ({ ...p, window: `${p.window.length} ${crc32(p.window)}` }));
  for (const spacing of [1, 50_000, 131_072]) {
    const whole = decodeAll('gzip', bytes, bytes.length, spacing);
    for (const cut of [1, 7, 4096, 65_537]) {
      const { output, points } = decodeAll('gzip', bytes, cut, spacing);
      t.ok(output.equals(whole.output));
      t.same(summary(points), summary(whole.points), `cut after every ${cut}, spacing ${spacing}`);
    }
  }
  t.end();
});

t.test('gzip input cut at each byte', (t) => {
  const empty = Buffer.alloc(0);
  const bytes = Buffer.concat([
    withHeaderFields(small),
    gzipSync(empty),
    gzipSync(small, { level: 0 }),
    gzipSync(empty),
    Buffer.alloc(5),
  ]);
  const expected = Buffer.concat([small, small]);
  t.ok(gunzipSync(bytes).equals(expected), 'node:zlib agrees');
  const wrong: number[] = [];
  for (let cut = 0; cut <= bytes.length; cut++) {
    const { output, diagnostics } = decodeAll('gzip', bytes, [cut], 1000);
    if (!output.equals(expected) || diagnostics.length > 0) wrong.push(cut);
  }
  t.same(wrong, []);
  t.end();
});

t.test('gzip truncated at each byte', (t) => {
  const first = withHeaderFields(small);
  const bytes = Buffer.concat([first, gzipSync(small)]);
  const wrong: string[] = [];
  for (let length = 0; length < bytes.length; length++) {
    const code = codeOf(() => decodeAll('gzip', bytes.subarray(0, length), 100, 1000));
    if (code !== (length === first.length ? 'none' : 'COMPRESSION_TRUNCATED')) wrong.push(`${length}: ${code}`);
  }
  t.same(wrong, []);
  const { points } = decodeAll('gzip', bytes, bytes.length, 1000);
  const source = sourceOf(bytes.subarray(0, -5));
  for (const p of points)
    t.equal(
      codeOf(() => decodeRange('gzip', p, source, 10_000)),
      'COMPRESSION_TRUNCATED',
    );
  t.end();
});

t.test('gzip members: points at their starts, but not too close', (t) => {
  const parts = [10, 0, 50_000, 20_000, 400_000, 1, 65_536, 65_536];
  let at = 0;
  const members = parts.map((n) => data.subarray(at, (at += n)));
  const bytes = Buffer.concat(members.map((m) => gzipSync(m)));
  const expected = data.subarray(0, at);
  const { output, points } = decodeAll('gzip', bytes, 5000, MIB);
  t.ok(output.equals(expected));
  t.same(
    points.map((p) => p.output),
    [0, 70_010, 470_010, 535_547],
  );
  t.ok(points.every((p) => p.kind === 'member' && p.window.length === 0 && bytes[p.input] === 0x1f));
  const source = sourceOf(bytes);
  for (const p of points) t.ok(decodeRange('gzip', p, source, MIB).equals(expected.subarray(p.output)));
  const fine = decodeAll('gzip', bytes, 5000, 10_000).points;
  t.ok(fine.some((p) => p.kind === 'block'));
  for (const p of fine) {
    t.ok(decodeRange('gzip', p, source, MIB).equals(expected.subarray(p.output)), `over the members after ${p.output}`);
  }
  t.end();
});

t.test('gzip: bytes after the last member', (t) => {
  const member = gzipSync(small);
  const run = (tail: Uint8Array): ReturnType<typeof decodeAll> => {
    const bytes = Buffer.concat([member, tail]);
    const whole = decodeAll('gzip', bytes, bytes.length, 1000);
    const cut = decodeAll('gzip', bytes, 1, 1000);
    t.same(whole, { ...cut, largest: whole.largest });
    t.ok(whole.output.equals(small));
    for (const p of whole.points) {
      t.ok(decodeRange('gzip', p, sourceOf(bytes), MIB).equals(small.subarray(p.output)));
    }
    return whole;
  };
  t.same(run(Buffer.alloc(1)).diagnostics, []);
  t.same(run(Buffer.alloc(100_000)).diagnostics, []);
  t.same(run(Buffer.from('garbage')).diagnostics, ['ignored 7 bytes after the last gzip member']);
  t.same(run(Buffer.from('\x1fx')).diagnostics, ['ignored 2 bytes after the last gzip member']);
  t.same(run(Buffer.from('x')).diagnostics, ['ignored 1 bytes after the last gzip member']);
  t.same(run(Buffer.concat([Buffer.alloc(512), member])).diagnostics, [
    `ignored ${512 + member.length} bytes after the last gzip member`,
  ]);
  t.end();
});

t.test('gzip that is damaged is refused', (t) => {
  const member = gzipSync(small);
  const flipped = (at: number): Buffer => {
    const bytes = Buffer.from(member);
    bytes[at < 0 ? bytes.length + at : at]! ^= 0x10;
    return bytes;
  };
  const code = (bytes: Uint8Array): string => codeOf(() => decodeAll('gzip', bytes, 512, 1000));
  t.equal(code(flipped(-8)), 'COMPRESSION_CORRUPT', 'CRC');
  t.equal(code(flipped(-1)), 'COMPRESSION_CORRUPT', 'length');
  t.equal(code(flipped(0)), 'COMPRESSION_CORRUPT', 'magic');
  t.equal(code(flipped(2)), 'COMPRESSION_CORRUPT', 'method');
  t.equal(code(withHeaderFields(small, 1)), 'COMPRESSION_CORRUPT', 'header CRC');
  t.equal(code(Buffer.concat([member, flipped(-8)])), 'COMPRESSION_CORRUPT', 'second member');
  t.equal(code(Buffer.concat([member, Buffer.from('1f8b0000', 'hex')])), 'COMPRESSION_CORRUPT', 'second header');
  t.equal(code(Buffer.from('not gzip at all')), 'COMPRESSION_CORRUPT');
  t.throws(() => decodeAll('gzip', flipped(-8), 512, 1000), { message: /incorrect data check/ });
  const outcomes = new Set<string>();
  for (let at = 0; at < member.length; at++) outcomes.add(code(flipped(at)));
  outcomes.delete('none'); // MTIME, OS: not covered by any checksum
  t.ok([...outcomes].every((o) => o === 'COMPRESSION_CORRUPT' || o === 'COMPRESSION_TRUNCATED'));
  t.end();
});

t.test('gzip bombs come in bounded pieces', (t) => {
  const length = 258 * 500_000 + 1;
  const bytes = hugeBlock(500_000);
  let points = 0;
  const decoder = createDecoder('gzip', { spacing: MIB, onPoint: () => points++ });
  let total = 0;
  let largest = 0;
  decoder.push(bytes, (o) => {
    total += o.length;
    largest = Math.max(largest, o.length);
  });
  decoder.end();
  decoder.close();
  t.equal(total, length);
  t.ok(largest <= 512 * 1024);
  t.equal(points, 1, 'one block has no place to restart inside');
  t.end();
});

t.test('gzip: closing is final and may be repeated', (t) => {
  const decoder = createDecoder('gzip');
  decoder.push(gzipSync(small).subarray(0, 100), () => undefined);
  decoder.close();
  decoder.close();
  t.equal(
    codeOf(() => decoder.push(gzipSync(small).subarray(100), () => undefined)),
    'COMPRESSION_CORRUPT',
  );
  t.end();
});

t.test('decodeFrom reads little more than it needs and stops when it has enough', (t) => {
  const bytes = gzipSync(data);
  const { points } = decodeAll('gzip', bytes, bytes.length, MIB);
  for (const [i, p] of points.entries()) {
    const next = points[i + 1];
    if (next === undefined) break;
    const source = sourceOf(bytes);
    t.equal(decodeRange('gzip', p, source, next.output - p.output).length, next.output - p.output);
    t.ok(source.bytesRead <= next.input - p.input + 64 * 1024 + 1);
  }
  const tail = sourceOf(Buffer.concat([gzipSync(small), Buffer.alloc(MIB)]));
  t.ok(decodeRange('gzip', points[0]!, tail, MIB).equals(small));
  t.ok(tail.bytesRead <= 64 * 1024, 'padding is not read to its end');
  t.equal(decodeRange('gzip', points[1]!, sourceOf(bytes), 0).length, 0);
  t.end();
});

t.test('decodeFrom works inside its own sink and after a sink that threw', (t) => {
  const bytes = gzipSync(data);
  const source = sourceOf(bytes);
  const { points } = decodeAll('gzip', bytes, bytes.length, MIB);
  const inner: boolean[] = [];
  const outer: Buffer[] = [];
  decodeFrom('gzip', points[1]!, source, 600_000, (o) => {
    inner.push(
      decodeRange('gzip', points[2]!, source, 1000).equals(data.subarray(points[2]!.output).subarray(0, 1000)),
    );
    outer.push(Buffer.from(o));
  });
  t.ok(inner.length > 1 && inner.every(Boolean));
  t.ok(Buffer.concat(outer).equals(data.subarray(points[1]!.output).subarray(0, 600_000)));
  const boom = new Error('boom');
  t.throws(
    () =>
      decodeFrom('gzip', points[1]!, source, MIB, () => {
        throw boom;
      }),
    boom,
  );
  t.ok(decodeRange('gzip', points[3]!, source, 1000).equals(data.subarray(points[3]!.output).subarray(0, 1000)));
  t.end();
});

t.test('decodeFrom with a point that is wrong fails or gives other bytes, no worse', (t) => {
  const bytes = gzipSync(data.subarray(0, MIB));
  const source = sourceOf(bytes);
  const { points } = decodeAll('gzip', bytes, bytes.length, 200_000);
  const good = points[2]!;
  const bad: Partial<RestartPoint>[] = [
    { window: new Uint8Array(0) },
    { window: new Uint8Array(100_000) },
    { bits: 64 },
    { bits: -3 },
    { input: 0, kind: 'block' },
    { input: 0, kind: 'block', bits: 3 },
    { input: bytes.length + 10 },
    { input: good.input + 1 },
    { kind: 'member' },
  ];
  for (const change of bad) {
    const code = codeOf(() => decodeRange('gzip', { ...good, ...change }, source, MIB));
    t.match(code, /^(COMPRESSION_CORRUPT|COMPRESSION_TRUNCATED|none)$/, JSON.stringify(Object.keys(change)));
  }
  t.ok(decodeRange('gzip', good, source, 5000).equals(data.subarray(good.output, good.output + 5000)));
  t.end();
});
