/**
 * One appc image archive (appc spec, spec/aci.md): a tar, plain or compressed with gzip, of `manifest` and `rootfs/`. Its
 * builders write the manifest last, and its ID is the digest of the whole tar, so it is read to its end.
 */
import { statSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { createDecoder, sniffCompression, type Compression } from '../compress/index.js';
import { createHasher, type Digest } from '../digest/index.js';
import { cleanPath } from '../erofs/paths.js';
import { LaminaError } from '../errors.js';
import { parseAciManifest, type AciManifest } from '../oci/aci-manifest.js';
import { MANIFEST_LIMIT, tooLarge } from '../oci/limits.js';
import type { DataRun, TarEntry } from '../tar/entry.js';
import { printable } from '../tar/notes.js';
import { TarReader } from '../tar/reader.js';
import { openBlob, type BlobLocation } from './blob.js';
import { isDirectory } from './files.js';
import { layerLimit, overLimit } from './limits.js';

export interface AciArchive {
  readonly blob: BlobLocation;
  /** Of the file as it is now. */
  readonly digest: Digest;
  /** The image ID: SHA-512 of the uncompressed tar. */
  readonly id: Digest;
  readonly manifest: AciManifest;
  readonly manifestBytes: Buffer;
}

const PIECE = 1024 * 1024;

/** Throws IMAGE_NOT_FOUND, ARCHIVE_INVALID, MANIFEST_INVALID, COMPRESSION_*, LIMIT_EXCEEDED, BLOB_MISSING, IO. */
export async function readAci(path: string): Promise<AciArchive> {
  const blob = locate(path);
  const parts = new Parts();
  const hasher = createHasher('sha512');
  const fileHasher = createHasher();
  const compression = await scan(blob, {
    onInput: (bytes) => fileHasher.update(bytes),
    onOutput: (bytes) => {
      hasher.update(bytes);
      parts.push(bytes);
      return true;
    },
  });
  parts.end();
  const manifestBytes = parts.manifest();
  const id = hasher.digest();
  const digest = compression === 'none' ? id : fileHasher.digest();
  return { blob, digest, id, manifest: parseAciManifest(manifestBytes), manifestBytes };
}

/** The manifest alone: what comes after it is not looked at. Throws as {@link readAci}. */
export async function readAciManifest(path: string): Promise<AciManifest> {
  const parts = new Parts();
  await scan(locate(path), {
    onOutput: (bytes) => {
      parts.push(bytes);
      return !parts.complete;
    },
  });
  return parseAciManifest(parts.manifest());
}

function locate(path: string): BlobLocation {
  if (isDirectory(path)) throw new LaminaError('ARCHIVE_INVALID', `${path} is a directory`, { details: { path } });
  const stats = statSync(path);
  if (stats.isFile()) return { kind: 'file', path, offset: 0, size: stats.size };
  throw new LaminaError('ARCHIVE_INVALID', `${path} is not a regular file`, { details: { path } });
}

interface ScanSinks {
  /** The file's bytes. */
  readonly onInput?: (bytes: Buffer) => void;
  /** The uncompressed bytes, until it returns false. */
  readonly onOutput: (bytes: Buffer) => boolean;
}

async function scan(location: BlobLocation, sinks: ScanSinks): Promise<Compression> {
  const { path } = location;
  const blob = openBlob(location);
  const limit = layerLimit();
  let size = 0;
  let wanted = true;
  try {
    const piece = Buffer.allocUnsafe(PIECE);
    const compression = sniff(piece.subarray(0, blob.read(0, piece)), path);
    const decoder = createDecoder(compression);
    const onOutput = (output: Uint8Array): void => {
      size += output.length;
      if (size > limit) throw overLimit(limit);
      wanted &&= sinks.onOutput(Buffer.from(output.buffer, output.byteOffset, output.byteLength));
    };
    try {
      for (let at = 0; wanted;) {
        const n = blob.read(at, piece);
        if (n === 0) {
          decoder.end();
          break;
        }
        sinks.onInput?.(piece.subarray(0, n));
        decoder.push(piece.subarray(0, n), onOutput);
        at += n;
        // Others have this thread too.
        await setImmediate();
      }
      return compression;
    } finally {
      decoder.close();
    }
  } catch (e) {
    if (!(e instanceof LaminaError) || !/^(?:TAR|SPARSE)_/.test(e.code)) throw e;
    throw new LaminaError('ARCHIVE_INVALID', `${path} is not a tar archive, or it is damaged: ${e.message}`, {
      details: { ...e.details, path },
      cause: e,
    });
  } finally {
    blob.close();
  }
}

function sniff(head: Uint8Array, path: string): Compression {
  try {
    return sniffCompression(head);
  } catch (e) {
    if (!(e instanceof LaminaError) || e.code !== 'COMPRESSION_UNKNOWN') throw e;
    const tool = String(e.details['compression']);
    throw new LaminaError('COMPRESSION_UNKNOWN', `${path} is compressed with ${tool}, which is not read`, {
      hint: `Compress it again: ${tool} -dc OLD.aci | gzip > NEW.aci. Its image ID stays the same.`,
      details: { ...e.details, path },
      cause: e,
    });
  }
}

/** Finds the manifest, and sees to it that nothing else is there but the rootfs. */
class Parts {
  readonly #tar = new TarReader((entry) => this.#entry(entry));
  #position = 0;
  #manifest: Buffer | undefined;
  #run: DataRun | undefined;
  #filled = 0;
  #rootfs = false;

  push(bytes: Buffer): void {
    this.#tar.push(bytes);
    const start = this.#position;
    this.#position += bytes.length;
    // What follows a header comes in the same piece or in later ones.
    if (this.#run === undefined || this.#manifest === undefined || this.complete) return;
    const from = this.#run.position + this.#filled - start;
    if (from < bytes.length) this.#filled += bytes.copy(this.#manifest, this.#filled, from);
  }

  end(): void {
    this.#tar.end();
    if (this.#manifest === undefined) throw new LaminaError('ARCHIVE_INVALID', 'it has no manifest');
    if (!this.#rootfs) throw new LaminaError('ARCHIVE_INVALID', 'it has no rootfs directory');
  }

  /** The manifest was read. */
  get complete(): boolean {
    return this.#manifest !== undefined && this.#filled === this.#manifest.length;
  }

  manifest(): Buffer {
    if (this.#manifest !== undefined && this.complete) return this.#manifest;
    throw new LaminaError('ARCHIVE_INVALID', 'it has no manifest');
  }

  #entry(entry: TarEntry): void {
    const { components, escapes } = cleanPath(entry.name);
    const [first, ...rest] = components;
    if (first === undefined && !escapes && entry.type === 'directory') return;
    if (escapes || (first !== 'rootfs' && (first !== 'manifest' || rest.length > 0))) {
      throw invalid(`it has ${printable(entry.name)} beside manifest and rootfs`);
    }
    if (first === 'manifest') this.#addManifest(entry);
    else if (rest.length === 0 && entry.type !== 'directory') throw invalid('its rootfs is not a directory');
    else this.#rootfs = true;
  }

  #addManifest({ type, size, data }: TarEntry): void {
    if (this.#manifest !== undefined) throw invalid('it has two manifests');
    const [run, ...more] = data;
    if (type !== 'file' || more.length > 0 || (run?.length ?? 0) < size) {
      throw invalid('its manifest is not an ordinary file');
    }
    if (size > MANIFEST_LIMIT) throw tooLarge('the manifest', size, MANIFEST_LIMIT);
    this.#manifest = Buffer.alloc(size);
    this.#run = run;
  }
}

function invalid(why: string): LaminaError {
  return new LaminaError('ARCHIVE_INVALID', why, {
    hint: 'An ACI has a manifest and a directory rootfs, and nothing else.',
  });
}
