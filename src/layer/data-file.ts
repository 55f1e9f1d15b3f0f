/** `data` of a layer: what of its address space has been decompressed. */
import { constants, openSync, readSync } from 'node:fs';
import { errnoOf } from '../errors.js';

/** A data file, to be written where that is possible. */
export function openData(path: string): { fd: number; writable: boolean } {
  try {
    return { fd: openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600), writable: true };
  } catch (e) {
    if (!['EROFS', 'EACCES', 'EPERM'].includes(errnoOf(e) ?? '')) throw e;
    return { fd: openSync(path, 'r'), writable: false };
  }
}

/** Bytes read; the rest of the buffer is zeros, as a hole at the end of the file would be. */
export function readData(fd: number, buffer: Buffer, position: number): number {
  let done = 0;
  while (done < buffer.length) {
    const n = readSync(fd, buffer, done, buffer.length - done, position + done);
    if (n === 0) break;
    done += n;
  }
  buffer.fill(0, done);
  return done;
}
