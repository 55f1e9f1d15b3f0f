/**
 * The life of blobfs, the one FUSE mount under all mounts of the kernel engine: mounted on RUN/blobs for the first of
 * them, taken down some time after the last, as what the kernel has cached of the layers goes with it and the next container
 * may be of the same. The kernel says when it can be: an EROFS mount, even one that lives on in another mount namespace, holds
 * its layers' files open, and blobfs is busy.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Negotiated } from '../fuse/init.js';
import { LaminaError, errnoOf } from '../errors.js';
import { isDead, mountAt } from '../mount/mountinfo.js';
import { MNT_DETACH, UMOUNT_NOFOLLOW, umount2 } from '../native/mounts.js';
import type { Connections } from './connections.js';
import type { Logger } from './log.js';
import type { Records } from './records.js';
import type { RunDir } from './run-dir.js';
import type { Slots } from './slots.js';
import { Serial } from './serial.js';

const SUBTYPE = 'lamina-blobs';
const KEY_PREFIX = 'blobs-';
const END_TIMEOUT_MS = 1000;
const BUSY_TRIES = 10;
const BUSY_DELAY_MS = 30;
/** Every layer has a line in the records while blobfs lives. With more it is not kept. */
const KEPT_LAYERS_MAX = 1024;

export interface BlobMountOptions {
  readonly run: RunDir;
  readonly records: Records;
  readonly connections: Connections;
  readonly slots: Slots;
  readonly log: Logger;
  /** Slots that mounts of the fuse engine use. */
  readonly slotsInUse: () => ReadonlySet<number>;
  /** Whether something can only be cleared when blobfs has gone. */
  readonly isInTheWay: () => boolean;
  /** Milliseconds that it is kept after the last mount. */
  readonly keptMs: number;
}

export class BlobMount {
  readonly #options: BlobMountOptions;
  readonly #serial = new Serial();
  /** Ids of mounts that use blobfs, being made ones among them. */
  readonly #users = new Set<string>();
  /** Of every blobfs that is alive. */
  readonly #negotiated = new Map<string, Negotiated | null>();
  /** The connection of the one on RUN/blobs. */
  #current: string | undefined;
  /** Of performance.now(): when the last mount went. */
  #unusedSince = 0;
  #generation = 0;

  constructor(options: BlobMountOptions) {
    this.#options = options;
  }

  /** Some blobfs lives, if only in another mount namespace. */
  get alive(): boolean {
    return this.#negotiated.size > 0;
  }

  static isKey(key: string): boolean {
    return key.startsWith(KEY_PREFIX);
  }

  /** The file of a layer. */
  path(slot: number): string {
    return `${this.#options.run.blobs}/${slot}`;
  }

  /** Mounts blobfs if need be, with every known slot in it. Throws FUSE_UNAVAILABLE, MOUNT_FAILED. */
  acquire(user: string): Promise<void> {
    return this.#serial.run('', async () => {
      this.#users.add(user);
      try {
        if (this.#current === undefined) await this.#mount();
        this.save();
      } catch (e) {
        this.#users.delete(user);
        throw e;
      }
    });
  }

  release(user: string): Promise<void> {
    return this.#serial.run('', async () => {
      if (this.#users.delete(user)) this.#unusedSince = performance.now();
      if (!this.#isKept()) await this.#unmountIfUnused(false);
    });
  }

  /** Takes blobfs down if it is time, and the kernel has let go of it. */
  tidy(): Promise<void> {
    return this.#serial.run('', async () => {
      if (!this.#isKept()) await this.#unmountIfUnused(false);
    });
  }

  /** Takes blobfs down, with `force` whatever uses it; without, {@link alive} tells whether something did. */
  end(force: boolean): Promise<void> {
    return this.#serial.run('', async () => {
      this.#users.clear();
      await this.#unmountIfUnused(force);
    });
  }

  /** Writes down what a next server needs. */
  save(): void {
    const { records, slots } = this.#options;
    if (this.#negotiated.size === 0) {
      records.removeBlobs();
      return;
    }
    const connections = [...this.#negotiated].map(([key, negotiated]) => ({ key, negotiated }));
    records.putBlobs({ nextSlot: slots.next, layers: [...slots.sources], connections });
  }

  initialised(key: string, negotiated: Negotiated): void {
    if (!this.#negotiated.has(key)) return;
    this.#negotiated.set(key, negotiated);
    this.save();
  }

  gone(key: string): void {
    const { log, slots, slotsInUse } = this.#options;
    this.#negotiated.delete(key);
    if (this.#current === key) {
      this.#current = undefined;
      if (this.#users.size > 0)
        log.error({ mounts: [...this.#users] }, 'blobfs was ended from outside: these mounts cannot be read');
    }
    if (this.#negotiated.size === 0) slots.retain(slotsInUse());
    this.save();
  }

  /** Serves the blobfs connections that an earlier server has left. `users`: ids of the kernel engine's mounts. */
  recover(held: ReadonlyMap<string, number>, users: readonly string[]): void {
    const { connections, records, run } = this.#options;
    const known = new Map(records.blobs()?.connections.map(({ key, negotiated }) => [key, negotiated]));
    for (const [key, fd] of held) {
      if (!BlobMount.isKey(key)) continue;
      const negotiated = known.get(key) ?? null;
      this.#negotiated.set(key, negotiated);
      this.#generation = Math.max(this.#generation, Number(key.slice(KEY_PREFIX.length)));
      connections.adopt(key, fd, { kind: 'blobs' }, negotiated ?? undefined);
    }
    // The latest is the one on RUN/blobs; earlier ones live elsewhere.
    const latest = `${KEY_PREFIX}${this.#generation}`;
    if (this.#negotiated.has(latest) && mountAt(run.blobs)?.type === `fuse.${SUBTYPE}`) this.#current = latest;
    for (const user of users) this.#users.add(user);
    this.#unusedSince = performance.now();
    this.save();
  }

  /** Clears what a dead daemon has left on RUN/blobs. */
  async clearDead(): Promise<void> {
    const { log, run } = this.#options;
    while (mountAt(run.blobs)?.type === `fuse.${SUBTYPE}` && (await isDead(run.blobs))) {
      log.warn({ mountpoint: run.blobs }, 'clearing the blobfs of a dead daemon');
      await umount2(run.blobs, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
  }

  async #mount(): Promise<void> {
    const { connections, run } = this.#options;
    await this.clearDead();
    const key = `${KEY_PREFIX}${++this.#generation}`;
    this.#negotiated.set(key, null);
    this.save();
    try {
      const mount = { target: run.blobs, source: 'lamina', subtype: SUBTYPE, allowOther: false };
      await connections.open(key, mount, { kind: 'blobs' });
    } catch (e) {
      this.#negotiated.delete(key);
      this.save();
      throw e;
    }
    this.#current = key;
  }

  /** Unless it is told to {@link end}. */
  #isKept(): boolean {
    const { isInTheWay, keptMs, slots } = this.#options;
    const isNew = performance.now() - this.#unusedSince < keptMs;
    return isNew && slots.sources.length <= KEPT_LAYERS_MAX && !isInTheWay();
  }

  async #unmountIfUnused(force: boolean): Promise<void> {
    const { connections, log, run } = this.#options;
    const key = this.#current;
    if (key === undefined || this.#users.size > 0) return;
    try {
      await unmountSoon(run.blobs);
    } catch (e) {
      if (errnoOf(e) === 'EBUSY' && !force) return;
      if (errnoOf(e) === 'EBUSY') await umount2(run.blobs, MNT_DETACH | UMOUNT_NOFOLLOW);
      else if (errnoOf(e) !== 'EINVAL')
        throw new LaminaError('MOUNT_FAILED', `Cannot unmount blobfs: ${String(e)}`, { cause: e });
    }
    this.#current = undefined;
    if (!(await connections.ends(key, END_TIMEOUT_MS)))
      log.info('blobfs lives on in another mount namespace or under a detached mount');
  }
}

/** The kernel lets go of an ended EROFS mount's files a moment after it has ended, when reads were under way. */
async function unmountSoon(target: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await umount2(target, UMOUNT_NOFOLLOW);
    } catch (e) {
      if (errnoOf(e) !== 'EBUSY' || tries === BUSY_TRIES) throw e;
      await delay(BUSY_DELAY_MS);
    }
  }
}
