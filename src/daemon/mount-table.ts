/**
 * The mounts of this daemon: making, listing and ending them. What is done to one mountpoint is done one after the
 * other. A mount's record is written before the kernel is told of it and removed after the kernel has let go of it.
 */
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { LaminaError, toLaminaError } from '../errors.js';
import type { Negotiated } from '../fuse/init.js';
import type { ByteCounts } from '../mount/counters.js';
import { chooseEngine } from '../mount/engine.js';
import type { LayerSource } from '../mount/layer-readers.js';
import { readMountInfo } from '../mount/mountinfo.js';
import type { Fetcher } from '../source/fetch/fetcher.js';
import type { Store } from '../store/store.js';
import { Attacher, isVisible } from './attach.js';
import type { Background } from './background.js';
import type { BlobMount } from './blob-mount.js';
import type { Broker } from './broker.js';
import type { Connections } from './connections.js';
import { Images } from './images.js';
import type { Logger } from './log.js';
import { contentOf } from './mount-content.js';
import { newRecord, statusOf } from './mount-record.js';
import { checkMountpoint, realMountpoint, refuseIfUsed } from './mountpoint.js';
import { checkUpper, overlayPlace } from './overlay-place.js';
import type { NativeServers } from './native-servers.js';
import { checkOutside } from './own-mounts.js';
import { findSubdir } from './subdir.js';
import type { MountContent, Mounted, MountRequest, MountStatus, PrepareEvent } from './protocol.js';
import { allowedRequest } from './rootless.js';
import type { MountRecord, Records } from './records.js';
import type { RunDir } from './run-dir.js';
import { Serial } from './serial.js';
import type { Slots } from './slots.js';
import { UnderWay } from './under-way.js';

export interface MountTableOptions {
  readonly run: RunDir;
  readonly store: Store;
  readonly records: Records;
  readonly slots: Slots;
  readonly blobs: BlobMount;
  readonly broker: Broker;
  readonly connections: Connections;
  readonly natives: NativeServers;
  readonly fetcher: Fetcher;
  readonly background: Background;
  readonly addLayer: (places: readonly LayerSource[]) => void;
  readonly restLayers: (slots: readonly number[]) => void;
  readonly bytes: (slot: number) => ByteCounts;
  readonly log: Logger;
}

type OnEvent = (event: PrepareEvent) => void;

interface Made {
  readonly record: MountRecord;
  readonly config: Mounted['config'];
}

export class MountTable {
  readonly #options: MountTableOptions;
  readonly #attacher: Attacher;
  readonly #serial = new Serial();
  readonly #images: Images;
  /** By id; those that are {@link MountRecord.detached} too. */
  readonly #mounts = new Map<string, MountRecord>();
  /** By id: recorded and known to the kernel, perhaps, but not yet to be seen. */
  readonly #making = new Map<string, MountRecord>();
  readonly #underWay = new UnderWay();

  constructor(options: MountTableOptions) {
    this.#options = options;
    this.#attacher = new Attacher(options);
    const { store, fetcher, background } = options;
    this.#images = new Images({
      store,
      fetcher,
      onlyWhatIsRead: () => background.paused,
      check: async ({ layers }) => {
        const blobs = layers.flatMap(({ blob }) => (blob.kind === 'file' ? [blob.path] : []));
        await checkOutside(blobs, [...this.#mounts.values(), ...this.#making.values()]);
      },
    });
  }

  /** Takes over a mount that an earlier server has made. */
  adopt(record: MountRecord): void {
    this.#mounts.set(record.id, record);
    this.#changed();
  }

  /** Slots that mounts need. */
  slotsInUse(): ReadonlySet<number> {
    return new Set(this.#sources().map(({ slot }) => slot));
  }

  /** Whether a record can only be forgotten when no blobfs lives any more: what it is of may be in use where we cannot see it. */
  waitsForBlobs(): boolean {
    return [...this.#mounts.values()].some(isHeldByBlobs);
  }

  /** Of all mounts, being made ones among them. */
  #sources(): LayerSource[] {
    return [...this.#mounts.values(), ...this.#making.values()].flatMap(({ layers }) => layers);
  }

  async list(): Promise<MountStatus[]> {
    await this.tidy();
    return this.#visible().map((record) => this.#status(record));
  }

  async contents(): Promise<MountContent[]> {
    await this.tidy();
    const records = this.#visible();
    const paths = [...new Set(records.flatMap(({ layers }) => layers.map(({ blob }) => blob.path)))];
    const counts = await this.#options.fetcher.needed(paths);
    const needed = new Map(paths.map((path, i) => [path, counts[i] ?? 0]));
    return records.map((record) => contentOf(record, needed));
  }

  /**
   * Mounts an image. Aborting `signal` undoes what was done.
   * Throws what the reference, the image, the mountpoint, the engine and the runtime's options make impossible.
   */
  async mount(request: MountRequest, onEvent: OnEvent, signal: AbortSignal): Promise<Mounted> {
    const id = randomBytes(6).toString('hex');
    const mountpoint = request.mountpoint ?? this.#options.run.mnt(id);
    const key = await realMountpoint(mountpoint).catch(() => mountpoint);
    const { record, config } = await this.#underWay.run(signal, (both) =>
      this.#serial.run(key, () => this.#mount(id, request, onEvent, both)),
    );
    return { mount: this.#status(record), config };
  }

  /** `target`: a mountpoint, an id, a reference or "*". Throws MOUNT_NOT_FOUND, MOUNT_BUSY, MOUNT_FAILED. */
  async unmount(target: string, lazy: boolean): Promise<MountStatus[]> {
    await this.tidy();
    const real = target.startsWith('/') ? await realMountpoint(target).catch(() => target) : target;
    const found =
      target === '*'
        ? this.#listed()
        : this.#visible().filter(({ id, mountpoint, reference }) =>
            [id, mountpoint, reference].some((x) => x === target || x === real),
          );
    if (found.length === 0 && target !== '*') {
      throw new LaminaError('MOUNT_NOT_FOUND', `Nothing of ours is mounted as ${target}`, {
        hint: '`lamina mounts` lists what is.',
        details: { target },
      });
    }
    const done: MountStatus[] = [];
    let failure: unknown;
    // The latest first: mounts may lie in mounts.
    for (const record of found.reverse()) {
      const status = this.#status(record);
      try {
        if (await this.#serial.run(record.mountpoint, () => this.#unmount(record.id, lazy))) done.push(status);
      } catch (e) {
        failure ??= e;
      }
    }
    if (failure !== undefined) throw toLaminaError(failure);
    return done;
  }

  /**
   * Ends every mount and blobfs. Without `force` throws MOUNT_BUSY when one is in use, before any is ended or given up, or when
   * containers live on in images that are unmounted here; mounts can then be made again.
   */
  async stop(force: boolean): Promise<void> {
    this.#underWay.refuse(true);
    try {
      // Before anything is given up: a stop that is refused changes nothing.
      if (!force) for (const { mountpoint } of this.#listed()) await refuseIfUsed(mountpoint);
      await this.#underWay.cancel();
      await this.unmount('*', force);
      await this.#options.blobs.end(force);
      if (!force && (this.#options.blobs.alive || this.#mounts.size > 0)) throw stillUsed();
    } catch (e) {
      this.#underWay.refuse(false);
      throw e;
    }
  }

  /** Takes notice of what others have unmounted. */
  async tidy(): Promise<void> {
    const visible = new Set(this.#visible());
    for (const record of this.#listed()) {
      // Where somebody makes or ends a mount, which may take long, the next look will tell.
      if (!visible.has(record) && !this.#serial.busy(record.mountpoint)) await this.#dropIfUnmounted(record.id);
    }
    await this.#options.blobs.tidy();
    if (this.#options.blobs.alive) return;
    for (const record of this.#mounts.values()) if (isHeldByBlobs(record)) await this.#forget(record);
  }

  initialised(id: string, negotiated: Negotiated): void {
    this.#learn(id, { negotiated });
  }

  /** The kernel has ended the connection of a mount of the fuse engine. */
  async gone(id: string): Promise<void> {
    const record = this.#mounts.get(id);
    if (record?.detached === true) await this.#serial.run(record.mountpoint, () => this.#forget(record));
    else if (record !== undefined) await this.#dropIfUnmounted(id);
  }

  #listed(): MountRecord[] {
    return [...this.#mounts.values()].filter(({ detached }) => !detached);
  }

  /** Those that {@link tidy} would let be. */
  #visible(): MountRecord[] {
    const mounts = readMountInfo();
    return this.#listed().filter((record) =>
      mounts.some((m) => m.mountpoint === record.mountpoint && isVisible(record)(m)),
    );
  }

  #learn(id: string, facts: Partial<MountRecord>): void {
    for (const records of [this.#mounts, this.#making]) {
      const before = records.get(id);
      if (before === undefined) continue;
      const record = { ...before, ...facts };
      records.set(id, record);
      this.#options.records.put(record);
    }
  }

  async #mount(id: string, asked: MountRequest, onEvent: OnEvent, signal: AbortSignal): Promise<Made> {
    const { log, store } = this.#options;
    const { request, warnings } = allowedRequest(asked);
    const wanted = request.mountpoint === undefined ? undefined : await checkMountpoint(request.mountpoint, log);
    signal.throwIfAborted();
    const { runtime } = request;
    const prepared = await this.#images.prepare(request, { configures: runtime !== undefined }, onEvent, signal);
    for (const message of warnings) onEvent({ type: 'warning', message });
    signal.throwIfAborted();
    const configuring =
      runtime === undefined ? Promise.resolve(null) : this.#images.configure(prepared, runtime, onEvent, signal);
    // Where mounting fails, that is what is said.
    configuring.catch(() => undefined);
    const subdir = findSubdir(prepared, request.subdir);
    if (!this.#options.broker.supervised) {
      onEvent({ type: 'warning', message: 'the supervisor has died: this mount ends when the server does' });
    }
    const choice = chooseEngine(request.engine, prepared.layers.length, request.transport);
    const mountpoint = wanted ?? this.#options.run.mnt(id);
    const overlay = await overlayPlace(id, request, store);
    const layers = this.#options.slots.assign(prepared.layers, request.verify);
    const record = newRecord({ id, mountpoint, request, prepared, choice, layers, overlay, subdir });
    await checkUpper(record, [...this.#mounts.values(), ...this.#making.values()]);
    if (record.ownsMountpoint) await mkdir(mountpoint, { mode: 0o755 });
    const mounted = await this.#attach(record, request.engine === 'auto', signal);
    log.info(
      { id, mountpoint, reference: record.reference, engine: mounted.engine, reason: mounted.reason },
      'mounted',
    );
    try {
      const config = await configuring;
      signal.throwIfAborted();
      return { record: mounted, config };
    } catch (e) {
      await this.#unmount(id, true);
      throw e;
    }
  }

  /** Mounts by the record's engine; a kernel that refuses when nobody has asked for it gives way to the fuse engine. */
  async #attach(record: MountRecord, mayFallBack: boolean, signal: AbortSignal): Promise<MountRecord> {
    const { addLayer, log, records, slots } = this.#options;
    const { id } = record;
    // The end of another mount may have taken them along meanwhile.
    slots.restore(record.layers);
    for (const { slot } of record.layers) addLayer(slots.places(slot));
    records.put(record);
    this.#making.set(id, record);
    try {
      await this.#attacher.attach(record, (facts) => this.#learn(id, facts));
      signal.throwIfAborted();
      const made = this.#making.get(id) ?? record;
      this.#making.delete(id);
      this.#mounts.set(id, made);
      this.#changed();
      return made;
    } catch (e) {
      const again = mayFallBack && record.engine === 'kernel' && !signal.aborted;
      await this.#undo(this.#making.get(id) ?? record, again);
      if (!again) throw e;
      const { message } = toLaminaError(e);
      log.warn({ id, error: message }, 'the kernel engine failed; taking the fuse engine');
      return this.#attach({ ...record, engine: 'fuse', reason: `our FUSE server: ${message}` }, false, signal);
    }
  }

  async #undo(record: MountRecord, keepMountpoint: boolean): Promise<void> {
    const { log } = this.#options;
    try {
      await this.#attacher.detach(record, true);
      if (this.#isServed(record.id)) this.#attacher.abort(record);
    } catch (e) {
      log.error({ err: e, id: record.id }, 'undoing a mount failed');
    }
    await this.#forget(keepMountpoint ? { ...record, ownsMountpoint: false } : record);
  }

  /** False when somebody else was faster. */
  async #unmount(id: string, lazy: boolean): Promise<boolean> {
    const { log } = this.#options;
    const record = this.#mounts.get(id);
    if (record === undefined || record.detached) return false;
    const how = await this.#attacher.detach(record, lazy);
    log.info({ id, mountpoint: record.mountpoint, how }, 'unmounted');
    if (record.engine === 'fuse' && this.#isServed(id)) {
      log.info({ id }, 'the image is still in use in a detached mount or another mount namespace: it is served on');
      this.#learn(id, { detached: true });
    } else if (how === 'detached' && record.overlay !== null) this.#learn(id, { detached: true });
    else await this.#forget(record);
    return true;
  }

  #dropIfUnmounted(id: string): Promise<void> {
    const mountpoint = this.#mounts.get(id)?.mountpoint ?? '';
    return this.#serial.run(mountpoint, async () => {
      const record = this.#mounts.get(id);
      if (record === undefined || record.detached) return;
      const here = readMountInfo().filter((m) => m.mountpoint === record.mountpoint);
      if (here.some(isVisible(record))) {
        if (record.engine === 'kernel' || this.#isServed(id)) return;
        this.#options.log.warn(
          { id, mountpoint: record.mountpoint },
          'the connection of a mount was aborted from outside',
        );
      } else this.#options.log.info({ id, mountpoint: record.mountpoint }, 'somebody else has unmounted');
      await this.#unmount(id, true);
    });
  }

  /** Of the fuse engine. */
  #isServed(id: string): boolean {
    return this.#options.connections.has(id) || this.#options.natives.has(id);
  }

  async #forget(record: MountRecord): Promise<void> {
    await this.#attacher.clean(record);
    this.#mounts.delete(record.id);
    this.#making.delete(record.id);
    this.#options.records.remove(record.id);
    this.#changed();
    const { addLayer, blobs, restLayers, slots } = this.#options;
    const left = this.#sources();
    const used = new Set(left.map(({ slot }) => slot));
    for (const { slot } of record.layers) if (slots.keepPlaces(slot, left)) addLayer(slots.places(slot));
    restLayers(record.layers.map(({ slot }) => slot).filter((slot) => !used.has(slot)));
    // What the kernel engine has mounted in another namespace is in no record: it asks for slots while blobfs lives.
    if (!blobs.alive) slots.retain(used);
  }

  #changed(): void {
    this.#options.background.update([...this.#mounts.values()].flatMap(({ layers }) => layers));
  }

  #status(record: MountRecord): MountStatus {
    return statusOf(
      record,
      record.layers.map(({ slot }) => this.#options.bytes(slot)),
    );
  }
}

function isHeldByBlobs({ detached, engine }: MountRecord): boolean {
  return detached && engine === 'kernel';
}

function stillUsed(): LaminaError {
  const message = 'Cannot stop the daemon: images that are unmounted here are in use in containers or detached mounts';
  return new LaminaError('MOUNT_BUSY', message, {
    hint: 'Stop these first, or stop the daemon with --force: what they read then fails.',
  });
}
