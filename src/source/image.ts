/** An image as the rest of Lamina sees it: resolved, hashed, parsed, with a place for every layer blob. */
import type { Digest } from '../digest/index.js';
import type { BlobLocation } from './blob.js';
import type { ImageConfig } from '../oci/config.js';
import type { Platform } from '../oci/platform.js';

export interface Layer {
  /** Of the uncompressed tar, from the config's rootfs.diff_ids. */
  readonly diffId: Digest;
  /** Of the blob as stored; undefined where the source does not say (an old docker-archive with a compressed member). */
  readonly digest: Digest | undefined;
  /** Bytes of the blob as stored. */
  readonly size: number;
  readonly mediaType: string;
  readonly blob: BlobLocation;
}

export interface Image {
  /** The reference in its full form, e.g. "oci:/srv/app.oci:latest". */
  readonly reference: string;
  /** Digest of the manifest; undefined for an old docker-archive, which has none. */
  readonly manifestDigest: Digest | undefined;
  /** Digest of the config: the image ID. */
  readonly configDigest: Digest;
  readonly platform: Platform;
  readonly config: ImageConfig;
  /** The config's raw bytes. */
  readonly configBytes: Uint8Array;
  /** Base first. */
  readonly layers: readonly Layer[];
  readonly annotations: Readonly<Record<string, string>>;
  /** What was odd but not wrong, for stderr. */
  readonly warnings: readonly string[];
}
