/**
 * FUSE mounts of ordinary users. The program fusermount3 is set-user-ID root: it opens /dev/fuse, mounts, and sends the
 * descriptor back over the socket that _FUSE_COMMFD names (libfuse, util/fusermount.c). It forces nosuid and nodev, and
 * lets others in only where /etc/fuse.conf has user_allow_other.
 */
import { execFile, spawnSync } from 'node:child_process';
import { closeSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { LaminaError, errnoOf } from '../errors.js';
import { receiveFd, socketpair } from '../native/libc.js';

const PROGRAMS = ['fusermount3', 'fusermount'] as const;
const TIMEOUT_MS = 10_000;
/** The descriptor of the socket in the program. */
const COMM_FD = 3;

export interface FusermountOptions {
  readonly target: string;
  readonly source: string;
  readonly subtype: string;
  /** As of mount(2), beside fsname and subtype. */
  readonly options: readonly string[];
}

/** Mounts and returns the connection's descriptor. Throws FUSE_UNAVAILABLE, MOUNT_FAILED. */
export function fusermount({ target, source, subtype, options }: FusermountOptions): number {
  // "," ends an option, and "\" takes that away (do_mount).
  const name = source.replace(/[\\,]/g, '\\$&');
  const list = [...options, `fsname=${name}`, `subtype=${subtype}`].join(',');
  for (const program of PROGRAMS) {
    const [ours, theirs] = socketpair();
    let sender: number | undefined = theirs;
    try {
      const { error, status, stderr } = spawnSync(program, ['-o', list, '--', target], {
        stdio: ['ignore', 'ignore', 'pipe', theirs],
        env: { ...process.env, _FUSE_COMMFD: String(COMM_FD) },
        encoding: 'utf8',
        timeout: TIMEOUT_MS,
      });
      if (error !== undefined && errnoOf(error) === 'ENOENT') continue;
      if (error !== undefined || status !== 0) throw refused(program, target, error?.message ?? stderr.trim());
      // A program that has sent nothing must not be waited for: with no sender left the socket is at its end.
      closeSync(theirs);
      sender = undefined;
      return receiveFd(ours);
    } finally {
      closeSync(ours);
      if (sender !== undefined) closeSync(sender);
    }
  }
  throw new LaminaError('FUSE_UNAVAILABLE', 'Cannot mount: ordinary users need fusermount3, and it is not installed', {
    hint: 'Install it (Debian and Ubuntu: apt-get install fuse3); `lamina doctor` says more.',
  });
}

function refused(program: string, target: string, why: string): LaminaError {
  return new LaminaError(
    'MOUNT_FAILED',
    `Cannot mount on ${target}: ${program}: ${why.replace(/^fusermount3?: /, '')}`,
    {
      hint: 'The directory must be yours, and you must be allowed to use /dev/fuse; `lamina doctor` says more.',
    },
  );
}

const execute = promisify(execFile);

/** Throws an error with `code` EBUSY, EINVAL (nothing is mounted there), EPERM, ENOENT (no such program). */
export async function fusermountUnmount(target: string, lazy: boolean): Promise<void> {
  const args = ['-u', ...(lazy ? ['-z'] : []), '--', target];
  let failure: unknown;
  for (const program of PROGRAMS) {
    try {
      await execute(program, args, { timeout: TIMEOUT_MS });
      return;
    } catch (e) {
      failure = e;
      if (errnoOf(e) === 'ENOENT') continue;
      const { stderr = '' } = e as { stderr?: string };
      throw Object.assign(new Error(stderr.trim()), { code: codeOf(stderr) });
    }
  }
  throw failure;
}

function codeOf(message: string): string {
  if (/busy/i.test(message)) return 'EBUSY';
  return /not (?:found|mounted)|invalid argument/i.test(message) ? 'EINVAL' : 'EPERM';
}

/** Whether users may let others into their mounts. */
export function userAllowOther(text = readConf()): boolean {
  return /^\s*user_allow_other\s*(?:#.*)?$/m.test(text);
}

function readConf(): string {
  try {
    return readFileSync('/etc/fuse.conf', 'utf8');
  } catch {
    return '';
  }
}
