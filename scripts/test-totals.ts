/**
 * The last line of a test run, "N passed, N failed", and before it what failed, from the TAP that the run left:
 *
 *     node dist/scripts/test-totals.js RESULTS.tap EXIT-STATUS
 *
 * A skip counts as a failure, unless its reason starts with the name of an entry of test/support/machine-limits.ts in
 * brackets. Exits with 1 if anything failed or the run's own status was not 0.
 */
import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { Parser, type Result } from 'tap-parser';
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
  notes.push(...failuresIn(tap));
  if (counts === undefined) notes.push('the test run did not come to its end');
  if (failed === 0 && status !== 0) notes.push(`nothing failed, but the status of the run is ${status}`);
  if (failed === 0 && (status !== 0 || counts === undefined)) failed = 1;
  return { passed: counts?.pass ?? 0, failed, notes };
}

/** Of what tap says of one failure; all of it is in the results. */
const LINES_OF_FAILURE = 40;

/** The assertions that failed, and the subtests and files that failed without one, each with what tap says of it. */
function failuresIn(tap: string): string[] {
  const failures: Result[] = [];
  const watch = (parser: Parser): void => {
    parser.on('child', watch);
    parser.on('assert', (result: Result) => {
      if (result.ok || result.todo !== false) return;
      const isOfWithin =
        result.closingTestPoint && failures.some(({ fullname }) => fullname.startsWith(`${result.fullname} > `));
      if (!isOfWithin) failures.push(result);
    });
  };
  const parser = new Parser();
  watch(parser);
  parser.end(tap);
  return failures.map(({ fullname, diag }) => {
    const said = Object.entries((diag ?? {}) as Record<string, unknown>).flatMap(([name, value]) =>
      `${name}: ${typeof value === 'string' ? value.trimEnd() : inspect(value)}`.split('\n'),
    );
    return [`failed: ${fullname}`, ...said.slice(0, LINES_OF_FAILURE)].join('\n  ');
  });
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
