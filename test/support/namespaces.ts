/**
 * Some tests see how a mount ends when its last user goes; others make mount namespaces, which take copies of all mounts
 * of the machine along and so keep them in use. These must not run at the same time.
 */
import { mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock } from '../../src/native/libc.js';
import { projectRoot } from './project.js';

const POLL_MS = 50;

/** Waits until no other test file of this checkout is in its `alone`; lasts as long as this process. */
export async function alone(): Promise<void> {
  const directory = join(projectRoot, '.tap');
  mkdirSync(directory, { recursive: true });
  const fd = openSync(join(directory, 'alone.lock'), 'w');
  while (!tryLock(fd)) await sleep(POLL_MS);
}
