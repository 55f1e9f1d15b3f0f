/** A mount's record when it is asked for, and what is said of it to others. */
import type { PreparedImage } from '../image/prepare.js';
import type { ByteCounts } from '../mount/counters.js';
import type { EngineChoice } from '../mount/engine.js';
import { idMapOf } from '../mount/id-map.js';
import { formatPlatform } from '../oci/platform.js';
import type { MountRequest, MountStatus } from './protocol.js';
import type { MountRecord } from './records.js';

export interface NewMount extends Pick<MountRecord, 'id' | 'mountpoint' | 'layers' | 'overlay' | 'subdir'> {
  readonly request: MountRequest;
  readonly prepared: PreparedImage;
  readonly choice: EngineChoice;
}

/** Throws USAGE where the id ranges do not fit together. */
export function newRecord({ request, prepared, choice, ...place }: NewMount): MountRecord {
  const { image, treePath } = prepared;
  return {
    ...place,
    engine: choice.engine,
    transport: request.transport,
    nativePid: null,
    reason: choice.reason,
    reference: image.reference,
    manifestDigest: image.manifestDigest ?? null,
    configDigest: image.configDigest,
    platform: formatPlatform(image.platform),
    treePath,
    flags: request.flags,
    idMap: idMapOf(request.idMap?.uid ?? [], request.idMap?.gid ?? []) ?? null,
    ownsMountpoint: request.mountpoint === undefined,
    imageDevice: null,
    overlayDevice: null,
    created: Date.now(),
    negotiated: null,
    detached: false,
  };
}

/** `counts`: of each layer, over all mounts that share it. */
export function statusOf(record: MountRecord, counts: readonly ByteCounts[]): MountStatus {
  const sum = (field: keyof ByteCounts): number => counts.reduce((n, count) => n + count[field], 0);
  return {
    id: record.id,
    mountpoint: record.mountpoint,
    engine: record.engine,
    transport: record.engine === 'kernel' ? null : record.transport,
    reason: record.reason,
    reference: record.reference,
    manifestDigest: record.manifestDigest,
    configDigest: record.configDigest,
    platform: record.platform,
    layers: record.layers.length,
    upper: record.overlay?.upper ?? null,
    subdir: record.subdir,
    flags: record.flags,
    idMap: record.idMap,
    created: record.created,
    bytes: { served: sum('served'), verified: sum('verified'), filled: sum('filled') },
  };
}
