/**
 * Makes of a layer's table of contents what an indexing pass makes of the whole layer, without the layer: its tree, and where
 * the chunks of its files are. Runs in an index thread.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Digest } from '../digest/index.js';
import { encodeTree } from '../erofs/writer.js';
import { openBlob, type BlobLocation } from '../source/blob.js';
import { verified } from '../source/documents.js';
import type { ByteRange } from '../source/fetch/block-file.js';
import type { LayerView } from '../source/image.js';
import { layerLimit, overLimit } from '../source/limits.js';
import { tarEntryOf } from '../source/soci/entries.js';
import { sociInvalid } from '../source/soci/errors.js';
import { decodeSpans } from '../source/soci/zinfo.js';
import { ZTOC_LIMIT, decodeZtoc, tooLarge } from '../source/soci/ztoc.js';
import { parseToc, type TocDocument } from '../source/toc/document.js';
import type { TocPlace } from '../source/toc/place.js';
import { readRange, readToc } from '../source/toc/read.js';
import { seal } from '../store/sealed.js';
import { publishSoon, writeNew } from '../store/store.js';
import { BLOCK } from '../tar/header.js';
import { Notes } from '../tar/notes.js';
import { CHUNK } from './chunks.js';
import { keepTree } from './fresh-trees.js';
import { blobParts, encodeTocTable } from './toc-table.js';
import { TreeBuilder } from './tree-builder.js';

export interface TocJob {
  readonly toc: TocPlace;
  /** See `Layer.externalToc`. */
  readonly external?: BlobLocation | undefined;
  readonly blob: BlobLocation;
  readonly view?: LayerView | undefined;
  /** A fresh path on the store's file system. */
  readonly temporary: string;
  /** `layers/toc-sha256-BLOB-BY[-VIEW]` of the store. */
  readonly layerDirectory: string;
}

export interface IndexedToc {
  /** Bytes of the blob, from its beginning on, that whoever built the image has put there to be fetched first; 0 for none. */
  readonly prefetch: number;
  /** Parts of the blob that have what the users of an image are looked up in. */
  readonly accounts: readonly ByteRange[];
}

/** What is before it is to be fetched first (stargz-snapshotter, docs/estargz.md, "Prioritized Files and Landmark Files"). */
const LANDMARK = '.prefetch.landmark';

/** Throws MANIFEST_INVALID, BLOB_DIGEST_MISMATCH, COMPRESSION_*, TAR_*, what {@link TreeBuilder} throws, REGISTRY_*, DISK_FULL, IO. */
export function indexToc(job: TocJob): IndexedToc {
  const { toc, view, temporary, layerDirectory } = job;
  const blob = openBlob(job.blob);
  const external = job.external === undefined ? undefined : openBlob(job.external);
  try {
    const { json, dataEnd, compression } = readToc(blob, toc, external);
    const document = parseToc(json, dataEnd);
    checkLimit(document.content);
    const tree = new TreeBuilder(new Notes(), view);
    for (const entry of document.entries) tree.add(entry);
    const index = { name: 'toc', bytes: encodeTocTable(document, compression) };
    write(tree, document.addressSpace, index, { temporary, layerDirectory });
    const landmark = document.entries.find(({ name }) => name === LANDMARK)?.data[0]?.position;
    const chunk = document.chunks.find(({ address }) => address === landmark);
    return { prefetch: chunk?.offset ?? 0, accounts: accountsOf(document) };
  } finally {
    blob.close();
    external?.close();
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** See src/bundle/user. */
const ACCOUNTS = /^(?:\.?\/)*etc\/(passwd|group)$/;
/** Bytes of such a file that are looked at, and of the blob that are fetched for it before anybody asks. */
const [ACCOUNTS_MAX, ACCOUNTS_PART_MAX] = [1024 * 1024, 4 * 1024 * 1024];

/** With all that is verified together with them. Of a name that comes again the last counts: a table may repeat it a million times. */
function accountsOf({ entries, chunks }: TocDocument): ByteRange[] {
  const pieces = new Map<string, number>();
  for (const { name, size, data } of entries) {
    const [, file] = ACCOUNTS.exec(name) ?? [];
    const [run] = data;
    if (file === undefined) continue;
    if (run === undefined || size > ACCOUNTS_MAX) pieces.delete(file);
    else pieces.set(file, Math.floor(run.position / CHUNK));
  }
  return [...new Set(pieces.values())]
    .flatMap((piece) =>
      blobParts(chunks.filter(({ address, size }) => address < (piece + 1) * CHUNK && address + size > piece * CHUNK)),
    )
    .filter(({ start, end }) => end - start <= ACCOUNTS_PART_MAX);
}

/** Bytes of the blob that one span may have, which is held in memory while it is decompressed. SOCI's own have some 4 MiB. */
const SPAN_MAX = 64 * 1024 * 1024;

export interface SociJob {
  /** The ztoc, which its digest proves. */
  readonly ztoc: BlobLocation;
  readonly digest: Digest;
  /** Of the layer, bytes. */
  readonly size: number;
  readonly temporary: string;
  /** `layers/soci-..` of the store. */
  readonly layerDirectory: string;
}

/** The same by a ztoc of SOCI. Throws SOCI_INVALID, BLOB_DIGEST_MISMATCH and what {@link indexToc} throws. */
export function indexSoci({ ztoc, digest, size, temporary, layerDirectory }: SociJob): void {
  const blob = openBlob(ztoc);
  try {
    if (blob.size > ZTOC_LIMIT) throw tooLarge(blob.size);
    const bytes = readRange(blob, 0, blob.size);
    verified(bytes, digest, 'the ztoc');
    const decoded = decodeZtoc(bytes);
    const { files, compressedSize, uncompressedSize } = decoded;
    if (compressedSize !== size) throw sociInvalid('the ztoc', `it is for ${compressedSize} bytes, not for ${size}`);
    for (const { start, end, point } of decodeSpans(decoded)) {
      if (end - start > SPAN_MAX) throw sociInvalid('the ztoc', `a span has more than ${SPAN_MAX} bytes`);
      // What is before it, a gzip header of an unknown length, has no digest, and could make other bytes of the rest.
      if (start > point.input) throw sociInvalid('the ztoc', 'its first span is not hashed from the start');
    }
    checkLimit(uncompressedSize);
    const tree = new TreeBuilder(new Notes());
    files.forEach((file, i) => {
      const entry = tarEntryOf(file, i + 1);
      const end = file.offset + entry.size;
      if (file.offset % BLOCK !== 0 || end > uncompressedSize) throw sociInvalid('the ztoc', 'a file lies outside');
      tree.add(entry);
    });
    write(tree, uncompressedSize, { name: 'ztoc', bytes }, { temporary, layerDirectory });
  } finally {
    blob.close();
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** Throws LIMIT_EXCEEDED. */
function checkLimit(bytes: number): void {
  const limit = layerLimit();
  if (bytes > limit) throw overLimit(limit);
}

function write(
  tree: TreeBuilder,
  addressSpace: number,
  index: { readonly name: string; readonly bytes: Buffer },
  { temporary, layerDirectory }: Pick<TocJob, 'temporary' | 'layerDirectory'>,
): void {
  // Files lie in one piece each, so nothing is put into an appendix.
  const { root } = tree.finish(addressSpace);
  mkdirSync(temporary, { mode: 0o700 });
  const encoded = seal(encodeTree(root, { devices: [addressSpace] }));
  writeNew(join(temporary, 'tree.erofs'), encoded);
  writeNew(join(temporary, index.name), seal([padded(index.bytes)]));
  // What is there already may be another's, from another index.
  if (publishSoon(temporary, layerDirectory)) keepTree(join(layerDirectory, 'tree.erofs'), root, encoded);
}

/** What is sealed has whole blocks. */
function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 511)]);
}
