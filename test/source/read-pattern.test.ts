import t from 'tap';
import { Distance } from '../../src/source/fetch/read-pattern.js';

const NEAR = 64 * 1024;
const FAR = 96 * 1024;

const partAfter = (...milliseconds: readonly number[]): number => {
  const distance = new Distance();
  for (const ms of milliseconds) distance.answered(ms);
  return distance.part;
};

t.test('of a registry that is far more is asked for at once, by the quickest of its last answers', async (t) => {
  t.equal(partAfter(), NEAR, 'before anything is known');
  t.equal(partAfter(2), NEAR);
  t.equal(partAfter(20), NEAR, 'the border');
  t.equal(partAfter(21), FAR);
  t.equal(partAfter(2, 500), NEAR, 'one that is near may be slow now and then');
  t.equal(partAfter(500, 2), NEAR, 'or at first');
  t.equal(partAfter(2, ...Array<number>(20).fill(100)), FAR, 'until it stays so');
  t.equal(partAfter(...Array<number>(20).fill(100), 2), NEAR);
});
