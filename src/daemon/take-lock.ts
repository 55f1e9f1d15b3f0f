/** Taking RUN/lock (./lock): apart from looking who has it, which clients do, and which needs no native calls. */
import { closeSync, constants, ftruncateSync, openSync, writeSync } from 'node:fs';
import { tryLock } from '../native/libc.js';
import type { RunDir } from './run-dir.js';

/** False when somebody else has it. The descriptor stays open until the process ends. */
export function takeLock(run: RunDir): boolean {
  const fd = openSync(run.lock, constants.O_RDWR | constants.O_CREAT, 0o600);
  if (!tryLock(fd)) {
    closeSync(fd);
    return false;
  }
  ftruncateSync(fd);
  writeSync(fd, `${process.pid}\n`, 0);
  return true;
}
