/** The processes that serve mounts through fuse-native, from the daemon's side. They outlive this one. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LaminaError } from '../errors.js';
import type { NativeMount, NativeMounted } from './native-server.js';

const program = fileURLToPath(new URL('./native-server.js', import.meta.url));
const MOUNT_TIMEOUT_MS = 20_000;
const POLL_MS = 20;
const ADOPTED_POLL_MS = 500;

export class NativeServers {
  readonly #pids = new Map<string, number>();
  /** A mount's process has ended. */
  readonly #onGone: (id: string) => void;

  constructor(onGone: (id: string) => void) {
    this.#onGone = onGone;
  }

  has(id: string): boolean {
    return this.#pids.has(id);
  }

  /**
   * Mounts. `onStart` gets the process that will serve, before it is told what to mount: whoever comes after a crash of
   * this one has to know of it. Throws TRANSPORT_UNAVAILABLE, MOUNT_FAILED.
   */
  async open(id: string, what: NativeMount, onStart: (pid: number) => void): Promise<void> {
    const child = fork(program, [id], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], detached: true, cwd: '/' });
    try {
      if (child.pid !== undefined) onStart(child.pid);
      child.send(what);
      const signal = AbortSignal.timeout(MOUNT_TIMEOUT_MS);
      const died = once(child, 'exit', { signal }).then(([code]) => {
        throw new LaminaError('MOUNT_FAILED', `The process of fuse-native ended with ${String(code)}`);
      });
      died.catch(() => undefined);
      const [{ error }] = (await Promise.race([once(child, 'message', { signal }), died])) as [NativeMounted];
      if (error !== undefined) throw LaminaError.fromJSON(error);
    } catch (e) {
      child.kill('SIGKILL');
      if (e instanceof Error && e.name === 'AbortError')
        throw new LaminaError('MOUNT_FAILED', 'fuse-native does not mount within 20 s', { cause: e });
      throw e;
    }
    const pid = child.pid ?? -1;
    child.disconnect();
    child.unref();
    this.#pids.set(id, pid);
    child.once('exit', () => this.#gone(id));
  }

  /** A process that an earlier server has started. False where it has ended. */
  adopt(id: string, pid: number): boolean {
    if (!serves(pid, id)) return false;
    this.#pids.set(id, pid);
    const timer = setInterval(() => {
      if (serves(pid, id)) return;
      clearInterval(timer);
      this.#gone(id);
    }, ADOPTED_POLL_MS).unref();
    return true;
  }

  /** Whether the process ends within that time, as it does when its file system is mounted nowhere any more. */
  async ends(id: string, milliseconds: number): Promise<boolean> {
    for (const end = Date.now() + milliseconds; this.has(id); await delay(POLL_MS)) {
      if (Date.now() > end) return false;
      this.#signal(id, 'SIGTERM');
    }
    return true;
  }

  /** Ends it whatever uses it: every access fails from now on. */
  abort(id: string): void {
    this.#signal(id, 'SIGKILL');
  }

  #signal(id: string, signal: NodeJS.Signals): void {
    const pid = this.#pids.get(id);
    if (pid !== undefined && serves(pid, id)) process.kill(pid, signal);
  }

  #gone(id: string): void {
    if (this.#pids.delete(id)) this.#onGone(id);
  }
}

/** A number alone may be another's by now. */
function serves(pid: number, id: string): boolean {
  try {
    const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return args.includes(program) && args.includes(id);
  } catch {
    return false;
  }
}
