/**
 * What an ordinary user's container has different: what `runc spec --rootless` changes, but for the network, which stays
 * the container's own. Ids are the container's; those that its user namespace does not map do not exist in it.
 */
import { LaminaError } from '../errors.js';
import type { RuntimeMount, RuntimeSpec } from './defaults.js';

/** `size` ids of the container from `container` on are the host's from `host` on (user_namespaces(7)). */
interface IdRange {
  readonly container: number;
  readonly host: number;
  readonly size: number;
}

export interface Rootless {
  readonly map: { readonly uid: readonly IdRange[]; readonly gid: readonly IdRange[] };
  /** "new": the runtime makes the user namespace. "inside": it is started in one. */
  readonly namespace: 'new' | 'inside';
}

/** Throws PERMISSION_DENIED where the container's user has an id that is not mapped. */
export function rootlessConfig(config: RuntimeSpec, { map, namespace }: Rootless): RuntimeSpec {
  const { uid, gid, additionalGids = [] } = config.process.user;
  if (!isMapped(map.uid, uid) || !isMapped(map.gid, gid)) throw unmapped(`${uid}:${gid}`);
  const groups = additionalGids.filter((id) => isMapped(map.gid, id));
  const { namespaces, maskedPaths, readonlyPaths } = config.linux;
  return {
    ...config,
    process: { ...config.process, user: { uid, gid, ...(groups.length === 0 ? {} : { additionalGids: groups }) } },
    mounts: mountsFor(config.mounts, { map, namespace }),
    linux: {
      ...(namespace === 'inside' ? {} : { uidMappings: mappings(map.uid), gidMappings: mappings(map.gid) }),
      namespaces: namespace === 'inside' ? namespaces : [...namespaces, { type: 'user' }],
      maskedPaths,
      readonlyPaths,
    },
  };
}

/** The host's /sys: a new one may not be mounted, inside cgroups neither. The group of terminals may not exist. */
function mountsFor(mounts: readonly RuntimeMount[], { map: { gid }, namespace }: Rootless): RuntimeMount[] {
  const sys = {
    destination: '/sys',
    type: 'none',
    source: '/sys',
    options: ['rbind', 'nosuid', 'noexec', 'nodev', 'ro'],
  };
  return mounts
    .filter(({ type }) => namespace === 'new' || type !== 'cgroup')
    .map((mount) => (mount.type === 'sysfs' ? sys : mount))
    .map((mount) => {
      if (mount.type !== 'devpts' || mount.options === undefined) return mount;
      const fits = (option: string): boolean => !option.startsWith('gid=') || isMapped(gid, Number(option.slice(4)));
      return { ...mount, options: mount.options.filter(fits) };
    });
}

function mappings(ranges: readonly IdRange[]): { containerID: number; hostID: number; size: number }[] {
  return ranges.map(({ container, host, size }) => ({ containerID: container, hostID: host, size }));
}

function isMapped(ranges: readonly IdRange[], id: number): boolean {
  return ranges.some(({ container, size }) => id >= container && id < container + size);
}

function unmapped(user: string): LaminaError {
  return new LaminaError('PERMISSION_DENIED', `Cannot run as user ${user}: you have no subordinate ids for it`, {
    hint: 'As root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER; or choose another user.',
  });
}
