/**
 * Reads the expected tree of a case: a line per path, where what is usual need not be said.
 *
 *     /dir/ 0750 7:8 @5.25 user.a="x"      a directory; mode 0755, owner 0:0 and time 0 unless given
 *     /file "text"   /file <name>          a file with this content, or with the case's content of this name; mode 0644
 *     /link -> target                      a symlink; everything else comes before the arrow
 *     /a #1 "x"                            names with the same number are one file
 *     /c chr(1,3)  /b blk(7,0)  /p fifo    others
 *
 * Paths, targets and quoted texts may hold \xNN. The root need not be named when it is as it is unless a layer says
 * something: mode 0755, owner 0:0, time 0. Link counts follow from the lines themselves.
 */
import type { Content } from './case.js';
import { HALF, contentHash, format, type Node } from './dump.js';

const TOKEN = /->\s.*$|[^\s"]*"(?:[^"\\]|\\.)*"|\S+/g;

type Draft = { -readonly [K in keyof Node]: Node[K] };

export function expectedLines(tree: string, contents: Readonly<Record<string, Content>> = {}): string[] {
  const lines = tree.split('\n').flatMap((line) => (line.trim() === '' ? [] : [line.trim()]));
  const nodes = lines.map((line, i) => parseLine(line, contents, i + 1));
  if (nodes[0]?.path !== '/') nodes.unshift(parseLine('/', contents, 0));
  setLinkCounts(nodes);
  // Bytewise by component: "/a/x" before "/a.b".
  const keys = new Map(nodes.map((node) => [node, node.path.replaceAll('/', '\0')]));
  nodes.sort((a, b) => compare(keys.get(a) ?? '', keys.get(b) ?? ''));
  return format(nodes);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** A directory has two links and one for each directory in it, a file one for each name. */
function setLinkCounts(nodes: readonly Draft[]): void {
  const directories = new Map<string, number>();
  const names = new Map<number, number>();
  for (const { path, type, inode } of nodes) {
    const parent = path.slice(0, path.lastIndexOf('/')) || '/';
    if (type !== 'dir') names.set(inode, (names.get(inode) ?? 0) + 1);
    else if (path !== '/') directories.set(parent, (directories.get(parent) ?? 0) + 1);
  }
  for (const node of nodes) {
    node.nlink = node.type === 'dir' ? 2 + (directories.get(node.path) ?? 0) : (names.get(node.inode) ?? 0);
  }
}

function parseLine(line: string, contents: Readonly<Record<string, Content>>, number: number): Draft {
  const [path = '', ...tokens] = line.match(TOKEN) ?? [];
  const isDirectory = path.endsWith('/');
  const node: Draft = {
    path: unescape(isDirectory && path !== '/' ? path.slice(0, -1) : path),
    type: isDirectory ? 'dir' : 'file',
    mode: isDirectory ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: '0.000000000',
    rdev: '0,0',
    nlink: 0,
    // Numbers of groups and of lines must not meet.
    inode: 1_000_000 + number,
    xattrs: [],
    target: '',
    content: isDirectory ? '' : contentHash(),
    otherTimes: '',
  };
  for (const token of tokens) apply(node, token, contents, line);
  node.xattrs = [...node.xattrs].sort(([a], [b]) => compare(a, b));
  return node;
}

function apply(node: Draft, token: string, contents: Readonly<Record<string, Content>>, line: string): void {
  const named = (text: string): Content => {
    const name = /^<(.*)>$/.exec(text)?.[1];
    if (name === undefined) return unescape(text.replace(/^"|"$/g, ''));
    const content = contents[name];
    if (content === undefined) throw new Error(`No content ${name}: ${line}`);
    return content;
  };
  const target = /^->\s(.*)$/.exec(token)?.[1];
  const owner = /^(\d+):(\d+)$/.exec(token);
  const time = /^@(-?\d+)(?:\.(\d+))?$/.exec(token);
  const device = /^(chr|blk)\((\d+),(\d+)\)$/.exec(token);
  const xattr = /^([a-z][^=]*)=(.*)$/s.exec(token);
  if (target !== undefined) {
    const bytes = bytesOf(named(target));
    node.type = 'link';
    if (node.mode === 0o644) node.mode = 0o777;
    node.content = '';
    node.target = bytes.toString('latin1');
    node.size = bytes.length;
  } else if (owner !== null) {
    node.uid = Number(owner[1]);
    node.gid = Number(owner[2]);
  } else if (time !== null) {
    node.mtime = `${time[1] ?? ''}.${(time[2] ?? '').padEnd(9, '0')}`;
  } else if (device !== null) {
    node.type = device[1] ?? '';
    node.rdev = `${device[2] ?? ''},${device[3] ?? ''}`;
    node.content = '';
  } else if (token === 'fifo') {
    node.type = 'fifo';
    node.content = '';
  } else if (/^0[0-7]+$/.test(token)) {
    node.mode = parseInt(token, 8);
  } else if (/^#\d+$/.test(token)) {
    node.inode = Number(token.slice(1));
  } else if (xattr !== null) {
    node.xattrs = [...node.xattrs, [xattr[1] ?? '', bytesOf(named(xattr[2] ?? ''))]];
  } else if (/^["<]/.test(token)) {
    const content = named(token);
    const large = typeof content === 'object' && !Buffer.isBuffer(content) ? content : undefined;
    node.size = large?.size ?? bytesOf(content).length;
    node.content = large === undefined ? contentHash(bytesOf(content)) : contentHash(large.head, large.tail);
  } else {
    throw new Error(`Cannot read ${token} in the line ${line}`);
  }
}

function bytesOf(content: Content): Buffer {
  if (typeof content === 'string') return Buffer.from(content, 'latin1');
  return Buffer.isBuffer(content) ? content : Buffer.alloc(0);
}

/** A file of zeros but for some bytes at its very end, too large to be compared whole. */
export function hollow(size: number, end: string): Content {
  const tail = Buffer.alloc(HALF);
  tail.write(end, HALF - end.length, 'latin1');
  return { size, head: Buffer.alloc(HALF), tail };
}

function unescape(text: string): string {
  return text.replace(/\\x([0-9a-f]{2})|\\(.)/g, (_, hex: string | undefined, other: string) =>
    hex === undefined ? (other === 'n' ? '\n' : other) : String.fromCharCode(parseInt(hex, 16)),
  );
}
