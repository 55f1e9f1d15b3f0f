/** Where the files of a layout or an archive are: a directory's, or the members of a tar. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';
import { tooLarge } from '../oci/limits.js';
import { openBlob, type BlobLocation } from './blob.js';

export interface Files {
  /** Of the directory or the archive, absolute. */
  readonly path: string;
  /** A regular file by its name, such as "blobs/sha256/ab..", or undefined when there is none. */
  find(name: string): BlobLocation | undefined;
}

/** The files below a directory. Symbolic links are followed: what matters has a digest. */
export class DirectoryFiles implements Files {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** Throws LAYOUT_INVALID where there is something else than a file, PERMISSION_DENIED, IO. */
  find(name: string): BlobLocation | undefined {
    const path = join(this.path, name);
    try {
      const stats = statSync(path);
      if (stats.isFile()) return { kind: 'file', path, offset: 0, size: stats.size };
    } catch (e) {
      const errno = errnoOf(e);
      if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
      throw toLaminaError(e);
    }
    throw new LaminaError('LAYOUT_INVALID', `${path} is not a regular file`, { details: { path } });
  }
}

/** Throws IMAGE_NOT_FOUND, LAYOUT_INVALID where it is no directory, PERMISSION_DENIED, IO. */
export function openDirectory(path: string): DirectoryFiles {
  if (isDirectory(path)) return new DirectoryFiles(path);
  throw new LaminaError('LAYOUT_INVALID', `${path} is not a directory`, {
    hint: 'A file with an image in it is written oci-archive:FILE or docker-archive:FILE.',
    details: { path },
  });
}

/** Throws IMAGE_NOT_FOUND where there is nothing, PERMISSION_DENIED, IO. */
export function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (e) {
    const errno = errnoOf(e);
    if (errno !== 'ENOENT' && errno !== 'ENOTDIR') throw toLaminaError(e);
    throw new LaminaError('IMAGE_NOT_FOUND', `there is no file or directory ${path}`, { details: { path } });
  }
}

/** All bytes of a small file. `what` it is called in messages; `limit` in bytes. Throws LIMIT_EXCEEDED, BLOB_MISSING, IO. */
export function readWhole(location: BlobLocation, what: string, limit: number): Buffer {
  if (location.size > limit) throw tooLarge(what, location.size, limit);
  const bytes = Buffer.alloc(location.size);
  const blob = openBlob(location);
  try {
    const length = blob.read(0, bytes);
    return bytes.subarray(0, length);
  } finally {
    blob.close();
  }
}
