/** A registry's blob as other blobs are read: from the store what has been fetched, the rest through the fetch thread. */
import type { RandomAccessBlob } from '../blob.js';
import { BlockFile } from './block-file.js';
import { fetchPort, noteUse } from './port.js';
import type { RemoteBlobSpec } from './protocol.js';
import { RECORDED_MS } from './trace-file.js';

export class RemoteBlob implements RandomAccessBlob {
  readonly #spec: RemoteBlobSpec;
  #file: BlockFile | undefined;
  /** Of performance.now(): nobody records what is used from then on. */
  #notedUntil: number | undefined;

  constructor(spec: RemoteBlobSpec) {
    this.#spec = spec;
    this.#file = BlockFile.open(spec.path, spec.size);
  }

  get size(): number {
    return this.#spec.size;
  }

  has(offset: number, length: number): boolean {
    const end = Math.min(offset + length, this.size);
    if (end <= offset) return true;
    return this.#open()?.has(offset, end) === true;
  }

  need(offset: number, length: number): void {
    const end = Math.min(offset + length, this.size);
    if (this.has(offset, length)) this.#note(offset, end);
    else fetchPort().need(this.#spec, offset, end);
  }

  read(offset: number, into: Uint8Array): number {
    if (offset >= this.size) return 0;
    const missing = this.#open()?.missing(offset, offset + into.length);
    // What is there will do: whoever reads on asks for the rest.
    const there = missing === undefined ? into.length : Math.max(missing.start - offset, 0);
    if (this.#file === undefined || there === 0) this.need(offset, into.length);
    return this.#open()?.read(offset, there === 0 ? into : into.subarray(0, there)) ?? 0;
  }

  discard(offset: number, length: number): boolean {
    fetchPort().discard(this.#spec, offset, Math.min(offset + length, this.size));
    return true;
  }

  close(): void {
    this.#file?.close();
  }

  #note(start: number, end: number): void {
    const now = performance.now();
    this.#notedUntil ??= now + RECORDED_MS;
    if (now <= this.#notedUntil) noteUse(this.#spec, start, end);
  }

  #open(): BlockFile | undefined {
    return (this.#file ??= BlockFile.open(this.#spec.path, this.size));
  }
}
