/** What the benches share: commands, times, and how they are shown. */
import { existsSync, writeFileSync } from 'node:fs';
import { runCommand, type CliResult } from '../test/support/cli.js';

const TIMEOUT_MS = 900_000;

/** Throws when it fails. */
export async function run(
  command: string,
  args: readonly string[],
  { cwd, env = {} }: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<CliResult> {
  const options = { env: { NODE_EXTRA_CA_CERTS: undefined, ...env }, timeout: TIMEOUT_MS };
  const result = await runCommand(command, args, { ...options, ...(cwd === undefined ? {} : { cwd }) });
  if (result.code !== 0) {
    throw new Error(`${command} ${args.join(' ')} ended with ${result.code}:\n${result.stderr.slice(0, 2000)}`);
  }
  return result;
}

/** Seconds. */
export async function timed(act: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await act();
  return (performance.now() - start) / 1000;
}

export async function dropCaches(): Promise<void> {
  await run('sync', []);
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

export function median(times: readonly number[]): number {
  const sorted = [...times].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = 0, high = 0] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]];
  return (low + high) / 2;
}

/** For a shell. */
export function quote(path: string): string {
  if (path.includes("'")) throw new Error(`Cannot use a path with a quote: ${path}`);
  return `'${path}'`;
}

export const READ_ALL = 'find . -xdev -type f -print0 | xargs -0 cat >/dev/null';

/** Of `--runs`. */
export function runsOf(text: string): number {
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 1) throw new Error('--runs takes a number from 1 on');
  return runs;
}

/** Throws where nothing can be mounted. */
export function checkCanMount(): void {
  if (process.geteuid?.() !== 0 || !existsSync('/dev/fuse')) throw new Error('bench needs root and /dev/fuse');
}

/** Runs a bench, prints its rows as JSON where that is asked for, and takes away what it has made. */
export async function runBench(
  bench: { run(): Promise<readonly unknown[]>; close(): Promise<void> },
  json: boolean,
): Promise<void> {
  try {
    const rows = await bench.run();
    if (json) console.log(JSON.stringify(rows, null, 2));
  } finally {
    await bench.close();
  }
}
