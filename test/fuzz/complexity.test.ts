/**
 * Time and memory grow no worse than n log n. Each case runs at a quarter of its size and at its size, in processes with
 * a limited heap; CPU time is compared with CPU time, as nothing absolute holds on every machine.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { encodeTree } from '../../src/erofs/writer.js';
import { LaminaError } from '../../src/errors.js';
import { TreeBuilder } from '../../src/layer/tree-builder.js';
import { TarReader } from '../../src/tar/reader.js';
import { mergeLayers } from '../../src/union/merge.js';
import { lamina } from '../support/cli.js';
import { makeLayout } from '../support/images.js';
import { END, gnuLong, paxEntry, rawEntry, rawHeader } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';
import { cases } from './complexity-cases.js';

/** 4 times the size may cost 4 times the time, and what caches and the collector add. */
const GROWTH_MAX = 4 * 1.6;
/** Measurements of a case until one is within that: noise only ever adds. */
const TRIES = 4;

const child = fileURLToPath(new URL('./complexity-child.js', import.meta.url));

async function measure(name: string, n: number, heap: number): Promise<number> {
  const { stdout } = await promisify(execFile)(process.execPath, [
    `--max-old-space-size=${heap}`,
    child,
    name,
    String(n),
  ]);
  return (JSON.parse(stdout) as { cpu: number }).cpu;
}

for (const [name, { n, heap }] of Object.entries(cases)) {
  t.test(`${n} ${name} take no more than their share of time and memory`, async (t) => {
    let small = Infinity;
    let large = Infinity;
    for (let i = 0; i < TRIES && !(large / small < GROWTH_MAX); i++) {
      small = Math.min(small, await measure(name, n / 4, heap));
      large = Math.min(large, await measure(name, n, heap));
    }
    t.comment(`${name}: ${small.toFixed(0)} ms, ${large.toFixed(0)} ms, ratio ${(large / small).toFixed(1)}`);
    t.ok(large / small < GROWTH_MAX, `ratio ${(large / small).toFixed(1)}`);
  });
}

t.test('a layer that inflates to more than the limit is refused, and the limit can be raised', async (t) => {
  const directory = tempDir(t);
  const tar = Buffer.concat([rawEntry({ name: 'zeros' }, Buffer.alloc(64 * 1024 * 1024)), END]);
  const blob = gzipSync(tar, { level: 9 });
  t.ok(blob.length < 100_000, `${blob.length} bytes become ${tar.length}`);
  const { reference } = await makeLayout(`${directory}/oci`, { layers: [{ tar, blob }] });
  const index = (limit: string): ReturnType<typeof lamina> =>
    lamina(['index', '--json', '--store', `${directory}/store-${limit}`, reference], {
      env: { LAMINA_LAYER_LIMIT: limit },
    });
  const refused = await index('1000000');
  t.equal(refused.code, 1);
  t.match(refused.stderr + refused.stdout, /LIMIT_EXCEEDED/);
  t.match(refused.stderr + refused.stdout, /LAMINA_LAYER_LIMIT/, 'the hint says what to do');
  t.equal((await index('100000000')).code, 0);
});

function codeOf(...parts: Buffer[]): string {
  const reader = new TarReader((entry) => builder.add(entry));
  const builder = new TreeBuilder(reader.notes);
  try {
    for (const part of parts) reader.push(part);
    encodeTree(mergeLayers([builder.finish(0).root], 'spec'), { devices: [2 ** 40] });
  } catch (e) {
    if (e instanceof LaminaError) return e.code;
    throw e;
  }
  return 'none';
}

t.test('limits on what a small archive may make of itself', async (t) => {
  const most = paxEntry({ path: `${'a/'.repeat(8191)}f` });
  t.equal(codeOf(most, rawEntry({})), 'none', 'a path of as many components as there may be');
  const path = 'a/'.repeat(8193);
  t.equal(codeOf(paxEntry({ path: `${path}f` }), rawEntry({})), 'LIMIT_EXCEEDED', 'a path of too many components');
  t.equal(codeOf(paxEntry({ path: `${path}.wh.f` }), rawEntry({})), 'LIMIT_EXCEEDED', 'such a whiteout');
  const link = (name: string, target: string): Buffer[] => [gnuLong('K', target), rawHeader({ name, type: '2' })];
  const half = 'a/'.repeat(4096);
  const deep = [paxEntry({ path: `${half}f` }), rawEntry({})];
  const hops = ['a/'.repeat(2000), `l0/${'a/'.repeat(2000)}`].flatMap((to, i) => link(`l${i}`, to));
  const through = [paxEntry({ path: `l1/${'a/'.repeat(5000)}f` }), rawEntry({})];
  t.equal(codeOf(...deep, ...hops, ...through), 'LIMIT_EXCEEDED', 'directories made deep by way of symlinks');
  const chain = Array.from({ length: 20 }, (_, i) => link(`s${i}`, `${'a/../'.repeat(700)}s${i + 1}`)).flat();
  const behind = rawEntry({ name: 's0/f' });
  t.equal(codeOf(rawHeader({ name: 'a/', type: '5' }), ...chain, behind), 'PATH_LOOP', 'symlinks that lead on and on');
  const records = { 'GNU.sparse.size': String(2 ** 31), 'GNU.sparse.numblocks': '1', 'GNU.sparse.map': '512,512' };
  const sparse = Array.from({ length: 9 }, (_, i) => [
    paxEntry(records),
    rawEntry({ name: `f${i}` }, Buffer.alloc(512)),
  ]).flat();
  t.equal(codeOf(...sparse), 'LIMIT_EXCEEDED', 'chunk indexes of sparse files, 32 MiB for each KiB of tar');
});
