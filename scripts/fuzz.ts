/**
 * Fuzzes what reads bytes of strangers, for as long as it is told:
 *
 *     npm run fuzz -- [--target NAME]... [--minutes N] [--seed N] [--out DIR]
 *     npm run fuzz -- --target NAME --input FILE
 *
 * Without --target the minutes are shared out among all. Each target runs in a process of its own with a heap of 512 MiB.
 * The process writes each input into a file before it is looked at; when it dies or hangs, that file has the input. Finds
 * go to DIR (.cache/fuzz), and from there, made small, into test/fuzz/corpus. Exits with 1 if there was any.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { check, fuzz, readCorpus, type FuzzResult } from '../test/fuzz/fuzz.js';
import { targets, type Target } from '../test/fuzz/targets.js';
import { projectRoot } from '../test/support/project.js';
import { isMain } from './main.js';

/** Milliseconds that an input may take before it counts as a hang. */
const HANG = 20_000;
/** Of the file with the current input: u32 number of the input, u32 length, the bytes. */
const HEAD = 8;
/** Finds of one target that are kept. */
const FINDS_MAX = 20;

interface Job {
  readonly target: Target;
  readonly minutes: number;
  readonly seed: number;
  readonly out: string;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      target: { type: 'string', multiple: true },
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string' },
      out: { type: 'string', default: join(projectRoot, '.cache/fuzz') },
      input: { type: 'string' },
      child: { type: 'boolean', default: false },
    },
  });
  const chosen = values.target === undefined ? targets : values.target.map(byName);
  const minutes = Number(values.minutes) / chosen.length;
  const seed = Number(values.seed ?? Date.now() % 2 ** 31);
  if (!(minutes > 0) || !Number.isSafeInteger(seed)) throw new Error('--minutes and --seed are numbers');
  mkdirSync(values.out, { recursive: true });
  const [first] = chosen;
  if (values.input !== undefined && first !== undefined) {
    console.log(check(first, readFileSync(values.input)));
    return;
  }
  if (values.child && first !== undefined) {
    runChild({ target: first, minutes, seed, out: values.out });
    return;
  }
  for (const target of chosen) if (!(await run({ target, minutes, seed, out: values.out }))) process.exitCode = 1;
}

function byName(name: string): Target {
  const found = targets.find((target) => target.name === name);
  if (found !== undefined) return found;
  throw new Error(`There is no target ${name}; there are ${targets.map((target) => target.name).join(', ')}`);
}

/** False when something was found. */
async function run({ target, minutes, seed, out }: Job): Promise<boolean> {
  const script = fileURLToPath(import.meta.url);
  const options = ['--target', target.name, '--minutes', String(minutes), '--seed', String(seed), '--out', out];
  const child = spawn(process.execPath, ['--max-old-space-size=512', script, '--child', ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (bytes: Buffer) => (text += bytes.toString()));
  const current = currentFile(out, target);
  let hung = false;
  let before = -1;
  const watch = setInterval(() => {
    const number = currentNumber(current);
    hung = number === before;
    before = number;
    if (hung) child.kill('SIGKILL');
  }, HANG);
  const status = await new Promise<string>((resolve) => {
    child.on('close', (code, signal) => resolve(signal ?? String(code)));
  });
  clearInterval(watch);
  if (status === '0') {
    const { runs, codes, kinds, finds } = JSON.parse(text) as FuzzResult & { finds: number };
    const list = Object.entries(codes).map(([code, n]) => `${code} ${n}`);
    console.log(
      `${target.name}: ${runs} inputs, ${kinds} kinds of answers, ${finds} finds (seed ${seed}; ${list.join(', ')})`,
    );
    return finds === 0;
  }
  const file = join(out, `${target.name}-${hung ? 'hang' : 'crash'}-${seed}`);
  const bytes = readFileSync(current);
  writeFileSync(file, bytes.subarray(HEAD, HEAD + bytes.readUInt32LE(4)));
  console.log(`${target.name}: ${hung ? 'an input took too long' : `the process ended with ${status}`}: ${file}`);
  return false;
}

const currentFile = (out: string, target: Target): string => join(out, `${target.name}.current`);

function currentNumber(path: string): number {
  const head = Buffer.alloc(HEAD);
  try {
    const fd = openSync(path, 'r');
    readSync(fd, head, 0, HEAD, 0);
    closeSync(fd);
  } catch {
    return -1;
  }
  return head.readUInt32LE(0);
}

function runChild({ target, minutes, seed, out }: Job): void {
  const until = performance.now() + minutes * 60_000;
  const fd = openSync(currentFile(out, target), 'w');
  const head = Buffer.alloc(HEAD);
  const seen = new Set<string>();
  let finds = 0;
  let number = 0;
  const result = fuzz(target, readCorpus(target.name).values(), {
    seed,
    goOn: () => performance.now() < until,
    onInput: (input) => {
      head.writeUInt32LE(++number >>> 0, 0);
      head.writeUInt32LE(input.length, 4);
      writeSync(fd, Buffer.concat([head, input]), 0, HEAD + input.length, 0);
    },
    onFind: ({ input, why }) => {
      finds++;
      const kind = why.split('\n').slice(0, 3).join('\n').replace(/\d+/g, '0');
      if (seen.has(kind) || seen.size >= FINDS_MAX) return;
      seen.add(kind);
      const file = join(out, `${target.name}-${seed}-${number}`);
      writeFileSync(file, input);
      console.error(`${target.name}: ${file}\n${why}`);
    },
  });
  closeSync(fd);
  console.log(JSON.stringify({ ...result, finds }));
}

if (isMain(import.meta.url)) await main();
