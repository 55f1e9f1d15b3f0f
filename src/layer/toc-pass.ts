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
import type { LayerView } from '../source/image.js';
import { tarEntryOf } from '../source/soci/entries.js';
import { sociInvalid } from '../source/soci/errors.js';
import { ZTOC_LIMIT, decodeZtoc, tooLarge } from '../source/soci/ztoc.js';
import { parseToc } from '../source/toc/document.js';
import type { TocPlace } from '../source/toc/place.js';
import { readToc } from '../source/toc/read.js';
import { seal } from '../store/sealed.js';
import { publish, syncDirectory, writeDurably } from '../store/store.js';
import { BLOCK } from '../tar/header.js';
import { Notes } from '../tar/notes.js';
import { encodeTocTable } from './toc-table.js';
import { TreeBuilder } from './tree-builder.js';

export interface TocJob {
  readonly toc: TocPlace;
  readonly blob: BlobLocation;
  readonly view?: LayerView | undefined;
  /** A fresh path on the store's file system. */
  readonly temporary: string;
  /** `layers/toc-sha256-BLOB[-VIEW]` of the store. */
  readonly layerDirectory: string;
}

export interface IndexedToc {
  /** Bytes of the blob, from its beginning on, that whoever built the image has put there to be fetched first; 0 for none. */
  readonly prefetch: number;
}

/** What is before it is to be fetched first (stargz-snapshotter, docs/estargz.md, "Prioritized Files and Landmark Files"). */
const LANDMARK = '.prefetch.landmark';

/** Throws MANIFEST_INVALID, BLOB_DIGEST_MISMATCH, COMPRESSION_*, TAR_*, what {@link TreeBuilder} throws, REGISTRY_*, DISK_FULL, IO. */
export function indexToc({ toc, blob: location, view, temporary, layerDirectory }: TocJob): IndexedToc {
  const blob = openBlob(location);
  try {
    const { json, dataEnd, compression } = readToc(blob, toc);
    const document = parseToc(json, dataEnd);
    const { addressSpace } = document;
    const tree = new TreeBuilder(new Notes(), view);
    for (const entry of document.entries) tree.add(entry);
    // Files lie in one piece each, so nothing is put into an appendix.
    const { root } = tree.finish(addressSpace);
    mkdirSync(temporary, { mode: 0o700 });
    writeDurably(join(temporary, 'tree.erofs'), seal(encodeTree(root, { devices: [addressSpace] })));
    writeDurably(join(temporary, 'toc'), seal([padded(encodeTocTable(document, compression))]));
    syncDirectory(temporary);
    publish(temporary, layerDirectory);
    const landmark = document.entries.find(({ name }) => name === LANDMARK)?.data[0]?.position;
    const chunk = document.chunks.find(({ address }) => address === landmark);
    return { prefetch: chunk?.offset ?? 0 };
  } finally {
    blob.close();
    rmSync(temporary, { recursive: true, force: true });
  }
}

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
    const bytes = Buffer.alloc(blob.size);
    blob.need(0, blob.size);
    for (let done = 0; done < bytes.length;) {
      const n = blob.read(done, bytes.subarray(done));
      if (n === 0) break;
      done += n;
    }
    verified(bytes, digest, 'the ztoc');
    const { files, compressedSize, uncompressedSize } = decodeZtoc(bytes);
    if (compressedSize !== size) throw sociInvalid('the ztoc', `it is for ${compressedSize} bytes, not for ${size}`);
    const tree = new TreeBuilder(new Notes());
    files.forEach((file, i) => {
      const entry = tarEntryOf(file, i + 1);
      const end = file.offset + entry.size;
      if (file.offset % BLOCK !== 0 || end > uncompressedSize) throw sociInvalid('the ztoc', 'a file lies outside');
      tree.add(entry);
    });
    const { root } = tree.finish(uncompressedSize);
    mkdirSync(temporary, { mode: 0o700 });
    writeDurably(join(temporary, 'tree.erofs'), seal(encodeTree(root, { devices: [uncompressedSize] })));
    writeDurably(join(temporary, 'ztoc'), seal([padded(bytes)]));
    syncDirectory(temporary);
    publish(temporary, layerDirectory);
  } finally {
    blob.close();
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** What is sealed has whole blocks. */
function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 511)]);
}
