import t from 'tap';
import { rehearse } from '../../src/image/rehearsal.js';

t.test('A rehearsal comes to its end, in steps between which a job can be taken', async (t) => {
  const steps = [...rehearse()].length;
  t.ok(steps > 20, `${steps} steps`);
});
