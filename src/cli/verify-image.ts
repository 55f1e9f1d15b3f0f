/**
 * Reads every layer blob of an image from front to back and compares: its size and bytes with the descriptor, and what
 * it decompresses to with the diffID. Nothing that is known from before is relied on. The documents were hashed when the
 * image was resolved.
 */
import { createDecoder, sniffCompression, type StreamDecoder } from '../compress/index.js';
import { createHasher, type Hasher } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import { openBlob, type RandomAccessBlob } from '../source/blob.js';
import type { Image, Layer } from '../source/image.js';
import type { ShownEvent } from './progress.js';
import { breathe } from './signals.js';

/**
 * `unreadable`: missing, truncated, or no valid compressed stream; `unchecked`: the source names no digest for the blob
 * (a docker-archive), or the blob could not be read to its end.
 */
export type Verdict = 'ok' | 'mismatch' | 'unreadable' | 'unchecked';

export interface LayerVerdict {
  /** From 1, base first. */
  readonly layer: number;
  readonly digest: string | null;
  readonly diffId: string;
  /** Bytes of the blob. */
  readonly size: number;
  readonly blob: Verdict;
  readonly content: Verdict;
  /** What the blob hashes to, where that is not `digest`. */
  readonly gotDigest: string | null;
  /** What the content hashes to, where that is not `diffId`. */
  readonly gotDiffId: string | null;
  /** Why something is unreadable. */
  readonly reason: string | null;
}

export interface ImageVerdict {
  readonly reference: string;
  readonly manifestDigest: string | null;
  readonly configDigest: string;
  readonly ok: boolean;
  readonly layers: readonly LayerVerdict[];
}

export interface VerifyOptions {
  readonly onProgress: (event: ShownEvent) => void;
  readonly signal: AbortSignal;
}

/** A damaged layer is a result, not a failure. Throws NATIVE_UNAVAILABLE, IO. */
export async function verifyImage(image: Image, options: VerifyOptions): Promise<ImageVerdict> {
  const { reference, manifestDigest = null, configDigest } = image;
  const bytes = image.layers.reduce((sum, { size }) => sum + size, 0);
  options.onProgress({ type: 'resolved', reference, layers: image.layers.length, bytes });
  const layers: LayerVerdict[] = [];
  for (const [i, layer] of image.layers.entries()) layers.push(await verifyLayer(layer, i, options));
  return { reference, manifestDigest, configDigest, ok: layers.every(isSound), layers };
}

function isSound({ blob, content }: LayerVerdict): boolean {
  return content === 'ok' && (blob === 'ok' || blob === 'unchecked');
}

const BLOCK = 1 << 20;

async function verifyLayer(layer: Layer, index: number, { onProgress, signal }: VerifyOptions): Promise<LayerVerdict> {
  const { diffId, size } = layer;
  const step = (state: 'verifying' | 'verified', done: number): void =>
    onProgress({ type: 'layer', layer: index, diffId, state, done, total: size });
  const pass = new LayerPass(layer);
  try {
    step('verifying', 0);
    for (let offset = 0; pass.readBlock(offset); offset += BLOCK) {
      await breathe();
      signal.throwIfAborted();
      step('verifying', Math.min(offset + BLOCK, size));
    }
    step('verified', size);
    return pass.verdict(index + 1);
  } finally {
    pass.close();
  }
}

class LayerPass {
  readonly #layer: Layer;
  readonly #blobHasher: Hasher;
  readonly #contentHasher: Hasher;
  readonly #block = Buffer.allocUnsafe(BLOCK);
  #blob: RandomAccessBlob | undefined;
  #decoder: StreamDecoder | undefined;
  #missing: LaminaError | undefined;
  #undecodable: LaminaError | undefined;

  constructor(layer: Layer) {
    this.#layer = layer;
    this.#blobHasher = createHasher(layer.digest);
    this.#contentHasher = createHasher(layer.diffId);
  }

  /** False after the last block. */
  readBlock(offset: number): boolean {
    if (offset > 0 && offset >= this.#layer.size) return false;
    try {
      this.#blob ??= openBlob(this.#layer.blob);
    } catch (e) {
      this.#missing = damage(e);
      return false;
    }
    const bytes = this.#block.subarray(0, this.#blob.read(offset, this.#block));
    this.#blobHasher.update(bytes);
    this.#decode(bytes, offset === 0);
    return bytes.length > 0;
  }

  #decode(bytes: Buffer, first: boolean): void {
    if (this.#undecodable !== undefined) return;
    try {
      if (first) this.#decoder = createDecoder(sniffCompression(bytes));
      this.#decoder?.push(bytes, (output) => this.#contentHasher.update(output));
    } catch (e) {
      this.#undecodable = damage(e);
    }
  }

  verdict(layer: number): LayerVerdict {
    const { digest, diffId, size } = this.#layer;
    this.#end();
    const failure = this.#missing ?? this.#undecodable;
    const gotDigest = this.#missing === undefined ? this.#blobHasher.digest() : undefined;
    const gotDiffId = failure === undefined ? this.#contentHasher.digest() : undefined;
    return {
      layer,
      digest: digest ?? null,
      diffId,
      size,
      blob:
        this.#missing !== undefined ? 'unreadable' : digest === undefined ? 'unchecked' : compare(gotDigest, digest),
      content: failure === undefined ? compare(gotDiffId, diffId) : 'unreadable',
      gotDigest: digest === undefined || gotDigest === digest ? null : (gotDigest ?? null),
      gotDiffId: gotDiffId === diffId ? null : (gotDiffId ?? null),
      reason: failure?.message ?? null,
    };
  }

  #end(): void {
    if (this.#undecodable !== undefined) return;
    try {
      this.#decoder?.end();
    } catch (e) {
      this.#undecodable = damage(e);
    }
  }

  close(): void {
    this.#decoder?.close();
    this.#blob?.close();
  }
}

function compare(got: string | undefined, wanted: string): Verdict {
  return got === wanted ? 'ok' : 'mismatch';
}

const damages = [
  'COMPRESSION_CORRUPT',
  'COMPRESSION_TRUNCATED',
  'COMPRESSION_UNKNOWN',
  'LIMIT_EXCEEDED',
  'BLOB_MISSING',
];

/** What is wrong with the layer; anything else is wrong with us, and thrown again. */
function damage(e: unknown): LaminaError {
  if (e instanceof LaminaError && damages.includes(e.code)) return e;
  throw e;
}
