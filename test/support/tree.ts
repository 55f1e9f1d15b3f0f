/** Trees as text, for comparing: one line per path. */
import { S_IFDIR, S_IFMT, S_IFLNK, S_IFREG, type Inode } from '../../src/erofs/tree.js';

/** `path mode uid:gid target|size xattrs`, sorted; names that share an inode end in the same `#n`. */
export function dump(root: Inode): string[] {
  const lines: string[] = [];
  const names = new Map<Inode, number>();
  const count = (inode: Inode): void => {
    names.set(inode, (names.get(inode) ?? 0) + 1);
    for (const child of inode.children?.values() ?? []) count(child);
  };
  count(root);
  const ids = new Map<Inode, number>();
  const walk = (path: string, inode: Inode): void => {
    const kind = inode.mode & S_IFMT;
    let line = `${path === '' ? '/' : path} ${inode.mode.toString(8)} ${inode.uid}:${inode.gid}`;
    if (kind === S_IFLNK) line += ` -> ${inode.target ?? ''}`;
    if (kind === S_IFREG) line += ` ${inode.size}`;
    if (inode.rdev !== 0) line += ` rdev ${inode.rdev}`;
    for (const [name, value] of inode.xattrs ?? []) line += ` ${name}=${value.toString('latin1')}`;
    if (kind !== S_IFDIR && (names.get(inode) ?? 0) > 1) {
      if (!ids.has(inode)) ids.set(inode, ids.size + 1);
      line += ` #${ids.get(inode) ?? 0}`;
    }
    lines.push(line);
    for (const name of [...(inode.children?.keys() ?? [])].sort()) {
      const child = inode.children?.get(name);
      if (child !== undefined) walk(`${path}/${name}`, child);
    }
  };
  walk('', root);
  return lines;
}
