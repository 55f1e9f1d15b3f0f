import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { compareTrees, type Field } from '../../scripts/compare-trees.js';
import { removeTree } from '../../scripts/leftovers.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

const latin1 = (directory: string, name: string): Buffer => Buffer.from(`${directory}/${name}`, 'latin1');

/** A tree with one of everything. */
function makeTree(directory: string): void {
  mkdirSync(directory);
  const at = (name: string): string => join(directory, name);
  writeFileSync(at('file'), 'x'.repeat(3_000_000));
  writeFileSync(at('other'), 'other');
  linkSync(at('other'), at('other-link'));
  writeFileSync(at('third'), 'other');
  symlinkSync('file', at('link'));
  writeFileSync(latin1(directory, '\xff\xfe'), 'bytes');
  writeFileSync(at('n'.repeat(255)), 'long');
  execFileSync('mkfifo', [at('fifo')]);
  execFileSync('setfattr', ['-n', 'user.some', '-v', 'value', at('file')]);
  if (isRoot) execFileSync('mknod', [at('device'), 'c', '300', '70000']);
  makeDeep(directory, 10, 'leaf');
}

/** Directories within each other with names of 200 bytes, and a file at the end. */
function makeDeep(directory: string, levels: number, leaf: string): void {
  const level = 'd'.repeat(200);
  const script = `cd "$1" && ${`mkdir ${level} && cd ${level} && `.repeat(levels)} echo "$2" >leaf`;
  execFileSync('bash', ['-c', script, '-', directory, leaf]);
}

t.test('compareTrees: a copy is equal, every kind of change is found where it is', async (t) => {
  if (skipUnless(t, isRoot, 'changing owners and devices needs root')) return;
  const base = tempDir(t);
  const original = join(base, 'original');
  makeTree(original);

  const changes: Record<string, [field: Field, path: string, change: (copy: string) => void]> = {
    'a missing name': ['missing', '/third', (copy) => unlinkSync(join(copy, 'third'))],
    'a further name': ['extra', '/more', (copy) => writeFileSync(join(copy, 'more'), '')],
    'a name of bytes': ['missing', '/\\xff\\xfe', (copy) => unlinkSync(latin1(copy, '\xff\xfe'))],
    'another type': ['type', '/fifo', (copy) => replace(copy, 'fifo', (at) => writeFileSync(at, ''))],
    'a mode': ['mode', '/other', (copy) => chmodSync(join(copy, 'other'), 0o600)],
    'set-user-ID': ['mode', '/file', (copy) => chmodSync(join(copy, 'file'), 0o4644)],
    'an owner': ['uid', '/link', (copy) => execFileSync('chown', ['-h', '12345', join(copy, 'link')])],
    'a group': ['gid', '/file', (copy) => execFileSync('chgrp', ['12345', join(copy, 'file')])],
    'a size': ['size', '/file', (copy) => truncateSync(join(copy, 'file'), 2_999_999)],
    'a time, by a nanosecond': ['mtime', '/link', (copy) => touch(copy, 'link', '1.000000001')],
    'the time of the root': ['mtime', '/', (copy) => lutimesSync(copy, 1, 1)],
    'a device number': [
      'rdev',
      '/device',
      (copy) => replace(copy, 'device', (at) => execFileSync('mknod', [at, 'c', '300', '70001'])),
    ],
    'a link fewer': ['nlink', '/other', (copy) => replace(copy, 'other-link', (at) => writeFileSync(at, 'other'))],
    'links of other files': ['hardlink', '/third', swapLinks],
    'a target': ['target', '/link', (copy) => replace(copy, 'link', (at) => symlinkSync('fill', at))],
    'an attribute': ['xattr', '/file', (copy) => setXattr(copy, 'user.some', 'valuf')],
    'a further attribute': ['xattr', '/file', (copy) => setXattr(copy, 'trusted.more', '1')],
    'a byte beyond the first step': ['content', '/file', (copy) => patch(copy, 'file', 2_500_000)],
  };
  for (const [name, [field, path, change]] of Object.entries(changes)) {
    const copy = join(base, 'copy');
    execFileSync('cp', ['-a', original, copy]);
    if (name === 'a missing name') {
      const { total, entries, bytes } = await compareTrees(copy, original);
      t.equal(total, 0, 'a copy is equal');
      t.equal(entries, 1 + 9 + 11, 'every entry is visited');
      t.equal(bytes, 3_000_000 + 5 + 5 + 5 + 4 + 5, 'content is read once for each file');
    }
    change(copy);
    const { differences } = await compareTrees(copy, original, { limit: 1000 });
    t.ok(
      differences.some((d) => d.field === field && d.path === path),
      `${name} is found as ${field} of ${path}`,
    );
    const others = differences.filter((d) => d.field !== field && d.field !== 'mtime');
    t.ok(others.length <= 4, `${name} gives no flood of other differences`);
    await removeTree(copy);
  }
});

t.test('compareTrees: goes deeper than PATH_MAX', async (t) => {
  const base = tempDir(t);
  for (const [side, leaf] of Object.entries({ a: 'same', b: 'same', c: 'diff' })) {
    mkdirSync(join(base, side));
    makeDeep(join(base, side), 30, leaf);
  }
  const ignore = [{ field: 'mtime', glob: '**' }] as const;
  t.match(await compareTrees(join(base, 'a'), join(base, 'b'), { ignore }), { total: 0, entries: 32 });
  const { differences } = await compareTrees(join(base, 'a'), join(base, 'c'), { ignore });
  t.match(differences, [{ field: 'content', path: /\/leaf$/ }]);
});

t.test('compareTrees: ignores what it is told to, and counts it', async (t) => {
  const base = tempDir(t);
  for (const side of ['a', 'b']) {
    mkdirSync(join(base, side, 'etc'), { recursive: true });
    writeFileSync(join(base, side, 'etc/one'), side);
    writeFileSync(join(base, side, 'etc/two'), side);
    for (const at of ['etc/one', 'etc/two', 'etc', '']) lutimesSync(join(base, side, at), 5, 5);
  }
  const compare = (glob: string): ReturnType<typeof compareTrees> =>
    compareTrees(join(base, 'a'), join(base, 'b'), { ignore: [{ field: 'content', glob }] });
  t.equal((await compare('/other')).total, 2);
  t.match(await compare('/etc/o*'), { total: 1, ignored: 1, differences: [{ path: '/etc/two' }] });
  t.equal((await compare('/*')).total, 2, 'a star stays within a name');
  t.match(await compare('/**'), { total: 0, ignored: 2 });
});

function replace(directory: string, name: string, make: (at: string) => void): void {
  unlinkSync(join(directory, name));
  make(join(directory, name));
}

function touch(directory: string, name: string, time: string): void {
  execFileSync('touch', ['-h', '-d', `@${time}`, join(directory, name)]);
}

function setXattr(directory: string, name: string, value: string): void {
  execFileSync('setfattr', ['-n', name, '-v', value, join(directory, 'file')]);
}

function patch(directory: string, name: string, at: number): void {
  execFileSync('dd', [`of=${join(directory, name)}`, 'bs=1', `seek=${at}`, 'conv=notrunc', 'status=none'], {
    input: 'y',
  });
}

/** other and third become one file, other-link another: the counts are the same as before. */
function swapLinks(copy: string): void {
  unlinkSync(join(copy, 'other-link'));
  unlinkSync(join(copy, 'third'));
  linkSync(join(copy, 'other'), join(copy, 'third'));
  writeFileSync(join(copy, 'other-link'), 'other');
}
