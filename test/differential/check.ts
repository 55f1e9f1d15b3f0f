/** One stack of layers against its oracle, and what is left of the differences once the rules have taken theirs. */
import { mkdirSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { compareTrees } from '../../scripts/compare-trees.js';
import { removeTree } from '../../scripts/leftovers.js';
import { LaminaError } from '../../src/errors.js';
import { prepareImage } from '../../src/image/prepare.js';
import { ImageTree } from '../../src/image/tree.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import { Store } from '../../src/store/store.js';
import { nodesOfMount, nodesOfTree, type Node } from '../conformance/dump.js';
import type { TestDaemon } from '../support/daemon.js';
import type { MadeImage } from '../support/images.js';
import { compareNodes } from './compare.js';
import { OracleError, umoci, type Oracle } from './oracles.js';
import { refusalFor, ruleFor } from './rules.js';
import { writeStack, type Stack, type World } from './stack.js';

export const engines = ['kernel', 'fuse'] as const;

export interface Judges {
  /** A directory for what comes and goes. */
  readonly directory: string;
  /** Without it stacks of that world are only compared between engines. */
  readonly overlay?: Oracle | undefined;
  /** Mounts with both engines too. */
  readonly daemon?: TestDaemon | undefined;
}

export interface Problem {
  /** What the shrinker has to keep: who, and in which field. */
  readonly kind: string;
  readonly text: string;
}

export interface Verdict {
  readonly problems: readonly Problem[];
  /** Names in our tree. */
  readonly files: number;
  /** How many differences each rule explained. */
  readonly rules: ReadonlyMap<string, number>;
  /** Why both sides refused the image, if they did. */
  readonly refused: string | undefined;
}

export async function checkStack(stack: Stack, judges: Judges): Promise<Verdict> {
  const scratch = mkdtempSync(join(judges.directory, 'stack-'));
  try {
    return await check(stack, judges, scratch);
  } finally {
    await removeTree(scratch);
  }
}

async function check(stack: Stack, { overlay, daemon }: Judges, scratch: string): Promise<Verdict> {
  const problems: Problem[] = [];
  const counts = new Map<string, number>();
  const image = await writeStack(join(scratch, 'image'), stack);
  const ours = await outcome(inProcess(image, stack.world, join(scratch, 'store')));
  const started = Math.floor(Date.now() / 1000);
  const judge = stack.world === 'spec' ? umoci : overlay;
  const place = join(scratch, 'oracle');
  mkdirSync(place);
  const theirs = judge === undefined ? undefined : await outcome(judge.tree(image, place));

  if ('error' in ours || (theirs !== undefined && 'error' in theirs)) {
    const [a, b] = ['error' in ours ? ours.error : undefined, theirs && 'error' in theirs ? theirs.error : undefined];
    const refused = a instanceof LaminaError && (b !== undefined || theirs === undefined);
    if (!refused && a !== undefined) problems.push({ kind: `we refuse: ${codeOf(a)}`, text: String(a) });
    const known = b === undefined ? undefined : refusalFor(stack.world, b.message);
    if (known !== undefined) counts.set(known, 1);
    else if (!refused && b !== undefined) problems.push({ kind: `the oracle refuses: ${reason(b)}`, text: String(b) });
    return { problems, files: 0, rules: counts, refused: refused ? `${a.message}; ${b?.message ?? ''}` : undefined };
  }
  const judged = (who: string, nodes: readonly Node[]): void => {
    if (theirs === undefined) return;
    for (const difference of compareNodes(nodes, theirs.value)) {
      const rule = ruleFor(difference, { stack, started });
      if (rule !== undefined) {
        counts.set(rule.name, (counts.get(rule.name) ?? 0) + 1);
        continue;
      }
      const { path, field } = difference;
      problems.push({
        kind: `${who}: ${field}`,
        text: `${path}: ${field}: ${who} ${difference.ours}, oracle ${difference.oracle}`,
      });
    }
  };
  judged('in process', ours.value);
  if (daemon !== undefined) await checkEngines(image, stack.world, daemon, judged, problems);
  return { problems, files: ours.value.length, rules: counts, refused: undefined };
}

async function checkEngines(
  image: MadeImage,
  world: World,
  daemon: TestDaemon,
  judged: (who: string, nodes: readonly Node[]) => void,
  problems: Problem[],
): Promise<void> {
  const mountpoint = (engine: string): string => join(image.directory, '..', engine);
  const mounted: string[] = [];
  try {
    for (const engine of engines) {
      mkdirSync(mountpoint(engine));
      const compat = world === 'overlay' ? ['--compat', 'overlay'] : [];
      const args = ['mount', '-q', '--engine', engine, ...compat, image.reference, mountpoint(engine)];
      const { code, stderr } = await daemon.lamina(args);
      if (code !== 0) {
        problems.push({ kind: `${engine}: mount`, text: stderr });
        continue;
      }
      mounted.push(mountpoint(engine));
      judged(engine, await nodesOfMount(mountpoint(engine)));
    }
    if (mounted.length < engines.length) return;
    const { differences } = await compareTrees(mountpoint('kernel'), mountpoint('fuse'));
    for (const { path, field, a, b } of differences) {
      problems.push({ kind: `engines: ${field}`, text: `${path}: ${field}: kernel ${a}, fuse ${b}` });
    }
  } finally {
    if (mounted.length > 0) await daemon.lamina(['umount', ...mounted]);
  }
}

async function inProcess(image: MadeImage, compat: World, store: string): Promise<Node[]> {
  const resolved = await resolveImage(parseReference(image.reference, '/'));
  const tree = ImageTree.open(await prepareImage(resolved, { store: Store.open(store), compat }));
  try {
    return nodesOfTree(tree);
  } finally {
    tree.close();
  }
}

type Outcome<T> = { readonly value: T } | { readonly error: LaminaError | OracleError };

/** What is neither's way of refusing an image is a fault of the test. */
async function outcome<T>(work: Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await work };
  } catch (e) {
    if (e instanceof LaminaError || e instanceof OracleError) return { error: e };
    throw e;
  }
}

/** The system's words at the end of a message. */
function reason({ message }: Error): string {
  return /[a-z ]+(?=(?:: unknown)?\s*$)/.exec(message)?.[0].trim() ?? 'no reason given';
}

function codeOf(error: Error): string {
  return error instanceof LaminaError ? error.code : error.name;
}
