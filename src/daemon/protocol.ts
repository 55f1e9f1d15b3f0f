/**
 * The control API: HTTP over the unix socket RUN/control.sock, JSON bodies.
 *
 *     GET    /v1/status             DaemonStatus
 *     GET    /v1/mounts             MountStatus[]
 *     GET    /v1/contents           MountContent[]
 *     POST   /v1/mounts             MountRequest -> MountEvent lines (NDJSON), the last one "mounted" or "error"
 *     DELETE /v1/mounts?target=T&lazy=1   MountStatus[]: what was unmounted; T is a mountpoint, an id, a reference or "*"
 *     POST   /v1/background         BackgroundRequest -> {}
 *     POST   /v1/stop               StopRequest -> {}: unmounts everything, answers, then the daemon ends
 *
 * A failed request has a 4xx or 5xx status and a SerializedError as its body.
 */
import { z } from 'zod';
import type { RuntimeSpec } from '../bundle/runtime-config.js';
import type { SerializedError } from '../errors.js';
import type { ProgressEvent } from '../image/progress.js';
import type { IdMap } from '../mount/id-map.js';
import { mountFlags, type MountFlag } from '../mount/flags.js';
import { pullPolicies } from '../source/fetch/access.js';
import { idMapSchema, registryAccess, runtimeOptions } from './schemas.js';

/** Which image, and how it is had. */
const imageRequest = z.strictObject({
  /** In its full form, paths absolute. */
  reference: z.string().min(1).max(8192),
  /** "os/arch[/variant]". */
  platform: z.string().max(100).optional(),
  /** Directories with what an appc image depends on. */
  aciPath: z.array(z.string().startsWith('/').max(4095)).max(64).optional(),
  compat: z.enum(['spec', 'overlay']).default('spec'),
  /** How its registry is asked, of an image that is in one. */
  registry: z
    .strictObject({
      pull: z.enum(pullPolicies).default('missing'),
      access: registryAccess.omit({ host: true, repository: true, credentials: true }),
      /** What the user has typed, in the form of `encodeCredentials`: kept in memory only. */
      credentials: z.record(z.string(), z.string()).optional(),
    })
    .optional(),
});
export type ImageRequest = z.infer<typeof imageRequest>;
export type ImageRequestInput = z.input<typeof imageRequest>;

export const mountRequest = z.strictObject({
  ...imageRequest.shape,
  /** Absolute; made under RUN/mnt when absent. */
  mountpoint: z.string().startsWith('/').max(4095).optional(),
  engine: z.enum(['auto', 'kernel', 'fuse']).default('auto'),
  /** Of the fuse engine, which `fuse-native` asks for. */
  transport: z.enum(['dev-fuse', 'fuse-native']).default('dev-fuse'),
  verify: z.enum(['every-read', 'first-read']).default('every-read'),
  /**
   * An overlayfs over the image. `upper` is a directory (absolute, made when missing) that outlives the mount, else one
   * of the daemon's own. overlayfs needs a work directory beside it, `.NAME.lamina-work`, which goes with the mount.
   */
  writable: z.strictObject({ upper: z.string().startsWith('/').optional() }).optional(),
  /** A directory inside the image, which is shown instead of all of it. */
  subdir: z.string().max(4095).optional(),
  flags: z.array(z.enum(mountFlags)).max(mountFlags.length).default([]),
  /** The ids that are shown instead of the image's. */
  idMap: idMapSchema.optional(),
  /** How a runtime shall run the image: then its config is made too. */
  runtime: runtimeOptions.optional(),
});
export type MountRequest = z.infer<typeof mountRequest>;
export type MountRequestInput = z.input<typeof mountRequest>;

export const backgroundRequest = z.strictObject({ paused: z.boolean() });

export const stopRequest = z.strictObject({
  /** Unmount lazily what is busy instead of refusing. */
  force: z.boolean().default(false),
});
export type StopRequest = z.infer<typeof stopRequest>;

export interface MountStatus {
  readonly id: string;
  readonly mountpoint: string;
  readonly engine: 'kernel' | 'fuse';
  /** Null for the kernel engine. */
  readonly transport: 'dev-fuse' | 'fuse-native' | null;
  /** Why this engine. */
  readonly reason: string;
  readonly reference: string;
  readonly manifestDigest: string | null;
  readonly configDigest: string;
  readonly platform: string;
  readonly layers: number;
  /** The overlay's upper directory. */
  readonly upper: string | null;
  /** The directory of the image that is shown, where it is not all. */
  readonly subdir: string | null;
  readonly flags: readonly MountFlag[];
  readonly idMap: IdMap | null;
  /** Milliseconds since 1970. */
  readonly created: number;
  /** Bytes since the server started, over all mounts that share a layer. */
  readonly bytes: { readonly served: number; readonly verified: number; readonly filled: number };
}

/** What of a mount's layers is here, base first. */
export interface MountContent {
  readonly id: string;
  readonly mountpoint: string;
  readonly reference: string;
  readonly layers: readonly LayerContent[];
}

export interface LayerContent {
  readonly diffId: string;
  /** Of a registry's. */
  readonly digest: string | null;
  /** "local": nothing has to be fetched. */
  readonly source: 'local' | 'registry';
  /** By its tar, all of which was read; by the table of contents that it brings; by a ztoc of SOCI; or by a Lamina index. */
  readonly index: 'tar' | 'toc' | 'soci' | 'lamina';
  /**
   * What the bytes that are read are checked against: digests that we made when we hashed the whole layer, or those of its
   * table of contents, which the manifest binds by a digest; or those of a SOCI or Lamina index, which the manifest binds too, or only
   * whoever may write to the repository, until the whole layer is here.
   */
  readonly verified:
    'layer digest' | 'table of contents' | 'SOCI index' | 'SOCI index, provisional' | 'Lamina index, provisional';
  /** Bytes of the blob: that are here, that reads have waited for since the daemon used it first, and all. */
  readonly fetched: number;
  readonly needed: number;
  readonly size: number;
  /** Uncompressed bytes in the cache. */
  readonly cached: number;
}

export interface DaemonStatus {
  readonly supervisorPid: number;
  readonly serverPid: number;
  readonly version: string;
  /** Seconds since the server started. */
  readonly uptime: number;
  /** How often the server has died under its supervisor. */
  readonly restarts: number;
  /** False when the supervisor has died: a crash would now lose the mounts. */
  readonly supervised: boolean;
  /** Whether layers are completed that nobody reads. */
  readonly background: 'on' | 'paused';
  readonly store: string;
  readonly run: string;
  readonly mounts: readonly MountStatus[];
}

/** While an image is prepared. */
export type PrepareEvent =
  { readonly type: 'progress'; readonly event: ProgressEvent } | { readonly type: 'warning'; readonly message: string };

/** The last one of a call that was refused when it was under way. */
export interface ErrorEvent {
  readonly type: 'error';
  readonly error: SerializedError;
}

export interface Mounted {
  readonly mount: MountStatus;
  /** The runtime's config.json, where it was asked for. */
  readonly config: RuntimeSpec | null;
}

export type MountEvent = PrepareEvent | ErrorEvent | ({ readonly type: 'mounted' } & Mounted);
