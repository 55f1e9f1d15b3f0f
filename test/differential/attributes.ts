/** Random names, attributes and contents of entries. */
import type { Random } from './random.js';
import type { StackEntry } from './stack.js';

const PLAIN = ['a', 'b', 'c', 'd', 'e', 'f', 'lib', 'usr', 'bin', '.hidden', '.whatever', 'x.y'];
const ODD = [
  'new\nline',
  '\xff\xfe\x80',
  'caf\xc3\xa9',
  'cafe\xcc\x81',
  ' ',
  '-rf',
  'back\\slash',
  '...',
  'A',
  '\x01\x7f',
  'wh.a',
  'n'.repeat(255),
  `${'\xe2\x98\x83'.repeat(60)}`,
  'm'.repeat(101),
];

export function randomName(random: Random): string {
  return random.oneIn(6) ? random.pick(ODD) : random.pick(PLAIN);
}

const MODES = [0o644, 0o755, 0o600, 0o000, 0o4755, 0o2755, 0o6711, 0o1777, 0o7777, 0o444];
const IDS = [0, 0, 1, 1000, 65534, 65536, 2097151, 2097152, 4294967293];
const DEVICES = [
  [1, 3],
  [7, 200],
  [300, 70000],
  [4095, 1048575],
  [0, 1],
] as const;
const SIZES = [0, 0, 1, 511, 512, 513, 4095, 4096, 5000, 65535, 65536, 65537, 150000];

/** `before1970`: whether the oracle can. Never 0: that is how directories look which nobody has described. */
export function randomTime(random: Random, before1970: boolean): string {
  const seconds = random.pick([
    1,
    1700000000,
    random.int(1, 2 ** 31),
    2 ** 31,
    2 ** 33 + 5,
    ...(before1970 ? [-1, -86400 * 365] : []),
  ]);
  return random.oneIn(2) ? String(seconds) : `${seconds}.${String(random.int(1, 999999999)).padStart(9, '0')}`;
}

export function randomAttributes(random: Random, type: StackEntry['type'], before1970: boolean): Partial<StackEntry> {
  const xattrs = randomXattrs(random, type);
  return {
    mode: random.pick(MODES),
    uid: random.pick(IDS),
    gid: random.pick(IDS),
    mtime: randomTime(random, before1970),
    ...(xattrs === undefined ? {} : { xattrs }),
    ...(random.oneIn(4) ? { form: 'gnu' as const } : {}),
    ...(type === 'char' || type === 'block' ? { device: random.pick(DEVICES) } : {}),
    ...(type === 'file' ? randomContent(random) : {}),
  };
}

function randomContent(random: Random): Partial<StackEntry> {
  const size = random.pick(SIZES);
  if (size < 512 || !random.oneIn(8)) return { size, seed: random.u32() };
  const segments: [number, number][] = [];
  for (let at = random.int(0, 1) * random.int(1, 600); at < size; at += random.int(1, size)) {
    const length = Math.min(random.int(1, 3000), size - at);
    segments.push([at, length]);
    at += length;
  }
  return { size, seed: random.u32(), sparse: segments };
}

/** Revision 2, cap_net_raw+ep; revision 3, the same for the root of a user namespace (linux/capability.h). */
const CAPABILITIES = ['0100000200200000000000000000000000000000', '0100000300200000000000000000000000000000a0860100'];

function randomXattrs(random: Random, type: StackEntry['type']): Record<string, string> | undefined {
  if ((type !== 'file' && type !== 'directory') || !random.oneIn(4)) return undefined;
  const value = (): string =>
    Array.from({ length: random.pick([0, 1, 5, 5, 40, 200]) }, () =>
      random.int(0, 255).toString(16).padStart(2, '0'),
    ).join('');
  const xattrs: Record<string, string> = {};
  for (let n = random.int(1, 3); n > 0; n--)
    xattrs[`user.${random.pick(['a', 'b', 'long.name', 'caf\xc3\xa9'])}`] = value();
  if (type === 'file' && random.oneIn(3)) xattrs['security.capability'] = random.pick(CAPABILITIES);
  if (random.oneIn(6)) xattrs['trusted.t'] = value();
  return xattrs;
}
