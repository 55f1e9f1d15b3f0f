import t from 'tap';
import { contentWithin } from '../../src/layer/parts.js';

const range = (start: number, end: number): { start: number; end: number } => ({ start, end });

t.test('content is that of the units of which a part has all, in the order of the parts', async (t) => {
  const list = [
    { from: range(0, 100), content: range(0, 1000) },
    { from: range(100, 200), content: range(1024, 1100) },
    { from: range(200, 300), content: range(1536, 1600) },
    // Of SOCI: a span that has nothing but the end of the stream.
    { from: range(300, 350), content: range(2048, 2048) },
    { from: range(350, 400), content: range(2048, 3000) },
  ];
  const units = { count: list.length, at: (index: number) => list[index]! };
  t.strictSame(contentWithin(units, []), []);
  t.strictSame(contentWithin(units, [range(250, 400), range(0, 200)]), [
    range(2048, 3000),
    range(0, 1000),
    range(1024, 1100),
  ]);
  t.strictSame(contentWithin(units, [range(101, 299), range(0, 99)]), [], 'not those of which a byte is missing');
  t.strictSame(contentWithin(units, [range(0, 1e12)]).length, list.length - 1);
});
