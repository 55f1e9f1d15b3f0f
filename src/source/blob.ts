/**
 * Where the bytes of a blob are: plain data that survives a thread, a socket and a restart, and the reader made from it.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';

/** A run of bytes of a local file: a blob of a layout (offset 0) or a member of an uncompressed archive. */
interface FileLocation {
  readonly kind: 'file';
  readonly path: string;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** A blob that its descriptor holds (image-spec descriptor.md, `data`); a manifest's limit bounds it. */
interface EmbeddedLocation extends Omit<FileLocation, 'kind'> {
  readonly kind: 'embedded';
  /** What to call it in messages. */
  readonly path: string;
  /** The content in base64. */
  readonly data: string;
}

export type BlobLocation = FileLocation | EmbeddedLocation;

/** Random access to one blob. Reads block: a reader belongs to a worker thread or to a short-lived command. */
export interface RandomAccessBlob {
  /** Bytes. */
  readonly size: number;
  /** Fills `into` from `offset` on; returns the bytes read, fewer than asked only at the end of the blob. Throws IO. */
  read(offset: number, into: Uint8Array): number;
  close(): void;
}

/**
 * Throws BLOB_MISSING where the file is gone or shorter than the location says, PERMISSION_DENIED, IO. A FIFO that has
 * taken the file's place does not block.
 */
export function openBlob(location: BlobLocation): RandomAccessBlob {
  if (location.kind === 'embedded') return openEmbedded(location);
  let fd: number;
  try {
    fd = openSync(location.path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (e) {
    const errno = errnoOf(e);
    if (errno !== 'ENOENT' && errno !== 'ENOTDIR') throw toLaminaError(e, `Cannot open ${location.path}`);
    throw new LaminaError('BLOB_MISSING', `Cannot open ${location.path}`, {
      cause: e,
      details: { path: location.path },
    });
  }
  const stats = fstatSync(fd);
  if (!stats.isFile() || stats.size < location.offset + location.size) {
    closeSync(fd);
    throw new LaminaError('BLOB_MISSING', `${location.path} is shorter than it was`, {
      details: { path: location.path },
    });
  }
  return {
    size: location.size,
    read(offset, into) {
      const want = Math.min(into.length, location.size - offset);
      let done = 0;
      try {
        while (done < want) {
          const n = readSync(fd, into, done, want - done, location.offset + offset + done);
          if (n === 0) break;
          done += n;
        }
      } catch (e) {
        throw toLaminaError(e, `Reading ${location.path}`);
      }
      return done;
    },
    close: () => closeSync(fd),
  };
}

function openEmbedded({ data, size }: EmbeddedLocation): RandomAccessBlob {
  const bytes = Buffer.from(data, 'base64');
  return {
    size,
    read: (offset, into) => bytes.copy(into, 0, offset),
    close: () => undefined,
  };
}
