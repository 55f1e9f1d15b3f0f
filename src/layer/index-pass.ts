/**
 * One pass over a blob: decompress, hash (blob, stream, chunks), walk the tar, place restart points. Runs in a thread of
 * its own; what it makes is in a temporary directory until it is verified, and only then gets its name.
 */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
  existsSync,
} from 'node:fs';
import { join } from 'node:path';
import { createDecoder, sniffCompression } from '../compress/index.js';
import type { Compression, RestartPoint, StreamDecoder } from '../compress/types.js';
import { createHasher, type Digest } from '../digest/index.js';
import { encodeTree } from '../erofs/writer.js';
import { LaminaError } from '../errors.js';
import { openBlob, type BlobLocation, type RandomAccessBlob } from '../source/blob.js';
import type { LayerView } from '../source/image.js';
import { overLimit } from '../source/limits.js';
import { seal } from '../store/sealed.js';
import { publish, syncDirectory, writeDurably } from '../store/store.js';
import { TarReader } from '../tar/reader.js';
import { CHUNK, appendixStart, chunkLength, encodeChunks, type Chunks } from './chunks.js';
import { openData } from './data-file.js';
import type { Appendix } from './extents.js';
import type { HashResult, PassSink } from './hasher.js';
import { encodeMap, type MapFacts } from './map.js';
import { ChunkMemory } from './memory.js';
import { ChunkReader, KEEP_AFTER } from './reader.js';
import { TreeBuilder } from './tree-builder.js';

export interface IndexJob {
  readonly blob: BlobLocation;
  /** Undefined where the source does not say. */
  readonly digest: Digest | undefined;
  readonly diffId: Digest;
  readonly view?: LayerView | undefined;
  /** A fresh path on the store's file system; whoever gave the job removes it afterwards. */
  readonly temporary: string;
  /** `layers/sha256-DIFFID[-VIEW]` of the store. */
  readonly layerDirectory: string;
  /** `maps/` of the store. */
  readonly mapDirectory: string;
  /** Bytes the stream may have: a bomb is stopped there. */
  readonly streamLimit: number;
}

export interface IndexedLayer {
  readonly facts: MapFacts;
  readonly addressSpace: number;
  readonly points: number;
}

/** Bytes of output between restart points: what one cache miss inflates. */
export const SPACING = 1024 * 1024;
/** Bytes read from the blob at a time. */
const PIECE = 1024 * 1024;

export interface PassHooks {
  readonly sink: (job: IndexJob) => PassSink;
  /** Compressed bytes so far. */
  readonly onProgress: (done: number) => void;
}

/** Throws BLOB_*, DIFF_ID_MISMATCH, COMPRESSION_*, TAR_*, what {@link TreeBuilder} throws, LIMIT_EXCEEDED, DISK_FULL, IO. */
export function indexLayer(job: IndexJob, hooks: PassHooks): IndexedLayer {
  const blob = openBlob(job.blob);
  try {
    mkdirSync(job.temporary, { mode: 0o700 });
    return new Pass(job, blob, hooks).run();
  } finally {
    blob.close();
    rmSync(job.temporary, { recursive: true, force: true });
  }
}

class Pass {
  readonly #job: IndexJob;
  readonly #blob: RandomAccessBlob;
  readonly #hooks: PassHooks;
  readonly #sink: PassSink;
  readonly #tar: TarReader;
  readonly #tree: TreeBuilder;
  #compression: Compression = 'none';
  #streamSize = 0;
  /** The last restart point's place in the stream. */
  #pointAt = 0;
  /** Chunks that the data file gets at once. */
  readonly #kept: number[] = [];
  #keeping = false;
  #dataFd = -1;

  constructor(job: IndexJob, blob: RandomAccessBlob, hooks: PassHooks) {
    this.#job = job;
    this.#blob = blob;
    this.#hooks = hooks;
    this.#sink = hooks.sink(job);
    // The reader's notes are the builder's too: one list of oddities a layer.
    const reader = new TarReader((entry) => this.#tree.add(entry));
    this.#tar = reader;
    this.#tree = new TreeBuilder(reader.notes, job.view);
  }

  run(): IndexedLayer {
    const head = Buffer.alloc(512);
    this.#compression = sniffCompression(head.subarray(0, this.#blob.read(0, head)));
    this.#dataFd = openSync(join(this.#job.temporary, 'data'), 'wx+', 0o600);
    try {
      const decoder = createDecoder(this.#compression, { spacing: SPACING, onPoint: (point) => this.#point(point) });
      let result: HashResult;
      try {
        this.#decode(decoder);
        result = this.#sink.end();
      } finally {
        decoder.close();
      }
      this.#verify(result);
      return this.#write(decoder, result);
    } finally {
      closeSync(this.#dataFd);
    }
  }

  #decode(decoder: StreamDecoder): void {
    const piece = Buffer.allocUnsafe(PIECE);
    const onOutput = (output: Uint8Array): void =>
      this.#output(Buffer.from(output.buffer, output.byteOffset, output.byteLength));
    let done = 0;
    try {
      for (;;) {
        const n = this.#blob.read(done, piece);
        if (n === 0) break;
        const bytes = piece.subarray(0, n);
        this.#sink.blob(bytes);
        decoder.push(bytes, onOutput);
        done += n;
        this.#hooks.onProgress(done);
      }
      decoder.end();
      this.#tar.end();
    } catch (e) {
      throw this.#rootCause(e);
    }
    if (done < this.#blob.size) {
      throw new LaminaError('BLOB_MISSING', `${this.#job.blob.path} became shorter while it was read`);
    }
  }

  #point(point: RestartPoint): void {
    this.#pointAt = point.output;
    this.#sink.point(point);
  }

  #output(bytes: Buffer): void {
    const start = this.#streamSize;
    this.#streamSize += bytes.length;
    if (this.#streamSize > this.#job.streamLimit) {
      throw overLimit(this.#job.streamLimit);
    }
    this.#tar.push(bytes);
    this.#sink.stream(bytes);
    if (this.#compression !== 'none') this.#keep(bytes, start);
  }

  /** Writes what belongs to chunks that are kept; a hole does for zeros. */
  #keep(bytes: Buffer, start: number): void {
    for (let at = 0; at < bytes.length;) {
      const within = (start + at) % CHUNK;
      if (within === 0) {
        this.#keeping = start + at - this.#pointAt >= KEEP_AFTER;
        if (this.#keeping) this.#kept.push((start + at) / CHUNK);
      }
      const piece = bytes.subarray(at, at + CHUNK - within);
      if (this.#keeping && !isZero(piece)) writeWhole(this.#dataFd, piece, start + at);
      at += piece.length;
    }
  }

  /** Bytes that are not what the descriptor says explain every other failure, so that is said first. */
  #rootCause(e: unknown): unknown {
    const { digest } = this.#job;
    if (!(e instanceof LaminaError) || digest === undefined || !blamesContent(e)) return e;
    const got = hashWhole(this.#blob, digest);
    return got === digest ? e : this.#blobMismatch(digest, got, e);
  }

  #blobMismatch(wanted: Digest, got: Digest, cause?: unknown): LaminaError {
    return new LaminaError(
      'BLOB_DIGEST_MISMATCH',
      `The blob ${this.#job.blob.path} does not match its digest (wanted ${wanted}, got ${got})`,
      {
        details: { wanted, got, path: this.#job.blob.path },
        hint: 'The image is damaged or was changed: copy it again from where it came.',
        cause,
      },
    );
  }

  #verify(result: HashResult): void {
    const { digest, diffId } = this.#job;
    if (digest !== undefined && result.blob !== digest) throw this.#blobMismatch(digest, result.blob);
    if (result.diffId !== diffId) {
      throw new LaminaError(
        'DIFF_ID_MISMATCH',
        `The layer does not match its diffID (wanted ${diffId}, got ${result.diffId})`,
        {
          details: { wanted: diffId, got: result.diffId, path: this.#job.blob.path },
          hint: "The image's config names another layer than its manifest: the image was put together wrongly.",
        },
      );
    }
  }

  #write(decoder: StreamDecoder, result: HashResult): IndexedLayer {
    const { temporary, layerDirectory, mapDirectory, diffId } = this.#job;
    const start = appendixStart(this.#streamSize);
    const { root, appendix } = this.#tree.finish(start);
    const addressSpace = appendix.size === 0 ? this.#streamSize : start + appendix.size;
    const chunks: Chunks = {
      streamSize: this.#streamSize,
      addressSpace: this.#streamSize,
      digests: result.chunks,
      copies: [],
    };
    const facts: MapFacts = {
      compression: this.#compression,
      diffId,
      blob: result.blob,
      blobSize: this.#blob.size,
      streamSize: this.#streamSize,
      kept: this.#kept.reduce((n, chunk) => n + chunkLength(chunks, chunk), 0),
      notes: [...decoder.diagnostics, ...this.#tar.notes.list()],
    };
    const mapTemporary = `${temporary}.map`;
    try {
      writeDurably(mapTemporary, encodeMap(facts, result.points));
      ftruncateSync(this.#dataFd, addressSpace);
      let isOurs = false;
      if (!existsSync(layerDirectory)) {
        writeDurably(join(temporary, 'tree.erofs'), seal(encodeTree(root, { devices: [addressSpace] })));
        writeDurably(join(temporary, 'chunks'), encodeChunks(chunks));
        if (appendix.size > 0) this.#addAppendix(chunks, appendix, addressSpace, mapTemporary);
        syncDirectory(temporary);
        isOurs = publish(temporary, layerDirectory);
      }
      if (!isOurs) this.#copyKept(chunks);
      publish(mapTemporary, join(mapDirectory, result.blob.replace(':', '-')));
    } finally {
      rmSync(mapTemporary, { force: true });
    }
    return { facts, addressSpace, points: result.points.length };
  }

  /** The appendix is made of the stream's bytes, so it comes when these can be read again. */
  #addAppendix(chunks: Chunks, appendix: Appendix, addressSpace: number, mapPath: string): void {
    const { temporary, blob } = this.#job;
    const path = join(temporary, 'chunks');
    const reader = ChunkReader.open({
      id: 0,
      directory: temporary,
      mapPath,
      blob,
      verify: 'first-read',
      memory: new ChunkMemory(64 * CHUNK),
    });
    try {
      const digests = reader.storeAppendix(appendix.copies, addressSpace);
      writeDurably(
        `${path}.new`,
        encodeChunks({
          ...chunks,
          addressSpace,
          copies: appendix.copies,
          digests: Buffer.concat([chunks.digests, digests]),
        }),
      );
      renameSync(`${path}.new`, path);
    } finally {
      reader.close();
    }
  }

  /** The layer is there already, from another blob or by another process: its data file takes what this pass had to keep. */
  #copyKept(chunks: Chunks): void {
    if (this.#kept.length === 0) return;
    const data = openData(join(this.#job.layerDirectory, 'data'));
    const buffer = Buffer.allocUnsafe(CHUNK);
    try {
      for (const chunk of this.#kept) {
        const bytes = buffer.subarray(0, chunkLength(chunks, chunk));
        if (!data.writable || readSync(this.#dataFd, bytes, 0, bytes.length, chunk * CHUNK) < bytes.length) return;
        writeWhole(data.fd, bytes, chunk * CHUNK);
      }
    } finally {
      closeSync(data.fd);
    }
  }
}

function writeWhole(fd: number, bytes: Buffer, position: number): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}

function isZero(bytes: Buffer): boolean {
  return bytes.length === 0 || (bytes[0] === 0 && bytes.compare(bytes, 1, bytes.length, 0, bytes.length - 1) === 0);
}

function blamesContent({ code }: LaminaError): boolean {
  return code !== 'IO' && code !== 'DISK_FULL' && code !== 'BLOB_MISSING' && code !== 'NATIVE_UNAVAILABLE';
}

function hashWhole(blob: RandomAccessBlob, like: Digest): Digest {
  const hasher = createHasher(like);
  const piece = Buffer.allocUnsafe(PIECE);
  for (let at = 0; ;) {
    const n = blob.read(at, piece);
    if (n === 0) return hasher.digest();
    hasher.update(piece.subarray(0, n));
    at += n;
  }
}
