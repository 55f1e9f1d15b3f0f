/** What an ordinary user needs for mounts and containers: each piece by its name. */
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { errnoOf } from '../errors.js';
import { findExecutable } from '../mount/executable.js';
import { userAllowOther } from '../mount/fusermount.js';
import { currentUser, ownIds } from '../mount/subordinate-ids.js';
import type { Check } from './doctor-checks.js';

const TIMEOUT_MS = 5000;
const SET_USER_ID = 0o4000;

export function checkRootless(env: NodeJS.ProcessEnv): Check[] {
  return [fusermount(env), allowOther(), subordinateIds(), idMappers(env), userNamespaces(), namespacedOverlay()];
}

function fusermount(env: NodeJS.ProcessEnv): Check {
  const name = 'fusermount3';
  const path = findExecutable('fusermount3', env) ?? findExecutable('fusermount', env);
  if (path === undefined) {
    return { name, state: 'fail', value: 'not installed', meaning: 'nothing can be mounted: apt-get install fuse3' };
  }
  const { mode, uid } = statSync(path);
  const fits = (mode & SET_USER_ID) !== 0 && uid === 0;
  return {
    name,
    state: fits ? 'ok' : 'fail',
    value: fits ? path : `${path} is not set-user-ID root`,
    meaning: fits ? 'mounts are made through it' : `nothing can be mounted: as root, chmod u+s ${path}`,
  };
}

function allowOther(): Check {
  const allowed = userAllowOther();
  return {
    name: 'user_allow_other',
    state: 'ok',
    value: allowed ? 'in /etc/fuse.conf' : 'not in /etc/fuse.conf',
    meaning: allowed
      ? 'others may look into your mounts'
      : 'only you can look into your mounts; containers are not affected',
  };
}

function subordinateIds(): Check {
  const { map, subordinate } = ownIds(currentUser());
  const count = map.uid.reduce((n, { size }) => n + size, 0) - 1;
  return {
    name: 'subordinate ids',
    state: subordinate ? 'ok' : 'warn',
    value: subordinate ? `${count} in /etc/subuid` : 'none in /etc/subuid and /etc/subgid',
    meaning: subordinate
      ? "the image's other users are these"
      : "the image's other users are nobody: as root, usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
  };
}

function idMappers(env: NodeJS.ProcessEnv): Check {
  const missing = ['newuidmap', 'newgidmap'].filter((program) => findExecutable(program, env) === undefined);
  return {
    name: 'newuidmap',
    state: missing.length === 0 ? 'ok' : 'warn',
    value: missing.length === 0 ? 'installed' : `no ${missing.join(' and ')}`,
    meaning: missing.length === 0 ? 'maps them' : 'containers have one user only: apt-get install uidmap',
  };
}

/** Settings that forbid them, with the value that does. */
const FORBIDDING = [
  ['kernel.unprivileged_userns_clone', '0'],
  ['user.max_user_namespaces', '0'],
  ['kernel.apparmor_restrict_unprivileged_userns', '1'],
] as const;

function userNamespaces(): Check {
  const { error, status, stderr } = spawnSync('unshare', ['-U', 'true'], { encoding: 'utf8', timeout: TIMEOUT_MS });
  const name = 'user namespaces';
  if (error === undefined && status === 0)
    return { name, state: 'ok', value: 'can be made', meaning: 'containers can be run' };
  if (errnoOf(error) === 'ENOENT')
    return { name, state: 'warn', value: 'no unshare', meaning: 'no containers: install util-linux' };
  const setting = FORBIDDING.find(([key, value]) => sysctl(key) === value);
  return {
    name,
    state: 'warn',
    value: error?.message ?? stderr.trim(),
    meaning: `no containers${setting === undefined ? '' : `: as root, sysctl ${setting[0]}=${setting[1] === '0' ? '1' : '0'}`}`,
  };
}

/** Without an upper directory nothing is written anywhere. */
const OVERLAY = 'mount -n -t overlay -o lowerdir=/etc:/usr,userxattr overlay /tmp';

function namespacedOverlay(): Check {
  const { status } = spawnSync('unshare', ['-U', '-r', '-m', 'sh', '-c', OVERLAY], {
    stdio: 'ignore',
    timeout: TIMEOUT_MS,
  });
  return {
    name: 'overlay in them',
    state: status === 0 ? 'ok' : 'warn',
    value: status === 0 ? 'overlayfs' : 'refused',
    meaning: status === 0 ? 'containers have a writable root' : 'only run --read-only: writable roots need Linux 5.11',
  };
}

function sysctl(key: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${key.replaceAll('.', '/')}`, 'utf8').trim();
  } catch {
    return undefined;
  }
}
