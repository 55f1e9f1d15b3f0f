/**
 * The conformance cases against umoci, an extractor that follows the specification closely: whatever it does otherwise
 * must be among the differences that the cases name. Times of directories are left out: umoci leaves those of its own
 * work on directories that no entry describes, and on some that it comes back to.
 */
import { execFile, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { makeCase, type Case } from './case.js';
import { cases } from './cases.js';
import { format, nodesOfMount } from './dump.js';
import { expectedLines } from './expected.js';

/** Nothing that an extractor could say more about, and minutes of its time. */
const TOO_LARGE = new Set(['T035a', 'W036']);
const AT_ONCE = 2;
const TIMEOUT_MS = 240_000;

t.setTimeout(TIMEOUT_MS);

t.test('what umoci does otherwise has a name', { timeout: TIMEOUT_MS }, async (t) => {
  if (skipUnless(t, isRoot, 'unpacking with owners needs root')) return;
  if (
    skipUnless(
      t,
      spawnSync('umoci', ['--version']).error === undefined,
      'umoci is not installed (scripts/install-peers)',
    )
  )
    return;
  const directory = tempDir(t);
  const todo = cases.filter(({ id }) => !TOO_LARGE.has(id));
  let agree = 0;
  const work = async (): Promise<void> => {
    for (let c = todo.shift(); c !== undefined; c = todo.shift()) {
      const { id, what, error, differs, tree = '', contents } = c;
      const lines = await unpacked(c, directory);
      const same = error === undefined ? equal(lines, timeless(expectedLines(tree, contents))) : lines === undefined;
      if (same) agree++;
      else if (differs === undefined) t.fail(`${id}: ${what}`, { error, lines });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  t.ok(agree > cases.length / 2);
  t.comment(`umoci agrees on ${agree} of ${cases.length - TOO_LARGE.size} cases; the other differences are named`);
});

/** Undefined: umoci refuses the image. */
async function unpacked(c: Case, directory: string): Promise<string[] | undefined> {
  const image = await makeCase(c, join(directory, 'images'));
  const bundle = join(directory, 'bundles', c.id);
  try {
    await promisify(execFile)('umoci', ['unpack', '--image', `${image.directory}:latest`, bundle]);
  } catch {
    return undefined;
  }
  return timeless(format(await nodesOfMount(join(bundle, 'rootfs'))));
}

/** Without directories' times, and without access and change times. */
function timeless(lines: readonly string[]): string[] {
  return lines.map((line) => {
    const fields = line.split(' ').slice(0, 11);
    if (fields[1] === 'dir') fields[5] = '-';
    return fields.join(' ');
  });
}

function equal(a: readonly string[] | undefined, b: readonly string[]): boolean {
  return a?.length === b.length && a.every((line, i) => line === b[i]);
}
