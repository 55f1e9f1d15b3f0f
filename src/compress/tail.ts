/**
 * What follows the last member or frame. NULs are padding, as gzip(1) takes it; anything else is noted and ignored, as
 * it cannot do harm: the blob's digest and the diffID decide.
 */
export class Tail {
  #length = 0;
  #garbage = false;

  push(bytes: Uint8Array): void {
    this.#length += bytes.length;
    for (let i = 0; i < bytes.length && !this.#garbage; i++) this.#garbage = bytes[i] !== 0;
  }

  clear(): void {
    this.#length = 0;
    this.#garbage = false;
  }

  /** `unit`: "gzip member". */
  diagnostics(unit: string): string[] {
    return this.#garbage ? [`ignored ${this.#length} bytes after the last ${unit}`] : [];
  }
}
