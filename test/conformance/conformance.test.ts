/**
 * The conformance suite: every case against the merge in process, the `fuse` engine and the `kernel` engine, with one
 * expected tree for all three. Both engines go through one daemon; what they show is read by what Node and the kernel
 * say, not by our parsers.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { LaminaError } from '../../src/errors.js';
import { findLayer } from '../../src/image/known-layer.js';
import { prepareImage, type PreparedImage } from '../../src/image/prepare.js';
import { ImageTree } from '../../src/image/tree.js';
import { PassHasher } from '../../src/layer/hasher.js';
import { indexLayer, type IndexJob } from '../../src/layer/index-pass.js';
import { LayerMap } from '../../src/layer/map.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { loadFuseNative } from '../../src/mount/fuse-native.js';
import type { Image } from '../../src/source/image.js';
import { resolveImage } from '../../src/source/index.js';
import { parseReference } from '../../src/source/sniff.js';
import { Store } from '../../src/store/store.js';
import type { Compat } from '../../src/union/merge.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { makeCase, type Case } from './case.js';
import { cases } from './cases.js';
import { deviations, elsewhere } from './deviations.js';
import { format, nodesOfMount, nodesOfTree, type Node } from './dump.js';
import { expectedLines } from './expected.js';
import { asFuseNative, losses, unseen } from './fuse-native.js';

/** Numbers of the lists that the cases answer. */
const LISTS = { T: 57, Z: 20, W: 37, P: 31, M: 22 } as const;

const TIMEOUT_MS = 280_000;
/** Cases at work at the same time. */
const AT_ONCE = 4;

/** What a way to the tree gave: lines and inode numbers, or the error. */
interface Outcome {
  readonly lines: readonly string[];
  readonly inodes: readonly string[];
  readonly notes: readonly string[];
  readonly code: string | undefined;
}

t.setTimeout(3 * TIMEOUT_MS);
const ran: string[] = [];
const references = new Map<string, string>();
/** Of the merge, by case: the engines must show the same inode numbers. */
const inodes = new Map<string, readonly string[]>();

/** Of images, store and daemon: what the merge has indexed the daemon need not index again. */
const directory = tempDir(t);
/** The whole file's test: the daemon lives as long. */
const suite = t;
let daemon: TestDaemon | undefined;

t.before(async () => {
  for (const c of cases) references.set(c.id, (await makeCase(c, join(directory, 'images'))).reference);
});

t.test('the tables are whole', async (t) => {
  const ids = cases.map(({ id }) => id);
  t.equal(new Set(ids).size, ids.length, 'every id once');
  for (const [area, count] of Object.entries(LISTS)) {
    for (let i = 1; i <= count; i++) {
      const number = `${area}${String(i).padStart(3, '0')}`;
      const has = ids.some((id) => id.replace(/[a-z]$/, '') === number) || number in elsewhere;
      if (!has) t.fail(`no case for ${number}`);
    }
  }
  for (const { id, tree, error } of cases) {
    if ((tree === undefined) === (error === undefined)) t.fail(`${id} asks for neither a tree nor an error, or both`);
  }
  for (const { id } of deviations) t.ok(ids.includes(id), `the deviation ${id} has a case`);
});

t.test('merge: layer bytes, index, merge and chunk readers in process', { timeout: TIMEOUT_MS }, async (t) => {
  const store = Store.open(join(directory, 'store'));
  const outcomes = new Map(cases.map((c) => [c, undefined as Outcome | undefined]));
  await eachCase(async (c) => outcomes.set(c, await mergedInProcess(c, store)));
  for (const [c, outcome] of outcomes) {
    if (outcome === undefined) throw new Error(`${c.id} did not run`);
    inodes.set(c.id, outcome.inodes);
    judge(t, c, outcome);
    const { notes } = outcome;
    if (outcome.code !== undefined) continue;
    if (c.note === undefined) t.same(notes, [], `${c.id}: nothing odd is noted`);
    else
      t.ok(
        notes.some((note) => c.note?.test(note)),
        `${c.id}: ${String(c.note)}`,
        { notes },
      );
  }
  ran.push('merge');
});

/** Engines, and the other transport of the fuse engine. */
const ways = ['fuse', 'kernel', 'fuse-native'] as const;
type Way = (typeof ways)[number];

for (const engine of ways) {
  t.test(`${engine}: mounted by the daemon`, { timeout: TIMEOUT_MS }, async (t) => {
    if (skipUnless(t, isRoot && existsSync('/dev/fuse'), 'mounting needs root and /dev/fuse')) return;
    const obstacle = obstacleTo(engine);
    if (skipUnless(t, obstacle === undefined, obstacle ?? '')) return;
    const running = (daemon ??= await startDaemon(suite, directory));
    await eachCase(async (c, worker) => {
      const mountpoint = join(directory, `${engine}-${worker}`);
      mkdirSync(mountpoint, { recursive: true });
      const outcome = await attempt(async () => {
        await mount(running, c, engine, mountpoint);
        try {
          for (const { command, prints } of c.observe ?? []) {
            const what = `${c.id}: ${command[0] ?? ''}`;
            const printed = await output(command, mountpoint);
            if (engine === 'fuse-native' && c.id in unseen) t.notMatch(printed, prints, `${what}: ${unseen[c.id]}`);
            else if (engine !== 'fuse-native' || !(c.id in losses)) t.match(printed, prints, what);
          }
          return { nodes: await nodesOfMount(mountpoint), notes: [] };
        } finally {
          const { status, body } = await running.control(
            'DELETE',
            `/v1/mounts?target=${encodeURIComponent(mountpoint)}`,
          );
          if (status !== 200) t.fail(`${c.id} cannot be unmounted`, { body });
        }
      });
      if (engine === 'fuse-native') judgeFuseNative(t, c, outcome);
      else judge(t, c, outcome);
      if (outcome.code === undefined && !(engine === 'fuse-native' && c.id in losses))
        t.same(outcome.inodes, inodes.get(c.id), `${c.id}: inode numbers as in the tree`);
    });
    ran.push(engine);
  });
}

t.test('the figures', async (t) => {
  const named = cases.filter(({ differs }) => differs !== undefined).length;
  t.ok(ran.length > 0);
  t.comment(`${cases.length} cases, ${named} with named differences, engines: ${ran.join(', ')}`);
});

/** Several at a time; `worker`, below {@link AT_ONCE}, belongs to one of them. */
async function eachCase(act: (c: Case, worker: number) => Promise<unknown>): Promise<void> {
  const todo = [...cases];
  const work = async (_: unknown, worker: number): Promise<void> => {
    for (let c = todo.shift(); c !== undefined; c = todo.shift()) await act(c, worker);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

async function mergedInProcess(c: Case, store: Store): Promise<Outcome> {
  return attempt(async () => {
    const image = await resolveImage(parseReference(reference(c), '/'));
    const prepared = await prepare(image, store, c.compat ?? 'spec');
    const notes = prepared.layers.flatMap(({ mapPath }) => LayerMap.describe(mapPath)?.facts.notes ?? []);
    const tree = ImageTree.open(prepared);
    try {
      return { nodes: nodesOfTree(tree), notes };
    } finally {
      tree.close();
    }
  });
}

/** As in earnest, but that layers are indexed in this thread: starting one for each case would take most of the time. */
async function prepare(image: Image, store: Store, compat: Compat): Promise<PreparedImage> {
  for (const layer of image.layers) {
    if (findLayer(layer, store) !== undefined) continue;
    const { blob, digest, diffId, view } = layer;
    const job: IndexJob = {
      blob,
      digest,
      diffId,
      view,
      temporary: store.temporary(),
      layerDirectory: store.layerDirectory(diffId, view),
      mapDirectory: join(store.path, 'maps'),
      streamLimit: 1024 ** 4,
    };
    indexLayer(job, { sink: () => new PassHasher(digest, diffId), onProgress: () => undefined });
  }
  return prepareImage(image, { store, compat });
}

function reference({ id }: Case): string {
  return references.get(id) ?? '';
}

async function attempt(act: () => Promise<{ nodes: Node[]; notes: readonly string[] }>): Promise<Outcome> {
  try {
    const { nodes, notes } = await act();
    return { lines: format(nodes), inodes: nodes.map(({ inode }) => String(inode)), notes, code: undefined };
  } catch (e) {
    if (!(e instanceof LaminaError)) throw e;
    return { lines: [], inodes: [], notes: [], code: e.code };
  }
}

function judge(t: Test, { id, what, tree, contents, error }: Case, { lines, code }: Outcome): void {
  if (error !== undefined || tree === undefined) t.equal(code ?? 'no error', error, `${id}: ${what}`);
  else if (code !== undefined) t.fail(`${id}: ${what}`, { code });
  else t.same(lines, expectedLines(tree, contents), `${id}: ${what}`);
}

function obstacleTo(way: Way): string | undefined {
  if (way === 'kernel') return kernelEngineObstacle();
  if (way === 'fuse') return undefined;
  try {
    loadFuseNative();
    return undefined;
  } catch (e) {
    return (e as Error).message;
  }
}

function judgeFuseNative(t: Test, c: Case, outcome: Outcome): void {
  const expected = expectedLines(c.tree ?? '', c.contents).map(asFuseNative);
  const same =
    outcome.code === c.error && (c.error !== undefined || JSON.stringify(outcome.lines) === JSON.stringify(expected));
  const loss = losses[c.id];
  if (loss !== undefined) t.notOk(same, `${c.id}: lost by fuse-native: ${loss}`);
  else if (c.error !== undefined) t.equal(outcome.code ?? 'no error', c.error, `${c.id}: ${c.what}`);
  else t.same(outcome.lines, expected, `${c.id}: ${c.what}`, { code: outcome.code });
}

/** Throws the LaminaError that the daemon reports. */
async function mount(daemon: TestDaemon, c: Case, way: Way, mountpoint: string): Promise<void> {
  const how = way === 'fuse-native' ? { engine: 'fuse', transport: way } : { engine: way };
  const request = { reference: reference(c), mountpoint, ...how, compat: c.compat ?? 'spec' };
  const { body } = await daemon.control('POST', '/v1/mounts', request);
  const last = (body as { type: string; error?: Parameters<typeof LaminaError.fromJSON>[0] }[]).at(-1);
  if (last?.error !== undefined) throw LaminaError.fromJSON(last.error);
  if (last?.type !== 'mounted') throw new Error(`Neither mounted nor failed: ${JSON.stringify(body)}`);
}

async function output(command: readonly string[], cwd: string): Promise<string> {
  const [program = '', ...args] = command;
  try {
    const { stdout } = await promisify(execFile)(program, args, { cwd, env: { ...process.env, LC_ALL: 'C' } });
    return stdout;
  } catch (e) {
    return String(e);
  }
}
