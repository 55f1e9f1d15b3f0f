/** The directory that an image is extracted into. */
import { closeSync, constants, fchmodSync, fchownSync, fstatSync, mkdirSync, openSync, readdirSync } from 'node:fs';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';

/** Makes the directory, or takes over an empty one, as mode 0700. Throws OUTPUT_EXISTS, PERMISSION_DENIED, IO. */
export function openEmpty(directory: string): number {
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (e) {
    if (errnoOf(e) !== 'EEXIST') throw toLaminaError(e, `Cannot make ${directory}`);
  }
  let fd: number;
  try {
    fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (e) {
    throw toLaminaError(e, `Cannot extract into ${directory}`);
  }
  try {
    takeOver(fd);
    if (readdirSync(`/proc/self/fd/${fd}`).length === 0) return fd;
    throw new LaminaError('OUTPUT_EXISTS', `Cannot extract into ${directory}: the directory is not empty`, {
      hint: 'Choose another, or an empty one.',
      details: { path: directory },
    });
  } catch (e) {
    closeSync(fd);
    throw toLaminaError(e, `Cannot extract into ${directory}`);
  }
}

/** Whose directory it was can change nothing in it any more, by descriptors of before either. */
function takeOver(fd: number): void {
  const [uid, gid] = [process.geteuid?.(), process.getegid?.()];
  if (uid !== undefined && gid !== undefined && fstatSync(fd).uid !== uid) fchownSync(fd, uid, gid);
  fchmodSync(fd, 0o700);
}
