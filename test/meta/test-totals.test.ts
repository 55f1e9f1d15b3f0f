import t from 'tap';
import { totalsOf } from '../../scripts/test-totals.js';

const run = (lines: readonly string[], total: string): string =>
  ['TAP version 14', ...lines, '', '# No coverage generated', `# { ${total} }`, '# time=5ms', ''].join('\n');

t.test('totalsOf counts what the runner counted', async (t) => {
  t.match(totalsOf(run(['ok 1 - a'], 'total: 3, pass: 3'), 0), { passed: 3, failed: 0 });
  t.match(totalsOf(run(['not ok 1 - a'], 'total: 3, pass: 1, fail: 2'), 1), { passed: 1, failed: 2 });
});

t.test('totalsOf counts a skip as a failure, but for the limits of the machine', async (t) => {
  const lines = ['    ok 1 - a # SKIP', '    ok 2 - b # SKIP no /dev/fuse', 'ok 3 - c # SKIP [crun-cgroups] cgroups'];
  const { passed, failed, notes } = totalsOf(run(lines, 'total: 4, pass: 1, skip: 3'), 0);
  t.match({ passed, failed }, { passed: 1, failed: 2 });
  t.equal(notes.length, 3);
  t.match(notes[1], 'which is a failure here: ok 2 - b # no /dev/fuse');
  t.match(notes[2], /^skipped: ok 3/);
  t.match(totalsOf(run(['ok 1 - a # SKIP [unknown] x'], 'total: 1, skip: 1'), 0), { failed: 1 });
});

t.test('totalsOf does not take a broken run for a good one', async (t) => {
  t.match(totalsOf('', 0), { passed: 0, failed: 1 });
  t.match(totalsOf(run(['ok 1 - a'], 'total: 3, pass: 3'), 1), { passed: 3, failed: 1 }, 'the status counts too');
  t.match(totalsOf('TAP version 14\nok 1 - a\n', 1), { passed: 0, failed: 1 }, 'a run that was killed');
});

t.test('totalsOf says what failed, where, and what tap says of it', async (t) => {
  const tap = [
    '# Subtest: a.test.js',
    '    # Subtest: passes',
    '        ok 1 - x',
    '        1..1',
    '    ok 1 - passes # time=5ms',
    '    # Subtest: outer',
    '        # Subtest: inner',
    '            not ok 1 - should \\# be 2',
    '              ---',
    '              diff: |',
    '                not ok 7 - a line of the diff',
    '              ...',
    '            ',
    '        not ok 1 - inner # time=64.664ms',
    '          ---',
    '          at: of the subtest',
    '          ...',
    '    not ok 2 - outer # time=98.717ms',
    '    not ok 3 - child test left in queue: y',
    'not ok 1 - a.test.js # time=2138.849ms',
    '# Subtest: b.test.js',
    '    # Subtest: dies',
    'not ok 2 - b.test.js # time=1ms',
    '  ---',
    '  signal: SIGKILL',
    '  ...',
  ];
  t.strictSame(totalsOf(run(tap, 'total: 4, pass: 1, fail: 3'), 1).notes, [
    'failed: a.test.js > outer > inner > should # be 2\n  diff: not ok 7 - a line of the diff',
    'failed: a.test.js > child test left in queue: y',
    'failed: b.test.js\n  signal: SIGKILL',
  ]);
  t.strictSame(totalsOf(run(['ok 1 - a'], 'total: 3, pass: 3'), 7).notes, [
    'nothing failed, but the status of the run is 7',
  ]);
});
