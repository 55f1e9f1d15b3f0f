import { gzipSync } from 'node:zlib';
import t from 'tap';
import { createDecoder, sniffCompression } from '../../src/compress/index.js';
import { bindLibrary } from '../../src/native/library.js';
import { skipUnless } from '../support/skip.js';
import { codeOf, decodeAll, decodeRange, layerLike, pipe, sourceOf } from './support.js';

t.test('sniffCompression', (t) => {
  const sniff = (hex: string): string => {
    try {
      return sniffCompression(Buffer.from(hex, 'hex'));
    } catch (e) {
      return e instanceof Error ? e.message : String(e);
    }
  };
  t.equal(sniffCompression(gzipSync('layer')), 'gzip');
  t.equal(sniff('28b52ffd2405290000'), 'zstd');
  for (let low = 0x50; low <= 0x5f; low++) t.equal(sniff(`${low.toString(16)}2a4d1800000000`), 'zstd');
  t.equal(sniff('602a4d1800000000'), 'none');
  t.equal(sniff('28b52ffc'), 'none');
  // What bzip2 1.0.8 and XZ Utils 5.4 write for "layer" and (bzip2) for nothing.
  t.match(sniff('425a683931415926535957e2ecd900000101'), /compressed with bzip2$/);
  t.match(sniff('425a683917724538509000000000'), /compressed with bzip2$/);
  t.match(sniff('fd377a585a000004e6d6b4460200210116000000'), /compressed with xz$/);
  t.match(sniff('5d00008000ffffffffffffffff003618'), /compressed with lzma$/);
  t.equal(
    codeOf(() => sniffCompression(Buffer.from('425a6839314159265359', 'hex'))),
    'COMPRESSION_UNKNOWN',
  );
  t.equal(sniff(''), 'none');
  t.equal(sniff('1f'), 'none');
  t.equal(sniff(Buffer.from('BZh9 is a file name').toString('hex')), 'none');
  t.equal(sniff('5d00000000000000000000000000000000'), 'none', 'a tar member named "]"');
  t.equal(sniff(Buffer.alloc(512).toString('hex')), 'none');
  t.end();
});

t.test('sniffCompression knows what the other tools write here', (t) => {
  const tools: [string, string[], RegExp][] = [
    ['bzip2', ['-c'], /bzip2$/],
    ['xz', ['-c'], /xz$/],
    ['xz', ['--format=lzma', '-c'], /lzma$/],
  ];
  for (const [command, args, message] of tools) {
    const bytes = pipe(command, args, layerLike(10_000));
    t.test([command, ...args].join(' '), (t) => {
      if (skipUnless(t, bytes !== undefined, `${command} is not installed`) || bytes === undefined) return;
      t.throws(() => sniffCompression(bytes), { code: 'COMPRESSION_UNKNOWN', message });
      t.end();
    });
  }
  t.end();
});

t.test('plain layers pass through', (t) => {
  const data = layerLike(700_000);
  const { output, points, diagnostics } = decodeAll('none', data, 1000, 4096);
  t.ok(output.equals(data));
  t.same(points, [], 'every place is a restart point');
  t.same(diagnostics, []);
  const at = (input: number): Parameters<typeof decodeRange>[1] => ({
    input,
    output: input,
    bits: 0,
    kind: 'member',
    window: new Uint8Array(0),
  });
  const source = sourceOf(data);
  t.ok(decodeRange('none', at(123), source, 600_000).equals(data.subarray(123, 600_123)));
  t.equal(source.bytesRead, 600_000);
  t.ok(decodeRange('none', at(699_000), source, 5000).equals(data.subarray(699_000)));
  t.equal(decodeRange('none', at(700_001), source, 5000).length, 0);
  t.end();
});

t.test('a blob of no bytes is an empty plain layer', (t) => {
  const decoder = createDecoder(sniffCompression(new Uint8Array(0)));
  decoder.push(new Uint8Array(0), () => t.fail('there is no output'));
  decoder.end();
  decoder.close();
  for (const kind of ['gzip', 'zstd'] as const) {
    t.equal(
      codeOf(() => decodeAll(kind, new Uint8Array(0), 1, 1)),
      'COMPRESSION_TRUNCATED',
    );
  }
  t.end();
});

t.test('bindLibrary says which package is missing', (t) => {
  t.throws(() => bindLibrary('libnowhere.so.9', 'libnowhere9', (lib) => lib.func('int nowhere(void)')), {
    code: 'NATIVE_UNAVAILABLE',
    hint: /apt-get install libnowhere9/,
  });
  t.end();
});
