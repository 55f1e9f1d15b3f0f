/** Z: compression and digests. What the bytes are decides, not the media type; what the digests say decides over both. */
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { blake3 } from '@noble/hashes/blake3.js';
import { blobPath, compress, digest, writeBlob, type ImageSpec } from '../support/images.js';
import { END, makeTar, rawEntry } from '../support/tar.js';
import type { Case } from './case.js';

const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
const tar = await makeTar([
  { name: 'f', content: 'content\n' },
  { name: 'big', content: 'b'.repeat(200_000) },
]);
const tree = `
  /big <big>
  /f "content\\n"`;
const contents = { big: 'b'.repeat(200_000) };
const ok = { tree, contents };

const gz = gzipSync(tar);
const zstd = compress(tar, 'zstd');
/** A zstd skippable frame (RFC 8878, 3.1.2). */
function skippable(content: string): Buffer {
  const frame = Buffer.alloc(8 + content.length);
  frame.writeUInt32LE(0x184d2a53, 0);
  frame.writeUInt32LE(content.length, 4);
  frame.write(content, 8, 'latin1');
  return frame;
}
/** A gzip header with all of its optional fields (RFC 1952, 2.3), and the rest of `bytes` behind it. */
function allFields(bytes: Buffer): Buffer {
  const FHCRC_FEXTRA_FNAME_FCOMMENT = 0x02 | 0x04 | 0x08 | 0x10;
  const head = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, FHCRC_FEXTRA_FNAME_FCOMMENT, 0, 0, 0, 0, 0, 255]),
    Buffer.from([6, 0, 0x53, 0x47, 2, 0, 1, 2]),
    Buffer.from('name\0comment\0'),
  ]);
  const crc = Buffer.alloc(2);
  crc.writeUInt16LE(crc32(head) & 0xffff);
  return Buffer.concat([head, crc, bytes.subarray(10)]);
}

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** A layer that no other case has: what the store knows already it does not read again. */
const other = (number: number): Buffer =>
  gzipSync(Buffer.concat([tar.subarray(0, -END.length), rawEntry({ name: `${number}` }), END]));

function damaged(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(at) ^ 0xff, at);
  return copy;
}

/** An image of one layer whose descriptor is `descriptor`; `blob` lies where its digest says. */
function described(descriptor: Readonly<Record<string, unknown>>, blob: Buffer = gz) {
  return (directory: string): ImageSpec => {
    const { digest: written } = descriptor;
    if (typeof written === 'string') {
      const path = blobPath(directory, written);
      mkdirSync(join(path, '..'), { recursive: true });
      writeFileSync(path, blob);
    }
    return {
      layers: [],
      document: { rootfs: { type: 'layers', diff_ids: [digest(tar)] } },
      manifest: { layers: [{ mediaType: GZIP, size: gz.length, ...descriptor }] },
    };
  };
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export const compressionCases: readonly Case[] = [
  { id: 'Z001a', what: 'a plain tar', layers: [{ tar, compression: 'none' }], ...ok },
  { id: 'Z001b', what: 'gzip', layers: [{ tar, compression: 'gzip' }], ...ok },
  {
    id: 'Z001c',
    what: 'zstd',
    layers: [{ tar, compression: 'zstd' }],
    ...ok,
    differs: 'umoci 0.4 knows no zstd; all later tools do.',
  },
  {
    id: 'Z001d',
    what: 'a gzip header with extra field, name, comment and checksum',
    layers: [{ tar, blob: allFields(gz) }],
    ...ok,
    differs: "umoci's gzip (pgzip) refuses such headers; gzip(1) and zlib take them.",
  },
  {
    id: 'Z002',
    what: "Docker's media type, which names no compression, with gzip bytes",
    layers: [{ tar, mediaType: 'application/vnd.docker.image.rootfs.diff.tar' }],
    ...ok,
    differs: 'umoci takes no Docker media types; containerd looks at the bytes.',
  },
  {
    id: 'Z003a',
    what: 'called gzip, but zstd',
    layers: [{ tar, compression: 'zstd', mediaType: GZIP }],
    ...ok,
    differs:
      'umoci trusts the media type and fails; moby and containers/image look at the bytes, containerd for some types.',
  },
  {
    id: 'Z003b',
    what: 'called gzip, but a plain tar',
    layers: [{ tar, compression: 'none', mediaType: GZIP }],
    ...ok,
    differs: 'As Z003a.',
  },
  {
    id: 'Z003c',
    what: 'called a plain tar, but gzip',
    layers: [{ tar, mediaType: 'application/vnd.oci.image.layer.v1.tar' }],
    ...ok,
    differs: 'As Z003a.',
  },
  {
    id: 'Z004',
    what: 'several gzip members, cut inside a header block',
    layers: [{ tar, blob: Buffer.concat([gzipSync(tar.subarray(0, 700)), gzipSync(''), gzipSync(tar.subarray(700))]) }],
    ...ok,
  },
  {
    id: 'Z005',
    what: 'zeros behind the last gzip member',
    layers: [{ tar, blob: Buffer.concat([gz, Buffer.alloc(512)]) }],
    ...ok,
    differs: "Go's gzip, and so umoci, fails; gzip(1) passes over them, and such layers exist.",
  },
  {
    id: 'Z006',
    what: 'something else behind the last gzip member',
    layers: [{ tar, blob: Buffer.concat([gz, Buffer.from('trailing garbage')]) }],
    ...ok,
    note: /ignored 16 bytes after the last gzip member/,
    differs:
      "Go's gzip, and so every Go tool, fails; gzip(1) warns. Blob digest and diffID both hold, so the tree is certain.",
  },
  {
    id: 'Z007a',
    what: 'a wrong gzip CRC',
    layers: [{ tar, blob: damaged(gz, gz.length - 8) }],
    error: 'COMPRESSION_CORRUPT',
  },
  {
    id: 'Z007b',
    what: 'a wrong gzip length',
    layers: [{ tar, blob: damaged(gz, gz.length - 4) }],
    error: 'COMPRESSION_CORRUPT',
  },
  {
    id: 'Z007c',
    what: 'gzip that ends early',
    layers: [{ tar, blob: gz.subarray(0, gz.length - 20) }],
    error: 'COMPRESSION_TRUNCATED',
  },
  {
    id: 'Z007d',
    what: 'zstd that ends early',
    layers: [{ tar, blob: zstd.subarray(0, zstd.length - 6) }],
    error: 'COMPRESSION_TRUNCATED',
  },
  {
    id: 'Z008a',
    what: 'several zstd frames',
    layers: [
      { tar, blob: Buffer.concat([compress(tar.subarray(0, 700), 'zstd'), compress(tar.subarray(700), 'zstd')]) },
    ],
    ...ok,
    differs: 'As Z001c.',
  },
  {
    id: 'Z008b',
    what: 'zstd skippable frames first, between and last (zstd:chunked keeps its table in one)',
    layers: [
      {
        tar,
        blob: Buffer.concat([
          skippable('first'),
          compress(tar.subarray(0, 700), 'zstd'),
          skippable(''),
          compress(tar.subarray(700), 'zstd'),
          skippable('last'),
        ]),
      },
    ],
    ...ok,
    differs: 'As Z001c.',
  },
  {
    id: 'Z009a',
    what: 'a blob longer than its descriptor says',
    layers: [{ tar, blob: gz, size: gz.length - 1 }],
    error: 'BLOB_SIZE_MISMATCH',
  },
  {
    id: 'Z009b',
    what: 'a blob shorter than its descriptor says',
    layers: [{ tar, blob: gz, size: gz.length + 1 }],
    error: 'BLOB_SIZE_MISMATCH',
  },
  {
    id: 'Z010',
    what: 'a blob that does not match its digest',
    image: described({ digest: digest(other(10)), size: other(10).length }, damaged(other(10), 4)),
    error: 'BLOB_DIGEST_MISMATCH',
  },
  {
    id: 'Z011',
    what: 'a layer that does not match its diffID',
    layers: [{ tar, diffId: digest(END) }],
    error: 'DIFF_ID_MISMATCH',
  },
  {
    id: 'Z012',
    what: 'a SHA-512 digest',
    layers: [{ tar, algorithm: 'sha512' }],
    ...ok,
    differs: 'umoci 0.4 refuses SHA-512; the specification has it.',
  },
  {
    id: 'Z012b',
    what: 'a SHA-512 digest that does not hold',
    image: described({ digest: digest(other(12), 'sha512'), size: other(12).length }, damaged(other(12), 4)),
    error: 'BLOB_DIGEST_MISMATCH',
  },
  {
    id: 'Z013a',
    what: 'a BLAKE3 digest',
    image: described({ digest: `blake3:${hex(blake3(gz))}` }),
    ...ok,
    differs: 'umoci 0.4 refuses BLAKE3; the specification has registered it.',
  },
  {
    id: 'Z013b',
    what: 'a BLAKE3 digest that does not hold',
    image: described({ digest: `blake3:${hex(blake3(tar))}` }),
    error: 'BLOB_DIGEST_MISMATCH',
  },
  {
    id: 'Z014',
    what: 'a digest of an algorithm that we do not know',
    image: described({ digest: `md5+b64:${createHash('md5').update(gz).digest('hex')}` }),
    error: 'DIGEST_UNSUPPORTED',
  },
  {
    id: 'Z015',
    what: 'a SHA-256 digest in upper case',
    image: described({ digest: `sha256:${digest(gz).slice(7).toUpperCase()}` }),
    error: 'DIGEST_INVALID',
  },
  {
    id: 'Z016a',
    what: 'a descriptor that holds the content, which is there as well',
    image: described({ digest: digest(gz), data: gz.toString('base64') }),
    ...ok,
  },
  {
    id: 'Z016b',
    what: 'a descriptor that holds other content than it says',
    image: described({ digest: digest(gz), data: damaged(gz, 4).toString('base64') }),
    error: 'BLOB_DIGEST_MISMATCH',
    differs: 'umoci does not look at embedded content; the specification says that it must match the digest.',
  },
  {
    id: 'Z019a',
    what: 'the canonical empty layer',
    image: (directory) => {
      const blob = writeBlob(directory, GZIP, EMPTY_GZIP);
      if (blob.digest !== EMPTY_BLOB) throw new Error(`The bytes of the empty layer are wrong: ${blob.digest}`);
      return {
        layers: [],
        document: { rootfs: { type: 'layers', diff_ids: [EMPTY_DIFF_ID] } },
        manifest: { layers: [blob] },
      };
    },
    tree: '',
  },
  {
    id: 'Z019b',
    what: 'the canonical empty layer between two others',
    layers: [
      { tar: rawEntry({ name: 'a' }, '1') },
      {
        tar: END,
        blob: gzipSync(END),
        diffId: 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef',
      },
      { tar: rawEntry({ name: 'b' }, '2') },
    ],
    tree: `
      /a "1"
      /b "2"`,
  },
  {
    id: 'Z020',
    what: 'a layer whose blob is not there',
    image: (directory) => {
      const spec = described({ digest: digest(gz) })(directory);
      rmSync(blobPath(directory, digest(gz)));
      return spec;
    },
    error: 'BLOB_MISSING',
  },
];

/** As containers/image has it (GzippedEmptyLayer). */
const EMPTY_GZIP = Buffer.from('1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000', 'hex');
const EMPTY_BLOB = 'sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4';
const EMPTY_DIFF_ID = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef';
