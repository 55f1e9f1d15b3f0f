/** Every target of the fuzzer: each file of its corpus, and a bounded number of inputs from a fixed seed. */
import t from 'tap';
import fc from 'fast-check';
import { check, fuzz, readCorpus } from './fuzz.js';
import { mutate } from './mutate.js';
import { Random } from './random.js';
import { targets } from './targets.js';

const SEED = 20_250_101;

for (const target of targets) {
  t.test(`${target.name}: no input does anything but end, or fail with a code`, async (t) => {
    const corpus = readCorpus(target.name);
    t.ok(corpus.size > 0, 'there is a corpus');
    let taken = 0;
    for (const [name, input] of corpus) {
      try {
        if (check(target, input).code === 'none') taken++;
      } catch (e) {
        t.fail(name, { found: e instanceof Error ? e.message : String(e) });
      }
    }
    t.ok(taken > 0, 'some of it is taken without an error');
    const { runs, codes, kinds } = fuzz(target, corpus.values(), {
      seed: SEED,
      goOn: (runs) => runs < target.runs,
      onFind: ({ input, why }) => t.fail(why, { input: input.toString('base64').slice(0, 10_000) }),
    });
    t.equal(runs, target.runs);
    t.ok((codes['none'] ?? 0) > 0, 'not all inputs end at the first check', { codes });
    t.ok(kinds > 2, 'there are several kinds of answers', { codes, kinds });
  });
}

t.test('a mutation is decided by its seed, and keeps to its size', async (t) => {
  const options = { dictionary: [Buffer.from('word')], most: 300 };
  fc.assert(
    fc.property(
      fc.integer(),
      fc.array(fc.uint8Array({ maxLength: 400 }), { minLength: 1, maxLength: 4 }),
      (seed, inputs) => {
        const corpus = inputs.map((bytes) => Buffer.from(bytes));
        const before = corpus.map((bytes) => bytes.toString('hex'));
        const one = mutate(corpus, new Random(seed), options);
        const two = mutate(corpus, new Random(seed), options);
        const untouched = corpus.every((bytes, i) => bytes.toString('hex') === before[i]);
        return one.equals(two) && one.length <= Math.max(options.most, 400) && untouched;
      },
    ),
  );
  t.pass();
});
