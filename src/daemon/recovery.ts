/**
 * What a new server does before it takes requests. Under a supervisor that has outlived the last server it takes over
 * the connections and goes on; what a whole daemon has left behind when it died is dead, and is cleared.
 *
 * Recovery looks at no mount of ours before the workers serve it, and a server must not: a process that is killed while
 * it waits for its own mount cannot end, so no other would be started.
 */
import { isDead, readMountInfo } from '../mount/mountinfo.js';
import { Attacher, imageTarget, isImage, type AttacherOptions } from './attach.js';
import { BlobMount } from './blob-mount.js';
import type { Broker } from './broker.js';
import { withDeadline } from './deadline.js';
import type { MountRecord, Records } from './records.js';
import type { Slots } from './slots.js';
import type { WorkerPool } from './worker-pool.js';

export interface RecoveryOptions extends AttacherOptions {
  readonly records: Records;
  readonly slots: Slots;
  readonly pool: WorkerPool;
  readonly broker: Broker;
}

const TIMEOUT_MS = 10_000;

/**
 * `held`: the supervisor's connections. Returns the mounts that live; what was unmounted meanwhile, or not wholly mounted
 * yet, is among them and the mount table's to notice.
 */
export async function recover(options: RecoveryOptions, held: ReadonlyMap<string, number>): Promise<MountRecord[]> {
  const { blobs, broker, connections, log, pool, slots } = options;
  const { records, unreadable } = options.records.all();
  if (unreadable.length > 0) log.warn({ files: unreadable }, 'records that cannot be read are passed over');
  const table = options.records.blobs();
  slots.restore([...(table?.layers ?? []), ...records.flatMap(({ layers }) => layers)], table?.nextSlot);
  for (const slot of new Set(slots.sources.map((source) => source.slot))) pool.addLayer(slots.places(slot));

  const blobsHeld = [...held.keys()].some((key) => BlobMount.isKey(key));
  const mounts = readMountInfo();
  const alive = records.filter((record) => {
    if (record.transport === 'fuse-native') return options.natives.adopt(record.id, record.nativePid ?? -1);
    if (record.engine === 'fuse') return held.has(record.id);
    const target = imageTarget(record, options.run);
    return blobsHeld && (record.detached || mounts.some((m) => m.mountpoint === target && isImage(record)(m)));
  });
  blobs.recover(
    held,
    alive.filter(({ engine, detached }) => engine === 'kernel' && !detached).map(({ id }) => id),
  );
  for (const { id, idMap, layers, negotiated, treePath } of alive) {
    const fd = held.get(id);
    if (fd === undefined) continue;
    connections.adopt(
      id,
      fd,
      { kind: 'image', treePath, slots: layers.map(({ slot }) => slot), idMap: idMap ?? undefined },
      negotiated ?? undefined,
    );
  }
  const known = new Set(alive.map(({ id }) => id));
  for (const key of held.keys()) {
    if (known.has(key) || BlobMount.isKey(key)) continue;
    log.warn({ connection: key }, 'ending a connection that has no record');
    await broker.close(key);
  }
  if (held.size === 0) await blobs.clearDead();
  for (const record of records) if (!known.has(record.id)) await clear(record, options);
  if (alive.length > 0) log.info({ mounts: [...known] }, 'serving on');
  return alive;
}

async function clear(record: MountRecord, options: RecoveryOptions): Promise<void> {
  const { log, records, run } = options;
  const { id, mountpoint, engine } = record;
  const attacher = new Attacher(options);
  try {
    log.warn({ id, mountpoint, engine }, 'clearing a mount that an earlier daemon has left');
    // Another daemon may have mounted the same image on the same place since; device numbers are used again.
    const target = imageTarget(record, run);
    const dead = engine === 'kernel' || (await withDeadline(isDead(target), TIMEOUT_MS, `Looking at ${target}`));
    if (dead || target !== mountpoint) await attacher.detach(record, true);
    await attacher.clean(record);
  } catch (e) {
    log.error({ err: e, id, mountpoint }, 'cannot clear a mount that an earlier daemon has left');
  }
  records.remove(id);
}
