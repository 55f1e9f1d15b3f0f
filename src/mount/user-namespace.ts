/**
 * A user namespace with a given map, for mounts that show other ids (mount_setattr(2) takes the map from one). Only a
 * process can make one, and Node's has threads, which unshare(2) does not allow: a child of util-linux's unshare makes
 * it, and ends as soon as it is open here.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { openSync, writeFileSync } from 'node:fs';
import { LaminaError } from '../errors.js';
import type { IdMap, IdRange } from './id-map.js';

const DEADLINE_MS = 5000;

/** A descriptor of the namespace, to be closed by the caller. Throws MOUNT_FAILED. */
export async function openUserNamespace({ uid, gid }: IdMap): Promise<number> {
  const child = spawn('unshare', ['-U', 'sh', '-c', 'echo && cat'], { stdio: ['pipe', 'pipe', 'pipe'] });
  try {
    await ready(child);
    writeFileSync(`/proc/${child.pid}/uid_map`, lines(uid));
    writeFileSync(`/proc/${child.pid}/gid_map`, lines(gid));
    return openSync(`/proc/${child.pid}/ns/user`, 'r');
  } catch (e) {
    throw new LaminaError('MOUNT_FAILED', `Cannot make a user namespace for the id map: ${(e as Error).message}`, {
      cause: e,
      hint: 'Use --engine fuse, which needs none.',
    });
  } finally {
    child.kill('SIGKILL');
  }
}

async function ready(child: ChildProcess): Promise<void> {
  let said = '';
  child.stderr?.on('data', (text: Buffer) => (said = `${said}${text.toString()}`.slice(0, 500)));
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const failed = once(child, 'close', { signal }).then(() => {
    throw new Error(said.trim() === '' ? 'unshare -U has ended' : said.trim());
  });
  const answered = child.stdout === null ? failed : once(child.stdout, 'data', { signal });
  failed.catch(() => undefined);
  await Promise.race([answered, failed]);
}

function lines(ranges: readonly IdRange[]): string {
  return ranges.map(({ container, host, size }) => `${container} ${host} ${size}\n`).join('');
}
