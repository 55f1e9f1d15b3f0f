import type { FileSystem } from '../fuse/file-system.js';

/** A file system that cannot be served: every operation fails with the reason. */
export class FailedFs implements FileSystem {
  readonly capabilities = { xattrs: true, acls: false };
  readonly #reason: Error;

  constructor(reason: Error) {
    this.#reason = reason;
  }

  #fail(): never {
    throw this.#reason;
  }

  lookup(): number {
    return this.#fail();
  }
  getattr(): boolean {
    return this.#fail();
  }
  readdir(): void {
    this.#fail();
  }
  readlink(): Uint8Array {
    return this.#fail();
  }
  getxattr(): undefined {
    this.#fail();
  }
  listxattr(): readonly string[] {
    return this.#fail();
  }
  read(): number {
    return this.#fail();
  }
  affinity(): number {
    return 0;
  }
  seek(): number {
    return this.#fail();
  }
  statfs(): never {
    return this.#fail();
  }
}
