/** An image as the rest of Lamina sees it: resolved, hashed, parsed, with a place for every layer blob. */
import type { Digest } from '../digest/index.js';
import type { BlobLocation } from './blob.js';
import type { ImageConfig } from '../oci/config.js';
import type { Platform } from '../oci/platform.js';
import type { LayerParts } from './lamina-index.js';
import type { TocPlace } from './toc/place.js';
import type { TracePart } from './trace.js';

/**
 * Which tree a layer's tar means when it is not simply its own: `aci`, what is below `rootfs/` of an appc image, without
 * whiteouts; `estargz`, without the files that only a lazy loader wants.
 */
export type LayerView = 'aci' | 'estargz';

/** A blob that whoever may write to the repository has put there. */
export interface ShippedPart {
  readonly blob: BlobLocation;
  readonly digest: Digest;
}

export interface LayerZtoc {
  readonly blob: BlobLocation;
  readonly digest: Digest;
  /** The image's manifest names the index by its digest. Else whoever may write to the repository has put it there. */
  readonly bound: boolean;
}

export interface Layer {
  /** Of the uncompressed tar, from the config's rootfs.diff_ids. */
  readonly diffId: Digest;
  /** Of the blob as stored; undefined where the source does not say (an old docker-archive with a compressed member). */
  readonly digest: Digest | undefined;
  /** Bytes of the blob as stored. */
  readonly size: number;
  readonly mediaType: string;
  readonly blob: BlobLocation;
  readonly view?: LayerView | undefined;
  /** Of the image's manifest, of one in a registry: what binds indexes that it names. */
  readonly manifest?: Digest | undefined;
  /** The table of contents that the layer brings, of one in a registry. */
  readonly toc?: TocPlace | undefined;
  /** Where that is if the layer's own blob does not have it. */
  readonly externalToc?: BlobLocation | undefined;
  /** The ztoc that a SOCI index has for it, of one in a registry. */
  readonly soci?: LayerZtoc | undefined;
  /** The parts of its Lamina index, of one in a registry. */
  readonly shipped?: LayerParts<ShippedPart> | undefined;
  /**
   * Absolute paths (raw bytes in latin1), list by list: of the layer's tree only what every list has is used, and the
   * directories on the way there. appc images have these; they belong to the image, not to the layer.
   */
  readonly whitelists?: readonly (readonly string[])[] | undefined;
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
  /** How its layers are merged, where its format says; else that is the user's choice. */
  readonly compat?: 'overlay' | undefined;
  /** Base first. */
  readonly layers: readonly Layer[];
  readonly annotations: Readonly<Record<string, string>>;
  /** What its containers have read first on other machines, of one in a registry. */
  readonly trace?: readonly TracePart[] | undefined;
  /** What was odd but not wrong, for stderr. */
  readonly warnings: readonly string[];
}
