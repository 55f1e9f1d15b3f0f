/**
 * Random images against umoci and containerd, and both engines against each other: a bounded number of them here,
 * `npm run soak` for as long as wanted. What was found once is kept in fixtures/.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { startDaemon } from '../support/daemon.js';
import { projectRoot } from '../support/project.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { checkStack, type Judges } from './check.js';
import { generateStack } from './generate.js';
import { Containerd } from './oracles.js';
import { shrink } from './shrink.js';
import { formatStack, worlds, type Stack } from './stack.js';

/** Always the same images: what fails here can be looked into. */
const SEED = 20_000;
/** Milliseconds for generated images, all worlds together; the last one may take longer. */
const BUDGET = 15_000;
const IMAGES_MAX = 60;
/** One in so many goes through mounts of both engines too. */
const MOUNT_EVERY = 6;

const fixtures = join(projectRoot, 'test/differential/fixtures');
const missing = ['umoci', 'containerd', 'ctr'].filter((name) => !commandExists(name));

function commandExists(name: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${name}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function cannotRun(t: Test): boolean {
  return (
    skipUnless(t, isRoot && existsSync('/dev/fuse'), 'mounting needs root and /dev/fuse') ||
    skipUnless(t, missing.length === 0, `commands are missing: ${missing.join(', ')} (scripts/install-peers)`) ||
    skipUnless(t, kernelEngineObstacle() === undefined, kernelEngineObstacle() ?? '')
  );
}

t.test('a seed gives the same stack each time, another seed another', async (t) => {
  for (const world of worlds) {
    t.equal(formatStack(generateStack(7, world)), formatStack(generateStack(7, world)));
    t.not(formatStack(generateStack(7, world)), formatStack(generateStack(8, world)));
    t.strictSame(JSON.parse(formatStack(generateStack(7, world))), generateStack(7, world), 'survives as JSON');
  }
});

t.test('shrinking leaves what the failure needs', async (t) => {
  const stack = generateStack(3, 'spec');
  const wanted = stack.layers.at(-1)?.at(-1)?.name;
  const small = await shrink(stack, async ({ layers }) => layers.flat().some(({ name }) => name === wanted));
  t.equal(small.layers.flat().length, 1);
  t.equal(small.layers[0]?.[0]?.name, wanted);
});

t.test('images', async (t) => {
  if (cannotRun(t)) return;
  const directory = tempDir(t);
  const containerd = await Containerd.start(join(directory, 'containerd'));
  t.teardown(() => containerd.stop());
  const judges: Judges = { directory, overlay: containerd, daemon: await startDaemon(t) };

  for (const file of readdirSync(fixtures).sort()) {
    t.test(`fixture ${file}`, async (t) => {
      const stack = JSON.parse(readFileSync(join(fixtures, file), 'utf8')) as Stack;
      t.strictSame((await checkStack(stack, judges)).problems, []);
    });
  }

  t.test('generated', async (t) => {
    const end = Date.now() + BUDGET;
    let images = 0;
    let files = 0;
    for (; images < IMAGES_MAX && Date.now() < end; images++) {
      const seed = SEED + images;
      const stack = generateStack(seed, worlds[images % worlds.length] ?? 'spec');
      const daemon = images % MOUNT_EVERY < worlds.length ? judges.daemon : undefined;
      const verdict = await checkStack(stack, { ...judges, daemon });
      files += verdict.files;
      t.strictSame(verdict.problems, [], `seed ${seed}, ${stack.world}: npm run soak -- --images 1 --seed ${seed}`);
    }
    t.comment(`${images} images, ${files} names`);
    t.ok(images >= worlds.length);
  });
});
