/**
 * RUN: where a daemon's socket, lock, log, records and internal mounts are. It is gone after a reboot, as mounts are.
 *
 *     RUN/ (0711)   control.sock (0600)  lock  log  mounts/ID.json  blobs/ (blobfs, 0700)  blobs.json  mnt/ID/  lower/ID/
 *                   bundles/ID/ (bundles of `lamina run`)  paused (background.ts)
 */
import { chmodSync, lstatSync, mkdirSync, statSync, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';

/** `--run`, then LAMINA_RUN, then /run/lamina as root or $XDG_RUNTIME_DIR/lamina. */
export function defaultRunDir(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.() ?? 0): string {
  if (env['LAMINA_RUN'] !== undefined && env['LAMINA_RUN'] !== '') return env['LAMINA_RUN'];
  if (uid === 0) return '/run/lamina';
  return join(env['XDG_RUNTIME_DIR'] ?? `/tmp/lamina-run-${uid}`, 'lamina');
}

/** Bytes of a socket's path with its NUL (unix(7), sun_path). */
export const SOCKET_PATH_MAX = 108;

const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;

export class RunDir {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** Makes what is missing. Other users may pass through to the mounts, and see nothing else. Throws like {@link check}. */
  create(): void {
    if (Buffer.byteLength(this.socket) >= SOCKET_PATH_MAX) {
      throw new LaminaError('DAEMON_FAILED', `The run directory's path is too long for a socket in it: ${this.path}`, {
        hint: 'Choose a shorter one with --run or LAMINA_RUN.',
      });
    }
    try {
      if (mkdirSync(this.path, { recursive: true, mode: 0o711 }) !== undefined) chmodSync(this.path, 0o711);
      this.check();
      for (const dir of [this.records, this.blobs]) makeDirectory(dir, 0o700);
      for (const dir of ['mnt', 'lower', 'bundles']) makeDirectory(join(this.path, dir), 0o711);
    } catch (e) {
      throw toLaminaError(e, `Cannot use the run directory ${this.path}`);
    }
  }

  /**
   * Who can change the directory can make us mount and remove what he likes: it must be ours alone, and nobody else may
   * be able to put another in its place. False when there is none. Throws PERMISSION_DENIED, IO.
   */
  check(uid = process.geteuid?.() ?? 0): boolean {
    const found = lstatSync(this.path, { throwIfNoEntry: false });
    if (found === undefined) return false;
    const parent = statSync(dirname(this.path));
    const problem = found.isDirectory() ? problemOf(found, parent, uid) : 'it is not a directory';
    if (problem === undefined) return true;
    throw new LaminaError('PERMISSION_DENIED', `Cannot use the run directory ${this.path}: ${problem}`, {
      hint: 'Choose another with --run or LAMINA_RUN.',
    });
  }

  get socket(): string {
    return join(this.path, 'control.sock');
  }
  get lock(): string {
    return join(this.path, 'lock');
  }
  get log(): string {
    return join(this.path, 'log');
  }
  /** There while layers are not completed in the background. */
  get paused(): string {
    return join(this.path, 'paused');
  }
  get records(): string {
    return join(this.path, 'mounts');
  }
  record(id: string): string {
    return join(this.records, `${id}.json`);
  }
  /** Where blobfs is mounted. Short: the kernel engine names a file in it for every layer. */
  get blobs(): string {
    return join(this.path, 'blobs');
  }
  /** The layers that blobfs serves, with their node ids. */
  get blobTable(): string {
    return join(this.path, 'blobs.json');
  }
  /** The default mountpoint of a mount. */
  mnt(id: string): string {
    return join(this.path, 'mnt', id);
  }
  /** Where the image itself is mounted when an overlay is mounted on top of it. */
  lower(id: string): string {
    return join(this.path, 'lower', id);
  }
}

/** Whatever the umask is. One that exists may have a dead mount on it: it is not looked at. */
function makeDirectory(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode });
    chmodSync(path, mode);
  } catch (e) {
    if (errnoOf(e) !== 'EEXIST') throw e;
  }
}

function problemOf(dir: Stats, parent: Stats, uid: number): string | undefined {
  if (dir.uid !== uid) return `it belongs to user ${dir.uid}`;
  if ((dir.mode & WRITABLE_BY_OTHERS) !== 0) return 'other users can write to it';
  if (parent.uid !== uid && parent.uid !== 0) return `its parent belongs to user ${parent.uid}`;
  if ((parent.mode & WRITABLE_BY_OTHERS) !== 0 && (parent.mode & STICKY) === 0)
    return 'other users can write to its parent';
  return undefined;
}
