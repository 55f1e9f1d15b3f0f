/**
 * RUN: where a daemon's socket, lock, log, records and internal mounts are. It is gone after a reboot, as mounts are.
 *
 *     RUN/ (0711)   control.sock (0600)  lock  log  mounts/ID.json  blobs/ (blobfs, 0700)  blobs.json  mnt/ID/  lower/ID/
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

/** `--run`, then LAMINA_RUN, then /run/lamina as root or $XDG_RUNTIME_DIR/lamina. */
export function defaultRunDir(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.() ?? 0): string {
  if (env['LAMINA_RUN'] !== undefined && env['LAMINA_RUN'] !== '') return env['LAMINA_RUN'];
  if (uid === 0) return '/run/lamina';
  return join(env['XDG_RUNTIME_DIR'] ?? `/tmp/lamina-run-${uid}`, 'lamina');
}

export class RunDir {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** Makes what is missing. Other users may pass through to the mounts, and see nothing else. */
  create(): void {
    mkdirSync(this.path, { recursive: true, mode: 0o711 });
    mkdirSync(this.records, { recursive: true, mode: 0o700 });
    mkdirSync(this.blobs, { recursive: true, mode: 0o700 });
    for (const dir of ['mnt', 'lower']) mkdirSync(join(this.path, dir), { recursive: true, mode: 0o711 });
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
