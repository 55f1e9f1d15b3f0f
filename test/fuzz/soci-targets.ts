/** What SOCI keeps beside an image: its index and ztocs with their checkpoints. */
import { parseDigest } from '../../src/digest/index.js';
import { tarEntryOf } from '../../src/source/soci/entries.js';
import { parseLaminaIndex } from '../../src/source/lamina-index.js';
import { parseTrace, requestsOf } from '../../src/source/trace.js';
import { parseSociIndex } from '../../src/source/soci/index-manifest.js';
import { decodeSpans, type Spans } from '../../src/source/soci/zinfo.js';
import { decodeZtoc, encodeZtoc, type Ztoc } from '../../src/source/soci/ztoc.js';
import type { Target } from './targets.js';
import { sum, words } from './words.js';

function describe({ checkpoints, files, ...ztoc }: Ztoc): string {
  return JSON.stringify([
    ztoc,
    checkpoints.toString('latin1'),
    files.map(({ records, ...file }) => [file, [...records].sort()]),
  ]);
}

/** Spans cover the blob from the first one's start on, and the stream from its start, once. */
function describeSpans(ztoc: Spans): string {
  const spans = decodeSpans(ztoc);
  let at: number | undefined;
  let output = 0;
  for (const { start, end, outputEnd, point } of spans) {
    if (end <= start || outputEnd < point.output || point.output !== output) throw new Error('spans are not in order');
    if (at !== undefined && start !== at && start !== at - 1) throw new Error('there is a gap between two spans');
    at = end;
    output = outputEnd;
  }
  if (at !== ztoc.compressedSize) throw new Error('the last span does not end with the blob');
  const texts = spans.map(({ point: { window, ...point }, ...span }) => [span, point, sum(window)]);
  return `spans-${Math.min(spans.length, 3)} ${sum(JSON.stringify(texts))}`;
}

const ztoc: Target = {
  name: 'ztoc',
  runs: 5000,
  dictionary: words(
    '0.9',
    'sha256:',
    'reg',
    'dir',
    'symlink',
    'SCHILY.xattr.user.a',
    '2024-02-29T12:00:00.5+01:00',
    '\0\0\0\0',
  ),
  run(bytes) {
    const decoded = decodeZtoc(bytes);
    const text = describe(decoded);
    if (describe(decodeZtoc(encodeZtoc(decoded))) !== text) throw new Error('written and read again it is another');
    const entries = decoded.files.map((file, i) => tarEntryOf(file, i + 1));
    return `${describeSpans(decoded)} ${sum(text)} ${entries.length}`;
  },
};

/** u8 algorithm, u32 last span, u32 bytes of the blob, u32 bytes of the stream; the checkpoints. */
const checkpoints: Target = {
  name: 'checkpoints',
  runs: 8000,
  dictionary: words('\x01\0\0\0', '\x02\0\0\0', '\0\0\x40\0\0\0\0\0', '\0\x10\0\0\0\0\0\0'),
  run(bytes) {
    const head = Buffer.alloc(13);
    bytes.copy(head);
    return describeSpans({
      algorithm: (head.readUInt8(0) & 1) === 0 ? 'gzip' : 'uncompressed',
      maxSpanId: head.readUInt32LE(1) & 0xffff,
      compressedSize: head.readUInt32LE(5),
      uncompressedSize: head.readUInt32LE(9),
      checkpoints: bytes.subarray(13),
    });
  },
};

const image = parseDigest(`sha256:${'1'.repeat(64)}`);

const index: Target = {
  name: 'soci-index',
  runs: 5000,
  most: 20_000,
  dictionary: words(
    ...['"subject":', '"layers":', '"config":', '"annotations":', 'null', ',', '{}', '.v2+json', 'sha256:'],
    '"com.amazon.soci.image-layer-digest":"sha256:',
    'application/octet-stream',
  ),
  run(bytes) {
    const { version, ztocs } = parseSociIndex(bytes, image);
    return `${version}-${Math.min(ztocs.size, 4)} ${sum(JSON.stringify([...ztocs]))}`;
  },
};

const beside: Target = {
  name: 'lamina-index',
  runs: 5000,
  most: 20_000,
  dictionary: words(
    ...[
      '"subject":',
      '"layers":',
      '"data":',
      '"blobs":',
      '"parts":',
      'null',
      ',',
      '[]',
      'sha256:',
      '[0,0,4096]',
      '1e15',
    ],
    'application/vnd.laminafs.trace.v1+json',
  ),
  run(bytes) {
    const isManifest = bytes.includes('"layers"');
    if (isManifest) return String(parseLaminaIndex(bytes, image).trace?.size);
    const parts = parseTrace(bytes);
    const requests = requestsOf(parts, new Map(parts.map(({ blob }) => [blob, 1e6])));
    return `${Math.min(parts.length, 9)} ${Math.min(requests.length, 9)}`;
  },
};

export const sociTargets: readonly Target[] = [ztoc, checkpoints, index, beside];
