/**
 * Putting a recorded mount into the kernel and taking it out again: the image by its engine, and the overlay over it
 * when it is writable. Both may be called on what is half done.
 */
import { chmod, chown, mkdir, opendir, rm, rmdir, stat, statfs } from 'node:fs/promises';
import { toLaminaError, errnoOf } from '../errors.js';
import { bindMount } from '../native/mounts.js';
import { isListed } from '../mount/fuse-control.js';
import { mountErofs } from '../mount/kernel-mount.js';
import { isLazy } from '../mount/layer-readers.js';
import { mountAt, type MountInfo } from '../mount/mountinfo.js';
import { mountOverlay } from '../mount/overlay.js';
import { raiseReadAhead } from '../mount/read-ahead.js';
import type { Fetcher } from '../source/fetch/fetcher.js';
import type { BlobMount } from './blob-mount.js';
import type { Connections } from './connections.js';
import { withDeadline } from './deadline.js';
import type { Logger } from './log.js';
import { makeMountpoint, unmountAt, type Unmounted } from './mountpoint.js';
import type { NativeServers } from './native-servers.js';
import type { MountRecord } from './records.js';
import type { RunDir } from './run-dir.js';

const SUBTYPE = 'lamina';
/** mount(2) takes a source of at most a page (strndup_user with PATH_MAX). */
const SOURCE_MAX = 1000;
const VERIFY_TIMEOUT_MS = 10_000;
/** A connection that has not ended by then is in use elsewhere. */
const END_TIMEOUT_MS = 1000;
/** For a process whose connection has ended. */
const EXIT_TIMEOUT_MS = 10_000;

export interface AttacherOptions {
  readonly run: RunDir;
  readonly connections: Connections;
  readonly natives: NativeServers;
  readonly blobs: BlobMount;
  readonly fetcher: Fetcher;
  readonly log: Logger;
}

/** What users see is not the whole image as it is, but an overlay over it or one directory of it. */
function isIndirect({ overlay, subdir }: MountRecord): boolean {
  return overlay !== null || subdir !== null;
}

/** The image's own place: the mountpoint, or one of ours. */
export function imageTarget(record: MountRecord, run: RunDir): string {
  return isIndirect(record) ? run.lower(record.id) : record.mountpoint;
}

/** Whether a mount of this namespace is the record's image. */
export function isImage(record: MountRecord): (mount: MountInfo) => boolean {
  const [type, source] =
    record.engine === 'kernel' ? ['erofs', record.treePath] : [`fuse.${SUBTYPE}`, sourceOf(record)];
  return (mount) =>
    mount.type === type && mount.source === source && mount.device === (record.imageDevice ?? mount.device);
}

/** Whether a mount of this namespace is what users of the record see. */
export function isVisible(record: MountRecord): (mount: MountInfo) => boolean {
  return record.overlay === null ? isImage(record) : isOverlay(record);
}

function isOverlay(record: MountRecord): (mount: MountInfo) => boolean {
  const source = sourceOf(record);
  return (mount) =>
    mount.type === 'overlay' && mount.source === source && mount.device === (record.overlayDevice ?? mount.device);
}

/** What mount(8) shows. */
function sourceOf({ reference }: MountRecord): string {
  return reference.slice(0, SOURCE_MAX);
}

export class Attacher {
  readonly #options: AttacherOptions;

  constructor(options: AttacherOptions) {
    this.#options = options;
  }

  /**
   * Mounts and makes sure that the mount answers; `learn` gets what is to be recorded on the way.
   * Throws MOUNT_FAILED, FUSE_UNAVAILABLE; what was done until then, {@link detach} and {@link clean} undo.
   */
  async attach(record: MountRecord, learn: (facts: Partial<MountRecord>) => void): Promise<void> {
    const { run } = this.#options;
    const target = imageTarget(record, run);
    if (isIndirect(record)) await makeMountpoint(target);
    if (record.engine === 'kernel') await this.#mountKernel(record, target);
    else if (record.transport === 'fuse-native') await this.#mountNative(record, target, learn);
    else await this.#mountFuse(record, target);
    learn({ imageDevice: mountAt(target)?.device ?? null });
    await checkAnswers(target);
    if (!isIndirect(record)) return;
    // Has no symlinks: it cannot lead out of the image.
    const shown = record.subdir === null ? target : `${target}${record.subdir}`;
    if (record.overlay === null) await bindMount(shown, record.mountpoint);
    else await this.#mountOverlay(record, record.overlay, shown);
    learn({ overlayDevice: mountAt(record.mountpoint)?.device ?? null });
    await checkAnswers(record.mountpoint);
  }

  async #mountOverlay(record: MountRecord, overlay: NonNullable<MountRecord['overlay']>, lower: string): Promise<void> {
    const { ownedDirectory, upper, work } = overlay;
    if (ownedDirectory !== null) await mkdir(ownedDirectory, { recursive: true, mode: 0o700 });
    await makeUpper(upper, lower);
    await mkdir(work, { recursive: true, mode: 0o700 });
    const { mountpoint, flags } = record;
    const volatile = ownedDirectory !== null;
    await mountOverlay({ source: sourceOf(record), lower, upper, work, target: mountpoint, flags, volatile });
  }

  /**
   * Unmounts what there is of the record. "detached": a lazy unmount has left it to its users. A mount of the fuse engine
   * may also live on in another mount namespace: `Connections` knows.
   * Throws MOUNT_BUSY, MOUNT_FAILED.
   */
  async detach(record: MountRecord, lazy: boolean): Promise<Unmounted> {
    const { blobs, run } = this.#options;
    const listed = record.imageDevice !== null && isListed(record.imageDevice);
    let result: Unmounted = 'absent';
    if (isIndirect(record)) result = await unmountAt(record.mountpoint, isVisible(record), lazy);
    // The overlay's own reference to the image is not in any namespace: the image's mount is never busy for its sake.
    const image = await unmountAt(imageTarget(record, run), isImage(record), lazy);
    if (!isIndirect(record)) result = image;
    if (record.engine === 'kernel') await blobs.release(record.id);
    else await this.#connectionEnds(record, listed);
    return result;
  }

  /** `listed`: the kernel had it in its list. That it has not any more is sooner known from there than from busy servers. */
  async #connectionEnds({ id, imageDevice, transport }: MountRecord, listed: boolean): Promise<void> {
    const { connections, natives } = this.#options;
    const ended = listed && imageDevice !== null && !isListed(imageDevice);
    if (transport === 'fuse-native') await natives.ends(id, ended ? EXIT_TIMEOUT_MS : END_TIMEOUT_MS);
    else if (ended) connections.ended(id);
    else await connections.ends(id, END_TIMEOUT_MS);
  }

  /** Removes what was made for a mount that is not used any more. */
  async clean(record: MountRecord): Promise<void> {
    const { log, run } = this.#options;
    const { id, mountpoint, ownsMountpoint, overlay } = record;
    for (const directory of [...(ownsMountpoint ? [mountpoint] : []), ...(isIndirect(record) ? [run.lower(id)] : [])]) {
      await rmdir(directory).catch((e: unknown) => {
        if (errnoOf(e) !== 'ENOENT') log.warn({ err: e, directory }, 'cannot remove a mountpoint');
      });
    }
    if (overlay === null) return;
    const doomed = overlay.ownedDirectory ?? overlay.work;
    await rm(doomed, { recursive: true, force: true }).catch((e: unknown) => {
      log.warn({ err: e, directory: doomed }, 'cannot remove the directory of an overlay');
    });
  }

  /** Ends a mount that nothing else ends: the last resort. */
  abort(record: MountRecord): void {
    if (record.transport === 'fuse-native') return this.#options.natives.abort(record.id);
    const device = mountAt(imageTarget(record, this.#options.run))?.device;
    this.#options.connections.abort(record.id, record.engine === 'fuse' ? device : undefined);
  }

  async #mountKernel(record: MountRecord, target: string): Promise<void> {
    const { blobs } = this.#options;
    await blobs.acquire(record.id);
    const devices = record.layers.map(({ slot }) => blobs.path(slot));
    await mountErofs({
      treePath: record.treePath,
      devices,
      target,
      flags: record.flags,
      idMap: record.idMap ?? undefined,
      readAhead: !record.layers.some(isLazy),
    });
  }

  #mountNative(record: MountRecord, target: string, learn: (facts: Partial<MountRecord>) => void): Promise<void> {
    const { flags, idMap, layers, treePath } = record;
    const mount = { target, source: sourceOf(record), subtype: SUBTYPE, allowOther: true, flags };
    const accesses = layers.flatMap(({ blob }) => (blob.kind === 'registry' ? [blob.access] : []));
    const typed = this.#options.fetcher.typedFor(accesses);
    const what = { mount, treePath, layers, idMap: idMap ?? undefined, typed };
    return this.#options.natives.open(record.id, what, (nativePid) => learn({ nativePid }));
  }

  async #mountFuse(record: MountRecord, target: string): Promise<void> {
    const slots = record.layers.map(({ slot }) => slot);
    await this.#options.connections.open(
      record.id,
      { target, source: sourceOf(record), subtype: SUBTYPE, allowOther: true, flags: record.flags },
      { kind: 'image', treePath: record.treePath, slots, idMap: record.idMap ?? undefined },
    );
    const device = mountAt(target)?.device;
    if (device !== undefined && !record.layers.some(isLazy)) raiseReadAhead(device);
  }
}

/** The root of an overlay has its upper directory's attributes: a new one gets the image's. */
async function makeUpper(upper: string, lower: string): Promise<void> {
  try {
    await mkdir(upper, { mode: 0o700 });
  } catch (e) {
    if (errnoOf(e) === 'EEXIST') return;
    throw toLaminaError(e, `Cannot make the upper directory ${upper}`);
  }
  const root = await stat(lower);
  await chown(upper, root.uid, root.gid);
  await chmod(upper, root.mode & 0o7777);
}

/** The mount's root can be looked at and listed. Throws MOUNT_FAILED and what the file system says. */
async function checkAnswers(mountpoint: string): Promise<void> {
  const look = async (): Promise<void> => {
    await statfs(mountpoint);
    const directory = await opendir(mountpoint);
    await directory.read();
    await directory.close();
  };
  try {
    await withDeadline(look(), VERIFY_TIMEOUT_MS, `Looking at the new mount ${mountpoint}`);
  } catch (e) {
    throw toLaminaError(e, `The new mount ${mountpoint} does not work`);
  }
}
