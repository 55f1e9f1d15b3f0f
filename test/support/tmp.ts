/** Temporary directories for tests. */
import { mkdtempSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { removeTree, temporaryPrefix } from '../../scripts/leftovers.js';

/** A new directory, removed when the test ends; what is mounted beneath it then is unmounted first. */
export function tempDir(t: Test): string {
  const directory = mkdtempSync(join(realpathSync(tmpdir()), temporaryPrefix('test')));
  t.teardown(() => removeTree(directory));
  return directory;
}
