/** Finding and making directories in a tree that grows. */
import t from 'tap';
import { DEPTH_MAX, impliedDirectory, meetsSymlink, resolveDirectory } from '../../src/erofs/paths.js';
import { S_IFLNK, S_IFREG, type Inode } from '../../src/erofs/tree.js';

function other(mode: number, target?: string): Inode {
  const inode = { ...impliedDirectory(), mode, ...(target === undefined ? {} : { target }) };
  delete inode.children;
  return inode;
}

const symlink = (target: string): Inode => other(S_IFLNK | 0o777, target);
const make = (): Inode => impliedDirectory();

t.test('what ".." takes back need not be a directory, and is not made', async (t) => {
  const root = impliedDirectory();
  const file = other(S_IFREG | 0o644);
  root.children?.set('file', file).set('to-file', symlink('file')).set('a', impliedDirectory());
  for (const target of ['file/../a', 'to-file/../a', 'none/../a', 'none/none/../../a', '../none/.././a/']) {
    root.children?.set('link', symlink(target));
    t.equal(resolveDirectory(root, ['link'], { follow: true }), root.children?.get('a'), target);
    t.equal(resolveDirectory(root, ['link'], { follow: true, make }), root.children?.get('a'), target);
  }
  t.equal(root.children?.get('file'), file);
  t.notOk(root.children?.has('none'));
});

t.test('a symlink on the way', async (t) => {
  const root = impliedDirectory();
  const a = impliedDirectory();
  root.children?.set('a', a).set('link', symlink('a'));
  a.children?.set('loop', symlink('loop'));
  t.notOk(meetsSymlink(root, ['a', 'b', 'c']));
  t.notOk(meetsSymlink(root, []));
  t.ok(meetsSymlink(root, ['link']));
  t.ok(meetsSymlink(root, ['a', 'loop', 'x']), 'is not followed');
});

t.test('what is missing is made from there on, in place of what is no directory', async (t) => {
  const root = impliedDirectory();
  root.children?.set('file', other(S_IFREG | 0o644));
  t.equal(resolveDirectory(root, ['file', 'b', 'c'], { follow: true }), undefined);
  const made = resolveDirectory(root, ['file', 'b', 'c'], { follow: true, make });
  t.equal(root.children?.get('file')?.children?.get('b')?.children?.get('c'), made);
});

t.test('limits', async (t) => {
  const root = impliedDirectory();
  const deep = Array.from({ length: DEPTH_MAX + 1 }, () => 'd');
  t.equal(resolveDirectory(root, deep, { follow: true }), undefined, 'looking for what is not there is no error');
  t.throws(() => resolveDirectory(root, deep, { follow: true, make }), { code: 'LIMIT_EXCEEDED' });
  root.children?.set('x', symlink('new/../y')).set('y', symlink('x'));
  t.throws(() => resolveDirectory(root, ['x', 'z'], { follow: true, make }), { code: 'PATH_LOOP' });
  t.strictSame([...(root.children?.keys() ?? [])], ['x', 'y'], 'nothing is made on the way to an error');
});
