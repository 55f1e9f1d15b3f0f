/**
 * RUN/lock: held for life by the one supervisor of a run directory, or by a server that has outlived it. Holds the
 * owner's process id, so that a client can tell a daemon that is just restarting from none.
 */
import { readFileSync, statSync } from 'node:fs';
import { isAlive } from './process.js';
import type { RunDir } from './run-dir.js';

/** Exit code of a supervisor that finds its run directory taken: EX_TEMPFAIL of sysexits.h. */
export const RUN_DIR_TAKEN = 75;

/** The process that has the lock. Its number alone would not tell: that of a dead owner may be another process's by now. */
export function lockOwner(run: RunDir): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(run.lock, 'latin1'), 10);
    if (!(pid > 0) || !isAlive(pid)) return undefined;
    return holdsLock(pid, statSync(run.lock, { bigint: true }).ino) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** By proc_locks(5): "1: FLOCK  ADVISORY  WRITE 812 00:19:1234 0 EOF". Where there is none of it, it is believed. */
function holdsLock(pid: number, inode: bigint): boolean {
  let locks: string;
  try {
    locks = readFileSync('/proc/locks', 'latin1');
  } catch {
    return true;
  }
  return locks.split('\n').some((line) => {
    const [, kind, , access, owner, file] = line.trim().split(/\s+/);
    return kind === 'FLOCK' && access === 'WRITE' && owner === `${pid}` && file?.endsWith(`:${inode}`) === true;
  });
}
