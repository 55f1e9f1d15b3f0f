/**
 * Some tests see how a mount ends when its last user goes; others make mount namespaces, which take copies of all mounts
 * of the machine along and so keep them in use. These must not run at the same time.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './project.js';

/** Descriptor of the lock in the child. */
const LOCK = 3;

/** Waits until no other test file of this checkout watches mounts or makes namespaces; lasts as long as this process. */
export const makesNamespaces = (): Promise<void> => lock('--exclusive');

/** Waits until no other test file of this checkout makes namespaces; lasts as long as this process. */
export const watchesMounts = (): Promise<void> => lock('--shared');

/** The lock is of the open file, which the command shares: it stays when that ends (flock(2)). */
async function lock(kind: '--exclusive' | '--shared'): Promise<void> {
  const directory = join(projectRoot, '.tap');
  mkdirSync(directory, { recursive: true });
  const fd = openSync(join(directory, 'namespaces.lock'), 'w');
  const flock = spawn('flock', [kind, String(LOCK)], { stdio: ['ignore', 'inherit', 'inherit', fd] });
  const [code] = (await once(flock, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`flock ended with ${String(code)}`);
}
