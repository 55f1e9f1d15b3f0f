/**
 * What the generator believes the tree to be: only names, types and symlink targets, enough to aim at what exists and
 * to stay clear of what the oracles are known to get wrong. Never compared with anything.
 */
import type { StackEntry } from './stack.js';

export interface Node {
  readonly type: Exclude<StackEntry['type'], 'hardlink'>;
  readonly target?: string;
  /** Of the layer that made it; -1 for directories only implied. */
  readonly layer: number;
  readonly children: Map<string, Node>;
}

export interface Resolved {
  /** Components without symlinks. */
  readonly path: readonly string[];
  /** Undefined: not there yet. */
  readonly node: Node | undefined;
  /** Paths of the symlinks followed. */
  readonly through: readonly string[];
}

const HOPS_MAX = 20;

export function directory(layer: number): Node {
  return { type: 'directory', layer, children: new Map() };
}

export function key(path: readonly string[]): string {
  return path.join('/');
}

export class Model {
  root = directory(-1);

  clone(): Model {
    const copy = (node: Node): Node => ({
      ...node,
      children: new Map([...node.children].map(([name, child]) => [name, copy(child)])),
    });
    const model = new Model();
    model.root = copy(this.root);
    return model;
  }

  at(path: readonly string[]): Node | undefined {
    let here: Node | undefined = this.root;
    for (const name of path) here = here?.children.get(name);
    return here;
  }

  /**
   * A directory, there or to be made. Undefined where tools disagree or fail: something else than a directory on the
   * way, a loop, ".." from what is not there. A symlink that `follows` denies is in the way of nothing: it will be replaced.
   */
  resolve(components: readonly string[], follows: (node: Node) => boolean): Resolved | undefined {
    const todo = components.toReversed();
    const path: string[] = [];
    const through: string[] = [];
    for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
      if (name === '..') {
        if (this.at(path) === undefined) return undefined;
        path.pop();
        continue;
      }
      const child = this.at(path)?.children.get(name);
      if (child?.type === 'symlink' && follows(child)) {
        through.push(key([...path, name]));
        if (through.length > HOPS_MAX) return undefined;
        const target = child.target ?? '';
        if (target.startsWith('/')) path.length = 0;
        todo.push(
          ...target
            .split('/')
            .filter((part) => part !== '' && part !== '.')
            .reverse(),
        );
        continue;
      }
      if (child !== undefined && child.type !== 'directory' && child.type !== 'symlink') return undefined;
      path.push(name);
    }
    const node = this.at(path);
    return { path, node: node?.type === 'directory' ? node : undefined, through };
  }

  /** Makes what is missing on the way, as implied directories; the paths of these. */
  makeDirectory(path: readonly string[]): string[] {
    const made: string[] = [];
    let here = this.root;
    path.forEach((name, i) => {
      let child = here.children.get(name);
      if (child?.type !== 'directory') {
        child = directory(-1);
        here.children.set(name, child);
        made.push(key(path.slice(0, i + 1)));
      }
      here = child;
    });
    return made;
  }

  /** Every path below the root. */
  all(): { path: string[]; node: Node }[] {
    const found: { path: string[]; node: Node }[] = [];
    const todo: { path: string[]; node: Node }[] = [{ path: [], node: this.root }];
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      for (const [name, node] of next.node.children) {
        const child = { path: [...next.path, name], node };
        found.push(child);
        todo.push(child);
      }
    }
    return found;
  }
}
