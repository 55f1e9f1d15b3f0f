/** What Lamina needs of a machine: each check tries one thing and says what its outcome means. None changes anything. */
import { spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readFileSync, statfsSync, existsSync } from 'node:fs';
import { release } from 'node:os';
import { dirname } from 'node:path';
import { createDecoder } from '../compress/index.js';
import { RunDir, SOCKET_PATH_MAX } from '../daemon/run-dir.js';
import { errnoOf } from '../errors.js';
import { kernelEngineObstacle } from '../mount/engine.js';
import { findExecutable } from '../mount/executable.js';
import { loadFuseNative } from '../mount/fuse-native.js';
import { isOrdinaryUser } from '../mount/subordinate-ids.js';
import { eventfd } from '../native/libc.js';
import { checkRootless } from './doctor-rootless.js';
import { formatBytes } from './text.js';

/** `warn`: something works less well or not at all, and the rest does; `fail`: nothing can be mounted. */
export type CheckState = 'ok' | 'warn' | 'fail';

export interface Check {
  readonly name: string;
  readonly state: CheckState;
  /** What was found. */
  readonly value: string;
  /** What it means, or what to do. */
  readonly meaning: string;
}

export interface Machine {
  readonly store: string;
  readonly run: string;
  readonly env: NodeJS.ProcessEnv;
}

export function checkMachine({ store, run, env }: Machine): Check[] {
  return [
    node(),
    user(),
    kernel(),
    fuseDevice(),
    fusePages(),
    fuseUring(),
    kernelEngine(),
    overlay(),
    koffi(),
    decoder('zlib', 'gzip'),
    decoder('zstd', 'zstd'),
    ...(isOrdinaryUser() ? checkRootless(env) : []),
    fuseNative(),
    runtimes(env),
    directory('store', store, 'indexes and cached data are kept here'),
    directory('run', run, 'socket, log and records of the daemon'),
    socketPath(run),
    openFiles(),
  ];
}

function node(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const fits = (major === 20 && minor >= 19) || major >= 22;
  return {
    name: 'node',
    state: fits ? 'ok' : 'fail',
    value: process.version,
    meaning: fits ? 'supported' : 'Lamina needs Node 20.19 or later, or 22 or later',
  };
}

function user(): Check {
  const uid = process.geteuid?.() ?? 0;
  return uid === 0
    ? { name: 'root', state: 'ok', value: 'uid 0', meaning: 'may mount' }
    : {
        name: 'root',
        state: 'ok',
        value: `uid ${uid}`,
        meaning: 'mounts by fusermount3, containers in a user namespace: see below',
      };
}

/** FUSE_NOTIFY_RESEND came with Linux 6.9. */
const RESEND = [6, 9] as const;

function kernel(): Check {
  const [major = 0, minor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  const resends = major > RESEND[0] || (major === RESEND[0] && minor >= RESEND[1]);
  return {
    name: 'kernel',
    state: resends ? 'ok' : 'warn',
    value: `Linux ${release()}`,
    meaning: resends
      ? 'readers survive a crash of the server'
      : 'reads that a crashing server was answering are lost; Linux 6.9 and later send them again',
  };
}

function fuseDevice(): Check {
  const name = 'fuse device';
  try {
    closeSync(openSync('/dev/fuse', constants.O_RDWR));
    return { name, state: 'ok', value: '/dev/fuse', meaning: 'can be opened' };
  } catch (e) {
    const code = errnoOf(e) ?? String(e);
    const advice = {
      ENOENT: 'modprobe fuse; in a container: --device /dev/fuse',
      ENODEV: 'modprobe fuse',
      EACCES: 'only root may open it here: as root, chmod 0666 /dev/fuse (udev does that elsewhere)',
      EPERM: 'the container may not use the device: --device /dev/fuse',
    }[code];
    return { name, state: 'fail', value: code, meaning: advice ?? 'it cannot be opened, and nothing can be mounted' };
  }
}

/** Pages of 4096 bytes; a request of 1 MiB has 256 of them. */
const PAGES_WANTED = 256;

function fusePages(): Check {
  const name = 'fuse request size';
  const pages = readNumber('/proc/sys/fs/fuse/max_pages_limit');
  if (pages === undefined) {
    return { name, state: 'ok', value: 'no limit set', meaning: 'the kernel takes requests of up to 1 MiB' };
  }
  const enough = pages >= PAGES_WANTED;
  return {
    name,
    state: enough ? 'ok' : 'warn',
    value: `${pages} pages`,
    meaning: enough ? 'large reads' : `reads are slow: sysctl fs.fuse.max_pages_limit=${PAGES_WANTED}`,
  };
}

function fuseUring(): Check {
  const text = readText('/sys/module/fuse/parameters/enable_uring')?.trim();
  const value = text === undefined ? 'unknown to this kernel' : text === 'Y' ? 'enabled' : 'disabled';
  return {
    name: 'fuse over io_uring',
    state: 'ok',
    value,
    meaning: 'not used: a crash of the server would lose requests',
  };
}

function kernelEngine(): Check {
  const obstacle = kernelEngineObstacle();
  return {
    name: 'kernel engine',
    state: obstacle === undefined ? 'ok' : 'warn',
    value: obstacle ?? 'EROFS',
    meaning:
      obstacle === undefined ? 'the kernel reads the tree itself' : 'mounts use the fuse engine, which is slower',
  };
}

function overlay(): Check {
  const has = /\boverlay$/m.test(readText('/proc/filesystems') ?? '');
  return {
    name: 'overlay',
    state: has ? 'ok' : 'warn',
    value: has ? 'overlayfs' : 'not in the kernel',
    meaning: has ? 'writable mounts' : 'no writable mounts (mount --rw, run): modprobe overlay',
  };
}

function koffi(): Check {
  return attempt('koffi', 'native calls work', () => closeSync(eventfd()));
}

function decoder(name: string, compression: 'gzip' | 'zstd'): Check {
  return attempt(name, `${compression} layers can be read`, () => createDecoder(compression).close());
}

function attempt(name: string, meaning: string, what: () => void): Check {
  try {
    what();
    return { name, state: 'ok', value: 'loaded', meaning };
  } catch (e) {
    const hint =
      e instanceof Error && 'hint' in e && typeof e.hint === 'string' ? e.hint : 'npm ci installs what is missing';
    return { name, state: 'fail', value: e instanceof Error ? e.message : String(e), meaning: hint };
  }
}

/** Optional: it is no fault that it is not there. */
function fuseNative(): Check {
  const name = 'fuse-native';
  try {
    loadFuseNative();
    return { name, state: 'ok', value: 'loaded', meaning: 'mount --transport fuse-native works' };
  } catch (e) {
    return {
      name,
      state: 'ok',
      value: e instanceof Error ? e.message : String(e),
      meaning: 'only --transport fuse-native needs it',
    };
  }
}

function runtimes(env: NodeJS.ProcessEnv): Check {
  const found = ['runc', 'crun'].flatMap((name) => findExecutable(name, env) ?? []);
  return {
    name: 'runtime',
    state: found.length > 0 ? 'ok' : 'warn',
    value: found.length > 0 ? found.map(runtimeVersion).join(', ') : 'neither runc nor crun',
    meaning: found.length > 0 ? 'containers can be run' : '`lamina run` needs one of them',
  };
}

const VERSION_TIMEOUT_MS = 5000;

function runtimeVersion(path: string): string {
  const { stdout } = spawnSync(path, ['--version'], { encoding: 'utf8', timeout: VERSION_TIMEOUT_MS });
  const [, version] = /version (\S+)/.exec(stdout) ?? [];
  return version === undefined ? path : `${path} ${version}`;
}

/** Bytes. */
const LITTLE_SPACE = 1e9;

function directory(name: string, path: string, purpose: string): Check {
  const there = existing(path);
  try {
    accessSync(there, constants.W_OK | constants.X_OK);
    const { bavail, bsize } = statfsSync(there);
    const free = bavail * bsize;
    const value = `${path}${there === path ? '' : ' (will be made)'}, ${formatBytes(free)} free`;
    const little = name === 'store' && free < LITTLE_SPACE;
    return {
      name,
      state: little ? 'warn' : 'ok',
      value,
      meaning: little ? 'little space for the layers that are read' : purpose,
    };
  } catch (e) {
    return {
      name,
      state: 'fail',
      value: `${path}: ${errnoOf(e) ?? String(e)}`,
      meaning: `cannot be written; choose another with --${name} or LAMINA_${name.toUpperCase()}`,
    };
  }
}

function existing(path: string): string {
  for (let here = path; ; here = dirname(here)) if (existsSync(here) || here === '/') return here;
}

function socketPath(run: string): Check {
  const { socket } = new RunDir(run);
  const fits = Buffer.byteLength(socket) < SOCKET_PATH_MAX;
  return {
    name: 'socket path',
    state: fits ? 'ok' : 'fail',
    value: `${Buffer.byteLength(socket)} bytes`,
    meaning: fits ? socket : `longer than a socket's name may be (${SOCKET_PATH_MAX - 1}): choose a shorter --run`,
  };
}

const FILES_WANTED = 4096;

function openFiles(): Check {
  const [, text = '0'] = /^Max open files\s+(\d+|unlimited)/m.exec(readText('/proc/self/limits') ?? '') ?? [];
  const enough = text === 'unlimited' || Number(text) >= FILES_WANTED;
  return {
    name: 'open files',
    state: enough ? 'ok' : 'warn',
    value: text,
    meaning: enough ? 'enough for many layers' : `many layers need more: ulimit -n ${FILES_WANTED}`,
  };
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function readNumber(path: string): number | undefined {
  const number = Number.parseInt(readText(path) ?? '', 10);
  return Number.isNaN(number) ? undefined : number;
}
