/** The kernel's list of FUSE connections: the fusectl file system (Documentation/filesystems/fuse), which is not mounted everywhere. */
import { existsSync, writeFileSync } from 'node:fs';

const CONNECTIONS = '/sys/fs/fuse/connections';

/** `device` is that of a mount of the connection: "major:minor". */
function directoryOf(device: string): string {
  return `${CONNECTIONS}/${device.slice(device.indexOf(':') + 1)}`;
}

/** Whether the kernel says that a mount with that device has a connection; it may have no way to. */
export function isListed(device: string): boolean {
  return existsSync(directoryOf(device));
}

/** Every access fails from now on. Where there is no list, closing the last descriptor does the same, later. */
export function abortConnection(device: string): void {
  try {
    writeFileSync(`${directoryOf(device)}/abort`, '1');
  } catch {
    // The caller closes the descriptors.
  }
}
