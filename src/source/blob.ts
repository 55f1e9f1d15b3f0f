/**
 * Where the bytes of a blob are: plain data that survives a thread, a socket and a restart, and the reader made from it.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';
import type { RemoteBlobSpec } from './fetch/protocol.js';
import { RemoteBlob } from './fetch/remote-blob.js';

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

/** A blob of a registry. `path` is where the store keeps what has been fetched of it. */
interface RegistryLocation extends Omit<FileLocation, 'kind'>, RemoteBlobSpec {
  readonly kind: 'registry';
}

export type BlobLocation = FileLocation | EmbeddedLocation | RegistryLocation;

/** Random access to one blob. Reads block: a reader belongs to a worker thread or to a short-lived command. */
export interface RandomAccessBlob {
  /** Bytes. */
  readonly size: number;
  /** Whether the bytes can be read without asking a registry for them. */
  has(offset: number, length: number): boolean;
  /**
   * Makes sure of that. Throws `NotAtHand` in a thread that must not wait for a registry, else what fetching throws:
   * REGISTRY_*, BLOB_MISSING, BLOB_SIZE_MISMATCH.
   */
  need(offset: number, length: number): void;
  /**
   * Fills `into` from `offset` on; returns the bytes read: fewer than asked at the end of the blob, and where the rest would
   * have to be fetched; none only behind the end. Throws IO and what {@link need} throws.
   */
  read(offset: number, into: Uint8Array): number;
  /** What was read there is wrong. True: it will be had anew from where it came. */
  discard(offset: number, length: number): boolean;
  close(): void;
}

/**
 * Throws BLOB_MISSING where the file is gone or shorter than the location says, PERMISSION_DENIED, IO. A FIFO that has
 * taken the file's place does not block.
 */
export function openBlob(location: BlobLocation): RandomAccessBlob {
  if (location.kind === 'embedded') return openEmbedded(location);
  if (location.kind === 'registry') return new RemoteBlob(location);
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
    ...local,
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

const local: Pick<RandomAccessBlob, 'has' | 'need' | 'discard'> = {
  has: () => true,
  need: () => undefined,
  discard: () => false,
};

function openEmbedded({ data, size }: EmbeddedLocation): RandomAccessBlob {
  const bytes = Buffer.from(data, 'base64');
  return {
    ...local,
    size,
    read: (offset, into) => bytes.copy(into, 0, offset),
    close: () => undefined,
  };
}
