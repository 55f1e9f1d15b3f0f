/** Two trees, node by node: what differs, in a form that rules can look at. */
import { escapeBytes, type Node } from '../conformance/dump.js';

export interface Difference {
  /** Printable. */
  readonly path: string;
  readonly field: string;
  readonly ours: string;
  readonly oracle: string;
  /** Undefined where that side has nothing at the path. */
  readonly nodes: { readonly ours: Node | undefined; readonly oracle: Node | undefined };
}

const NONE = '(none)';

export function compareNodes(ours: readonly Node[], oracle: readonly Node[]): Difference[] {
  const [a, b] = [describe(ours), describe(oracle)];
  const differences: Difference[] = [];
  for (const path of new Set([...a.keys(), ...b.keys()])) {
    const [inOurs, inOracle] = [a.get(path), b.get(path)];
    const nodes = { ours: inOurs?.node, oracle: inOracle?.node };
    const differs = (field: string, ours = NONE, oracle = NONE): void => {
      if (ours !== oracle) differences.push({ path: escapeBytes(path), field, ours, oracle, nodes });
    };
    if (inOurs === undefined || inOracle === undefined) {
      differs(inOurs === undefined ? 'missing' : 'extra', inOurs?.node.type, inOracle?.node.type);
      continue;
    }
    for (const field of new Set([...inOurs.fields.keys(), ...inOracle.fields.keys()])) {
      differs(field, inOurs.fields.get(field), inOracle.fields.get(field));
    }
  }
  return differences;
}

interface Described {
  readonly node: Node;
  readonly fields: Map<string, string>;
}

function describe(nodes: readonly Node[]): Map<string, Described> {
  const names = new Map<number, string>();
  const described = new Map<string, Described>();
  for (const node of [...nodes].sort((x, y) => (x.path < y.path ? -1 : 1))) {
    const isDirectory = node.type === 'dir';
    const fields = new Map([
      ['type', node.type],
      ['mode', node.mode.toString(8)],
      ['uid', String(node.uid)],
      ['gid', String(node.gid)],
      ['mtime', node.mtime],
      ['nlink', String(node.nlink)],
      ['target', escapeBytes(node.target)],
      ['content', node.content],
    ]);
    if (!isDirectory) {
      const first = names.get(node.inode) ?? node.path;
      names.set(node.inode, first);
      // A directory's size is the file system's own affair.
      fields.set('size', String(node.size)).set('hardlink', escapeBytes(first));
    }
    if (node.type === 'chr' || node.type === 'blk') fields.set('rdev', node.rdev);
    for (const [name, value] of node.xattrs) fields.set(`xattr ${escapeBytes(name)}`, value.toString('hex'));
    described.set(node.path, { node, fields });
  }
  return described;
}
