/**
 * Differential testing by the hour: random images (test/differential), each compared with umoci or containerd, every
 * tenth through mounts of both engines too. Root.
 *
 *     npm run soak -- [--minutes N] [--seed S] [--images N] [--mount-every N] [--world spec|overlay] [--scratch DIR]
 *
 * `--scratch`: where images are made and extracted, for example on a tmpfs; the daemon's store stays under $TMPDIR,
 * as the kernel engine mounts nothing from a tmpfs.
 *
 * Image N has the seed S + N. A failure is shrunk and printed as JSON that can become a file of
 * test/differential/fixtures. Exits with 1 if there was one.
 */
import { mkdtempSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { checkStack, type Judges, type Problem } from '../test/differential/check.js';
import { generateStack } from '../test/differential/generate.js';
import { Containerd } from '../test/differential/oracles.js';
import { shrink } from '../test/differential/shrink.js';
import { formatStack, worlds, type Stack } from '../test/differential/stack.js';
import { spawnDaemon } from '../test/support/daemon.js';
import { removeTree, temporaryPrefix } from './leftovers.js';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    images: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
    'mount-every': { type: 'string', default: '10' },
    world: { type: 'string' },
    scratch: { type: 'string', default: tmpdir() },
  },
});
const chosen = worlds.filter((world) => values.world === undefined || world === values.world);
if (chosen.length === 0) throw new Error(`--world is one of ${worlds.join(', ')}`);

const began = Date.now();
let end = began + Number(values.minutes) * 60_000;
// After the image under way everything is stopped and removed.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => (end = 0));
const base = Number(values.seed);
const mountEvery = Number(values['mount-every']);
const directory = mkdtempSync(join(realpathSync(values.scratch), temporaryPrefix('soak')));
const daemonDirectory = mkdtempSync(join(realpathSync(tmpdir()), temporaryPrefix('soak')));

/** Failures by kind; more of a kind that has been printed are only counted. */
const failures = new Map<string, number>();
const rules = new Map<string, number>();
let images = 0;
let mounts = 0;
let files = 0;
let refused = 0;

const containerd = await Containerd.start(join(directory, 'containerd'));
const daemon = spawnDaemon(daemonDirectory);
try {
  await daemon.ready();
  for (; images < Number(values.images) && Date.now() < end; images++) {
    const seed = base + images;
    const world = chosen[seed % chosen.length] ?? 'spec';
    const stack = generateStack(seed, world);
    const mounting = images % mountEvery === 0;
    if (mounting) mounts++;
    const judges: Judges = { directory, overlay: containerd, daemon: mounting ? daemon : undefined };
    const verdict = await checkStack(stack, judges);
    files += verdict.files;
    if (verdict.refused !== undefined) {
      refused++;
      console.log(`seed ${seed}, ${world}: refused by both: ${verdict.refused}`);
    }
    for (const [name, count] of verdict.rules) rules.set(name, (rules.get(name) ?? 0) + count);
    const [problem] = verdict.problems;
    if (problem !== undefined) await report(seed, stack, problem, judges);
  }
} finally {
  await daemon.stop();
  await containerd.stop();
  await removeTree(directory);
  await removeTree(daemonDirectory);
}
printSummary();
process.exitCode = failures.size === 0 ? 0 : 1;

async function report(seed: number, stack: Stack, problem: Problem, judges: Judges): Promise<void> {
  const known = failures.get(problem.kind) ?? 0;
  failures.set(problem.kind, known + 1);
  console.log(`seed ${seed}, ${stack.world}: ${problem.text}`);
  if (known > 0) return;
  // Mounts take time; most failures show without.
  const quick = problem.kind.startsWith('in process') ? { ...judges, daemon: undefined } : judges;
  const small = await shrink(stack, async (candidate) => {
    if (end === 0) return false;
    const { problems } = await checkStack(candidate, quick);
    return problems.some(({ kind }) => kind === problem.kind);
  });
  const { problems } = await checkStack(small, quick);
  console.log(`shrunk: ${problems.map(({ text }) => text).join('\n        ')}\n${formatStack(small)}`);
}

function printSummary(): void {
  const minutes = ((Date.now() - began) / 60_000).toFixed(1);
  console.log(
    `${images} images, ${files} names, ${mounts} images through both engines, ${minutes} minutes, seed ${base}`,
  );
  if (refused > 0) console.log(`${refused} images refused by both sides`);
  for (const [name, count] of [...rules].sort()) console.log(`known difference ${name}: ${count} times`);
  for (const [kind, count] of failures) console.log(`FAILED ${count} times: ${kind}`);
}
