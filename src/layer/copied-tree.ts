import type { Inode } from '../erofs/tree.js';

/** A copy of a tree, with its hard links. `copies`, by what they are copies of, may hold some already, and gets all. */
export function copied(root: Inode, copies: Map<Inode, Inode>): Inode {
  const todo: Inode[] = [];
  const copyOf = (inode: Inode): Inode => {
    let copy = copies.get(inode);
    if (copy === undefined) {
      copy = { ...inode };
      copies.set(inode, copy);
      todo.push(copy);
    }
    return copy;
  };
  const copy = copyOf(root);
  for (let inode = todo.pop(); inode !== undefined; inode = todo.pop()) {
    if (inode.xattrs !== undefined) inode.xattrs = new Map(inode.xattrs);
    if (inode.children === undefined) continue;
    const children = new Map<string, Inode>();
    for (const [name, child] of inode.children) children.set(name, copyOf(child));
    inode.children = children;
  }
  return copy;
}
