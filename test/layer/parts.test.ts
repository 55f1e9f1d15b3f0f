import t from 'tap';
import { contentWithin } from '../../src/layer/parts.js';

const range = (start: number, end: number): { start: number; end: number } => ({ start, end });

t.test('content is that of the units of which a part has all, in the order of the parts', async (t) => {
  // As in an eStargz whose landmark was moved, addresses do not ascend with places in the blob.
  const units = [
    { from: range(100, 200), content: range(0, 1000) },
    { from: range(200, 300), content: range(1024, 1100) },
    { from: range(0, 100), content: range(1536, 1600) },
    { from: range(300, 400), content: range(2048, 3000) },
  ];
  t.strictSame(contentWithin(units, []), []);
  t.strictSame(contentWithin(units, [range(250, 400), range(0, 200)]), [
    range(2048, 3000),
    range(0, 1000),
    range(1536, 1600),
  ]);
  t.strictSame(contentWithin(units, [range(101, 200), range(0, 99)]), [], 'not those of which a byte is missing');
  t.strictSame(contentWithin(units, [range(0, 1e12)]).length, units.length);
});
