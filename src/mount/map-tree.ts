import { closeSync, fstatSync, openSync } from 'node:fs';
import { LaminaError } from '../errors.js';
import { mmapReadOnly, type Mapping } from '../native/libc.js';

/** An image's tree in memory, its seal included; the caller closes it. Throws STORE_CORRUPT where there is none. */
export function mapTree(path: string): Mapping {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (e) {
    throw new LaminaError('STORE_CORRUPT', `Cannot open the tree ${path}`, { cause: e });
  }
  try {
    return mmapReadOnly(fd, fstatSync(fd).size);
  } finally {
    closeSync(fd);
  }
}
