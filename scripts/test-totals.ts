/**
 * The last line of a test run, "N passed, N failed", and before it what failed, from the TAP that the run left:
 *
 *     node dist/scripts/test-totals.js RESULTS.tap EXIT-STATUS
 *
 * A skip counts as a failure, unless its reason starts with the name of an entry of test/support/machine-limits.ts in
 * brackets. Exits with 1 if anything failed or the run's own status was not 0.
 */
import { readFileSync } from 'node:fs';
import { machineLimits } from '../test/support/machine-limits.js';
import { isMain } from './main.js';

export interface Totals {
  readonly passed: number;
  readonly failed: number;
  /** For people: what was skipped, and whether that is allowed; each failure with its place and what tap says of it. */
  readonly notes: readonly string[];
}

/** `status` is the exit status of the run. */
export function totalsOf(tap: string, status: number): Totals {
  const notes: string[] = [];
  const counts = countsOf(tap);
  let failed = counts?.fail ?? 0;
  for (const [, result = '', reason = ''] of tap.matchAll(/^\s*(ok \d+.*?) # (?:SKIP|skip)\b ?(.*)$/gm)) {
    const allowed = Object.keys(machineLimits).includes(/^\[(.+?)\]/.exec(reason)?.[1] ?? '');
    if (!allowed) failed++;
    notes.push(`${allowed ? 'skipped' : 'skipped, which is a failure here'}: ${result} # ${reason}`);
  }
  notes.push(...failuresIn(tap).map(({ path, lines }) => [`failed: ${path.join(' > ')}`, ...lines].join('\n  ')));
  if (counts === undefined) notes.push('the test run did not come to its end');
  if (failed === 0 && status !== 0) notes.push(`nothing failed, but the status of the run is ${status}`);
  if (failed === 0 && (status !== 0 || counts === undefined)) failed = 1;
  return { passed: counts?.pass ?? 0, failed, notes };
}

/** Of what tap says of one failure; all of it is in the results. */
const linesOfFailure = 40;

interface Failure {
  /** The test file, its subtests, the assertion. */
  readonly path: readonly string[];
  readonly lines: string[];
}

/** The assertions that failed, and the subtests that failed without one. A level is four columns. */
function failuresIn(tap: string): Failure[] {
  const failures: Failure[] = [];
  /** The subtests that lines belong to, each with the failures there were before it. */
  const open: { readonly name: string; readonly before: number }[] = [];
  let last: Failure | undefined;
  /** The columns before what tap says of the last result, where that is what is being read. */
  let column: number | undefined;
  for (const line of tap.split('\n')) {
    if (column !== undefined) {
      if (line === `${' '.repeat(column)}...`) column = undefined;
      else if (last !== undefined && last.lines.length < linesOfFailure) last.lines.push(line.slice(column));
      continue;
    }
    const subtest = /^( *)# Subtest: (.*)$/.exec(line);
    const result = /^( *)(not )?ok \d+(?: - (.*?))?(?: # (time=\S+|TODO\b.*|SKIP\b.*))?$/i.exec(line);
    if (subtest !== null) {
      const [, indent = '', name = ''] = subtest;
      open.length = indent.length / 4;
      open.push({ name, before: failures.length });
    } else if (result !== null) {
      const [, indent = '', not, name = '', remark = 'time'] = result;
      const level = indent.length / 4;
      const isOfWithin = failures.length > (open[level]?.before ?? failures.length);
      open.length = Math.min(open.length, level);
      last = undefined;
      if (not === undefined || isOfWithin || !remark.startsWith('time')) continue;
      last = { path: [...open.map((outer) => outer.name), name], lines: [] };
      failures.push(last);
    } else if (/^ *---$/.test(line)) {
      column = line.length - 3;
    }
  }
  return failures;
}

/** The runner's own count, over all files: "# { total: 9, pass: 7, fail: 1, skip: 1 }". */
function countsOf(tap: string): { pass: number; fail: number } | undefined {
  const line = /^# \{ total: .*\}$/gm;
  const last = [...tap.matchAll(line)].at(-1)?.[0];
  if (last === undefined) return undefined;
  const count = (name: string): number => Number(new RegExp(`\\b${name}: (\\d+)`).exec(last)?.[1] ?? 0);
  return { pass: count('pass'), fail: count('fail') };
}

if (isMain(import.meta.url)) {
  const [path = '', status = '1'] = process.argv.slice(2);
  const totals = totalsOf(readFileSync(path, 'utf8'), Number(status));
  for (const note of totals.notes) console.log(note);
  // What was printed before may have left the line begun.
  console.log(`\n${totals.passed} passed, ${totals.failed} failed`);
  process.exitCode = totals.failed === 0 ? 0 : 1;
}
