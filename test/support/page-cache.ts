/** The page cache is the whole machine's: who drops it takes it from the tests that run beside. */
import { writeFileSync } from 'node:fs';

/**
 * The next reads come from the daemon. Only in files that wait for {@link watchesMounts} or {@link makesNamespaces}
 * (./namespaces): daemon/mounts.test, which tells by the page cache whether a mount asks for something, runs beside none of them.
 */
export function dropCaches(): void {
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}
