/** The pathWhitelist of appc images: of a layer's tree only the listed paths are used (spec/aci.md, "pathWhitelist"). */
import { cleanPath } from '../erofs/paths.js';
import { marker, type Inode } from '../erofs/tree.js';

/** A listed path, or one on the way to some. */
interface Listed {
  listed: boolean;
  readonly below: Map<string, Listed>;
}

/**
 * Takes out of a layer's tree what `paths` (raw bytes in latin1) do not name. Naming a directory does not name what is
 * in it. Directories on the way to a listed path stay as they are.
 */
export function keepListed(root: Inode, paths: readonly string[]): void {
  const top = listedTree(paths);
  const todo: { readonly directory: Inode; readonly here: Listed }[] = [{ directory: root, here: top }];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const { directory, here } = next;
    for (const [name, child] of directory.children ?? []) {
      if (child.xattrs?.has(marker.superseded) === true) {
        for (const tree of child.children?.values() ?? []) todo.push({ directory: tree, here: top });
        continue;
      }
      if (child.xattrs?.has(marker.more) === true) continue;
      const listed = here.below.get(name);
      const stays = listed !== undefined && (listed.listed || child.children !== undefined);
      if (!stays) directory.children?.delete(name);
      else if (child.children !== undefined) todo.push({ directory: child, here: listed });
    }
  }
}

function listedTree(paths: readonly string[]): Listed {
  const root: Listed = { listed: true, below: new Map() };
  for (const path of paths) {
    let here = root;
    for (const name of cleanPath(path).components) {
      let below = here.below.get(name);
      if (below === undefined) here.below.set(name, (below = { listed: false, below: new Map() }));
      here = below;
    }
    here.listed = true;
  }
  return root;
}
