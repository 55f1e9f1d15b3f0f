/** Read-ahead of a mount. INIT cannot raise it above the kernel's default of 128 KiB (fs/fuse/inode.c, process_init_reply). */
import { readdirSync, writeFileSync } from 'node:fs';

/** The size of the largest READ: one request fetches what the reader wants next. */
const KILOBYTES = 1024;
const BDI = '/sys/class/bdi';

/** `bdi` is a name under /sys/class/bdi; a FUSE mount's is its device, "major:minor". False where the system does not let us. */
export function raiseReadAhead(bdi: string): boolean {
  try {
    writeFileSync(`${BDI}/${bdi}/read_ahead_kb`, String(KILOBYTES));
    return true;
  } catch {
    return false;
  }
}

/** The names of file-backed EROFS mounts, "erofs-1": a counter's, so a mount's own is found by looking before and after. */
export function erofsBdis(): ReadonlySet<string> {
  try {
    return new Set(readdirSync(BDI).filter((name) => name.startsWith('erofs-')));
  } catch {
    return new Set();
  }
}
