/**
 * User and group ids of an image as others on the host: ranges as user_namespaces(7) and podman's --uidmap have them. An
 * id that no range covers is shown as the overflow id, as the kernel does (/proc/sys/kernel/overflowuid).
 */
import { LaminaError } from '../errors.js';

/** `size` ids of the image from `container` on are the host's from `host` on. */
export interface IdRange {
  readonly container: number;
  readonly host: number;
  readonly size: number;
}

export interface IdMap {
  readonly uid: readonly IdRange[];
  readonly gid: readonly IdRange[];
}

/** nobody and nogroup: what an id is where it has no other. */
export const OVERFLOW_ID = 65_534;

/** 2^32 - 1 is no id: it is (uid_t) -1 of chown(2). */
const ID_LIMIT = 0xffff_ffff;
/** UID_GID_MAP_MAX_EXTENTS of linux/user_namespace.h. */
const RANGES_MAX = 340;

/** `CONTAINER:HOST:SIZE`, decimal. Throws USAGE. */
export function parseIdRange(text: string): IdRange {
  const [container, host, size] = (/^\d{1,10}:\d{1,10}:\d{1,10}$/.test(text) ? text.split(':') : []).map(Number);
  if (container === undefined || host === undefined || size === undefined || size === 0) {
    throw new LaminaError('USAGE', `Cannot read the id range ${JSON.stringify(text)}`, {
      hint: 'A range is CONTAINER:HOST:SIZE, three numbers: 0:100000:65536.',
    });
  }
  if (container + size > ID_LIMIT || host + size > ID_LIMIT)
    throw new LaminaError('USAGE', `The id range ${text} goes beyond the largest id, ${ID_LIMIT - 1}`);
  return { container, host, size };
}

/** The host's id for one of the image. */
export function mapId(ranges: readonly IdRange[], id: number): number {
  for (const { container, host, size } of ranges) {
    if (id >= container && id - container < size) return id - container + host;
  }
  return OVERFLOW_ID;
}

/**
 * The map that ranges of users, of groups or of both make: those of the one serve for the other where it has none, as
 * podman has it. Undefined where there are none. Throws USAGE.
 */
export function idMapOf(uid: readonly IdRange[], gid: readonly IdRange[]): IdMap | undefined {
  if (uid.length === 0 && gid.length === 0) return undefined;
  const map = { uid: uid.length === 0 ? gid : uid, gid: gid.length === 0 ? uid : gid };
  checkRanges(map.uid);
  checkRanges(map.gid);
  return map;
}

/** Throws USAGE where two ranges share an id of the image or of the host, or there are too many. */
function checkRanges(ranges: readonly IdRange[]): void {
  if (ranges.length > RANGES_MAX) throw new LaminaError('USAGE', `More than ${RANGES_MAX} id ranges`);
  for (const side of ['container', 'host'] as const) {
    const sorted = [...ranges].sort((a, b) => a[side] - b[side]);
    for (const [i, range] of sorted.entries()) {
      const before = sorted[i - 1];
      if (before !== undefined && before[side] + before.size > range[side])
        throw new LaminaError('USAGE', `Two id ranges share the ${side} id ${range[side]}`);
    }
  }
}
