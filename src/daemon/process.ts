/** Other processes, by their numbers. */
import { readFileSync } from 'node:fs';
import { errnoOf } from '../errors.js';

/**
 * Whether such a process runs. One that has ended is none, though its number stays until its parent asks for it, which
 * the first process of many containers never does (proc_pid_stat(5), state).
 */
export function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name before the state is in parentheses, and may have any.
    return !/^\) [ZX]/.test(stat.slice(stat.lastIndexOf(')')));
  } catch (e) {
    return errnoOf(e) !== 'ENOENT' && errnoOf(e) !== 'ESRCH';
  }
}
