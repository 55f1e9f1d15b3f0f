/**
 * The fuzzer: inputs made of a corpus, each given to a target, and what must hold of every one of them:
 *
 * - the target returns, or throws a LaminaError (its `code` says why); it does so within a time;
 * - it writes nothing into the input, and its answer does not depend on the bytes around it;
 * - memory stays below a bound.
 *
 * No coverage is measured. An input whose answer is of a new kind (another error, with the numbers in its message left
 * out, or another shape of success) joins the corpus in memory, which is nearly as good for parsers that say why.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { LaminaError } from '../../src/errors.js';
import { projectRoot } from '../support/project.js';
import { mutate } from './mutate.js';
import { Random } from './random.js';
import type { Target } from './targets.js';

/** Bytes of an input. */
const INPUT_MAX = 64 * 1024;
/** Inputs in memory that the corpus may grow to. */
const CORPUS_MAX = 4000;
/** Milliseconds: the largest inputs take a hundredth of it. */
const TIME_MAX = 5000;
/** Bytes that the process may grow by. */
const MEMORY_MAX = 1024 * 1024 * 1024;
/** Bytes before and after an input. */
const AROUND = 64;

export interface Find {
  readonly input: Buffer;
  readonly why: string;
}

export interface FuzzOptions {
  readonly seed: number;
  /** Asked before each input with the number of those before it. */
  readonly goOn: (runs: number) => boolean;
  /** Called with each input before the target sees it. */
  readonly onInput?: (input: Buffer) => void;
  readonly onFind: (find: Find) => void;
}

export interface FuzzResult {
  readonly runs: number;
  /** How often each error code came; "none" for inputs that were taken. */
  readonly codes: Readonly<Record<string, number>>;
  /** Kinds of answers. */
  readonly kinds: number;
}

/** Files of the saved corpus, in the order of their names. */
export function readCorpus(target: string): Map<string, Buffer> {
  const directory = join(projectRoot, 'test/fuzz/corpus', target);
  return new Map(
    readdirSync(directory)
      .sort()
      .map((name) => [name, readFileSync(join(directory, name))]),
  );
}

export function fuzz(target: Target, saved: Iterable<Buffer>, options: FuzzOptions): FuzzResult {
  const random = new Random(options.seed);
  const corpus = [...saved, ...target.dictionary.map((word) => Buffer.from(word))];
  const mutation = { dictionary: target.dictionary, most: target.most ?? INPUT_MAX };
  const kinds = new Set<string>();
  const codes: Record<string, number> = {};
  const before = process.memoryUsage.rss();
  let runs = 0;
  for (; options.goOn(runs); runs++) {
    const mutated = mutate(corpus, random, mutation);
    const input = target.repair !== undefined && random.chance(80) ? target.repair(mutated) : mutated;
    options.onInput?.(input);
    try {
      const { code, kind } = check(target, input);
      codes[code] = (codes[code] ?? 0) + 1;
      if (!kinds.has(kind)) {
        kinds.add(kind);
        if (corpus.length < CORPUS_MAX) corpus.push(input);
      }
      if (runs % 256 === 0 && process.memoryUsage.rss() - before > MEMORY_MAX) throw new Error('memory grows');
    } catch (e) {
      options.onFind({ input, why: e instanceof Error ? (e.stack ?? e.message) : String(e) });
    }
  }
  return { runs, codes, kinds: kinds.size };
}

/** What the target makes of an input. Throws an error for people where something does not hold. */
export function check(target: Target, input: Buffer): { code: string; kind: string } {
  const started = performance.now();
  const first = answer(target, input, 0x00);
  const took = performance.now() - started;
  if (took > TIME_MAX) throw new Error(`it took ${Math.round(took)} ms`);
  if (target.once !== true) {
    const second = answer(target, input, 0xa5);
    if (second.text !== first.text) {
      throw new Error(`the answer depends on what is around the input:\n${first.text}\n${second.text}`);
    }
  }
  return { code: first.code, kind: first.kind };
}

function answer(target: Target, input: Buffer, filling: number): { code: string; kind: string; text: string } {
  const whole = Buffer.alloc(input.length + 2 * AROUND, filling);
  input.copy(whole, AROUND);
  const bytes = whole.subarray(AROUND, AROUND + input.length);
  let text: string;
  let kind: string;
  let code = 'none';
  try {
    text = target.run(bytes);
    kind = `none ${text.slice(0, text.indexOf(' '))}`;
  } catch (e) {
    if (!(e instanceof LaminaError)) throw e;
    if (e.code === 'INTERNAL') throw e;
    code = e.code;
    text = `${e.code}: ${e.message}`;
    kind = text
      .replace(/"(?:[^"\\]|\\.)*"/g, '""')
      .replace(/\d+/g, '0')
      .slice(0, 200);
  }
  if (!input.equals(bytes)) throw new Error('the input was written to');
  return { code, kind, text };
}
