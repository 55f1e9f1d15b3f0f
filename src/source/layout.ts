/**
 * An image layout (image-spec image-layout.md), in a directory or in an archive: `oci-layout`, `index.json` and
 * `blobs/ALGORITHM/HEX`. Documents are read whole and verified, size before digest; layers are only located.
 */
import { z } from 'zod';
import { parseDigest } from '../digest/index.js';
import { LaminaError } from '../errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { parseIndex } from '../oci/index-document.js';
import { parseJson } from '../oci/json.js';
import { MANIFEST_LIMIT } from '../oci/limits.js';
import type { BlobLocation } from './blob.js';
import { checkSize, embeddedBytes, embeddedLocation, verified, withoutSecrets, type Documents } from './documents.js';
import { readWhole, type Files } from './files.js';

/** Bytes. It has 31. */
const MARKER_LIMIT = 4096;
const URLS_SHOWN = 5;

const marker = z.object({ imageLayoutVersion: z.string() });

export class Layout implements Documents {
  readonly #files: Files;
  /** Of index.json. */
  readonly entries: readonly Descriptor[];
  /** What was odd but not wrong. */
  readonly warnings: readonly string[];

  private constructor(files: Files, entries: readonly Descriptor[], warnings: readonly string[]) {
    this.#files = files;
    this.entries = entries;
    this.warnings = warnings;
  }

  /** Throws LAYOUT_INVALID, MANIFEST_INVALID, LIMIT_EXCEEDED, PERMISSION_DENIED, IO. */
  static open(files: Files): Layout {
    const markerBytes = Layout.#read(files, 'oci-layout', MARKER_LIMIT);
    const { imageLayoutVersion: version } = parseJson(markerBytes, marker, {
      what: 'oci-layout',
      code: 'LAYOUT_INVALID',
      limit: MARKER_LIMIT,
    });
    const shown = JSON.stringify(version.slice(0, 50));
    if (!/^1\.\d/.test(version)) {
      throw new LaminaError('LAYOUT_INVALID', `the layout has version ${shown}; 1.0.0 is the one that is known`);
    }
    const entries = parseIndex(Layout.#read(files, 'index.json', MANIFEST_LIMIT), undefined, 'index.json');
    return new Layout(files, entries, version === '1.0.0' ? [] : [`the layout has version ${shown}, not 1.0.0`]);
  }

  static #read(files: Files, name: string, limit: number): Buffer {
    const location = files.find(name);
    if (location !== undefined) return readWhole(location, name, limit);
    throw new LaminaError('LAYOUT_INVALID', `${files.path} is not an image layout: it has no ${name}`, {
      details: { path: files.path },
    });
  }

  /**
   * The verified bytes of the document that `descriptor` points at. `what` it is called in messages; `limit` in bytes.
   * Throws BLOB_MISSING, BLOB_SIZE_MISMATCH, BLOB_DIGEST_MISMATCH, LIMIT_EXCEEDED, DIGEST_*, IO.
   */
  read(descriptor: Descriptor, what: string, limit: number): Buffer {
    const digest = parseDigest(descriptor.digest);
    const embedded = embeddedBytes(descriptor, digest, what);
    return embedded ?? verified(readWhole(this.locate(descriptor, what), what, limit), digest, what);
  }

  /** Where the blob is; of its bytes only the number is checked. Throws BLOB_MISSING, BLOB_SIZE_MISMATCH, DIGEST_*. */
  locate(descriptor: Descriptor, what: string): BlobLocation {
    const digest = parseDigest(descriptor.digest);
    const embedded = embeddedBytes(descriptor, digest, what);
    const name = `blobs/${digest.replace(':', '/')}`;
    const location = this.#files.find(name);
    if (location === undefined && embedded !== undefined) return embeddedLocation(embedded, digest);
    if (location === undefined) {
      const urls = descriptor.urls.slice(0, URLS_SHOWN).map(withoutSecrets);
      const path = `${this.#files.path}/${name}`;
      throw new LaminaError('BLOB_MISSING', `${what} is missing: ${this.#files.path} has no ${name}`, {
        hint:
          urls.length === 0
            ? 'The layout is incomplete: copy the image again, with all of its blobs.'
            : `It is not distributed with the image, but by its owner. Fetch it to ${path} from: ${urls.join(' ')}`,
        details: { digest, path, ...(urls.length === 0 ? {} : { urls }) },
      });
    }
    checkSize(location.size, descriptor, what);
    return location;
  }
}
