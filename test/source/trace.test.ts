import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { digestOf, parseDigest } from '../../src/digest/index.js';
import { TraceFile, readTraceFile } from '../../src/source/fetch/trace-file.js';
import { LAMINA_ARTIFACT_TYPE, encodeLaminaIndex, parseLaminaIndex } from '../../src/source/lamina-index.js';
import { encodeTrace, parseTrace, requestsOf, usedOf } from '../../src/source/trace.js';
import { codeOf } from '../compress/support.js';
import { tempDir } from '../support/tmp.js';

const digest = (digit: string): ReturnType<typeof parseDigest> => parseDigest(`sha256:${digit.repeat(64)}`);
const [a, b] = [digest('a'), digest('b')];
const KiB = 1024;

t.test('a trace is what was encoded', async (t) => {
  const parts = [
    { blob: b, start: 0, end: 10 },
    { blob: a, start: 4096, end: 8192 },
    { blob: b, start: 1e12, end: 1e12 + 1 },
  ];
  t.strictSame(parseTrace(encodeTrace(parts)), parts);
  t.strictSame(parseTrace(encodeTrace([])), []);
  for (const bad of [
    '',
    '[]',
    '{"schemaVersion":2,"blobs":[],"parts":[]}',
    `{"schemaVersion":1,"blobs":["${a}"],"parts":[[1,0,1]]}`,
    `{"schemaVersion":1,"blobs":["${a}"],"parts":[[0,0,0]]}`,
    `{"schemaVersion":1,"blobs":["${a}"],"parts":[[0,-1,1]]}`,
    `{"schemaVersion":1,"blobs":["${a}"],"parts":[[0,0.5,1]]}`,
  ]) {
    t.equal(
      codeOf(() => parseTrace(Buffer.from(bad))),
      'MANIFEST_INVALID',
      bad,
    );
  }
  t.equal(
    codeOf(() => parseTrace(Buffer.from('{"schemaVersion":1,"blobs":["x"],"parts":[]}'))),
    'DIGEST_INVALID',
  );
});

t.test('parts that are near to each other are asked for at once, the first used first', async (t) => {
  const sizes = new Map([
    [a, 1000 * KiB],
    [b, 100 * KiB],
  ]);
  const parts = [
    { blob: a, start: 600 * KiB, end: 610 * KiB },
    { blob: b, start: 90 * KiB, end: 900 * KiB },
    { blob: a, start: 0, end: 4 * KiB },
    { blob: a, start: 30 * KiB, end: 34 * KiB },
    { blob: a, start: 470 * KiB, end: 480 * KiB },
    { blob: a, start: 300 * KiB, end: 310 * KiB },
    { blob: a, start: 2000 * KiB, end: 2001 * KiB },
    { blob: digest('c'), start: 0, end: 1 },
  ];
  t.strictSame(requestsOf(parts, sizes), [
    { blob: a, start: 470 * KiB, end: 610 * KiB },
    { blob: b, start: 90 * KiB, end: 100 * KiB },
    { blob: a, start: 0, end: 34 * KiB },
    { blob: a, start: 300 * KiB, end: 310 * KiB },
  ]);
  t.strictSame(
    usedOf([...parts, { blob: a, start: 2 * KiB, end: 31 * KiB }], sizes).slice(2),
    [
      { blob: a, start: 0, end: 34 * KiB },
      { blob: a, start: 470 * KiB, end: 480 * KiB },
      { blob: a, start: 300 * KiB, end: 310 * KiB },
    ],
    'what is used of it, once',
  );
  const huge = new Map([[a, 1e15]]);
  t.strictSame(requestsOf([{ blob: a, start: 0, end: 1e15 }], huge), [], 'a trace fetches no whole image');
});

t.test('a Lamina index is for one image, and has its trace embedded where it is short', async (t) => {
  const subject = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: a, size: 7 };
  const short = encodeTrace([{ blob: b, start: 0, end: 1 }]);
  const { manifest, blobs } = encodeLaminaIndex({ subject, trace: short, layers: [] });
  const { trace } = parseLaminaIndex(manifest, a);
  t.match(trace, { digest: digestOf(short), size: short.length, data: short.toString('base64') });
  t.strictSame(blobs[1], short);
  const long = Buffer.alloc(300 * KiB, ' ');
  t.equal(parseLaminaIndex(encodeLaminaIndex({ subject, trace: long, layers: [] }).manifest, a).trace?.data, undefined);
  const tooLong = Buffer.alloc(1100 * KiB, ' ');
  const refused = encodeLaminaIndex({ subject, trace: tooLong, layers: [] }).manifest;
  for (const [bytes, image] of [
    [manifest, b],
    [Buffer.from(manifest.toString().replace(LAMINA_ARTIFACT_TYPE, 'application/x')), a],
    [Buffer.from(manifest.toString().replace('"subject"', '"other"')), a],
    [refused, a],
  ] as const) {
    t.equal(
      codeOf(() => parseLaminaIndex(bytes, image)),
      'MANIFEST_INVALID',
    );
  }
});

t.test('the beginning of what is used is recorded', async (t) => {
  const blob = join(tempDir(t), 'blob');
  t.strictSame(readTraceFile(blob), []);
  new TraceFile(blob).add({ start: 0, end: 4096 });
  new TraceFile(blob).add({ start: 8192, end: 9000 });
  t.match(readTraceFile(blob), [
    { start: 0, end: 4096 },
    { start: 8192, end: 9000 },
  ]);
  const old = readFileSync(`${blob}.trace`, 'utf8').replace(/^\d+/, '1000');
  writeFileSync(`${blob}.trace`, `${old}torn 1`);
  new TraceFile(blob).add({ start: 1, end: 2 });
  t.equal(readTraceFile(blob).length, 2, 'not what comes later, nor what a crash has left');
  const twice = join(tempDir(t), 'twice');
  for (let i = 0; i < 2; i++) {
    const trace = new TraceFile(twice);
    for (let k = 0; k < 2; k++) trace.add({ start: 5, end: 6 });
    trace.add({ start: 7, end: 7 });
  }
  t.equal(readTraceFile(twice).length, 1, 'once');
  const many = join(tempDir(t), 'many');
  const file = new TraceFile(many);
  for (let i = 0; i < 2100; i++) file.add({ start: i, end: i + 1 });
  t.equal(readTraceFile(many).length, 2000);
  const nowhere = new TraceFile(join(tempDir(t), 'none', 'blob'));
  nowhere.add({ start: 0, end: 1 });
  t.pass('where it cannot be kept, nothing is lost');
});
