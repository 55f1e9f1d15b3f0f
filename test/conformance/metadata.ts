/** M: modes, owners, times, devices and extended attributes. */
import { END, base256, paxEntry, rawEntry, rawHeader } from '../support/tar.js';
import { raw, type Case } from './case.js';

const file = (name: string, content = ''): Buffer => rawEntry({ name }, content);
const withXattrs = (records: Readonly<Record<string, string | Uint8Array>>, entry: Buffer): Buffer =>
  Buffer.concat([
    paxEntry(Object.fromEntries(Object.entries(records).map(([name, value]) => [`SCHILY.xattr.${name}`, value]))),
    entry,
  ]);
const device = (name: string, type: '3' | '4', devmajor: number, devminor: number): Buffer =>
  rawHeader({ name, type, devmajor, devminor });

/** struct vfs_cap_data (linux/capability.h): cap_net_raw, permitted and effective; version 3 adds the root's user ID. */
const CAP_NET_RAW = 1 << 13;
function capability(version: 2 | 3, rootId?: number): Buffer {
  const bytes = Buffer.alloc(version === 2 ? 20 : 24);
  bytes.writeUInt32LE((version << 24) | 1, 0);
  bytes.writeUInt32LE(CAP_NET_RAW, 4);
  if (rootId !== undefined) bytes.writeUInt32LE(rootId, 20);
  return bytes;
}

/** POSIX ACL as the kernel stores it (linux/posix_acl_xattr.h): version 2, then tag, permissions and ID of each entry. */
function acl(...entries: readonly (readonly [tag: number, perm: number, id: number])[]): Buffer {
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(2, 0);
  entries.forEach(([tag, perm, id], i) => {
    bytes.writeUInt16LE(tag, 4 + 8 * i);
    bytes.writeUInt16LE(perm, 6 + 8 * i);
    bytes.writeUInt32LE(id, 8 + 8 * i);
  });
  return bytes;
}
const NONE = 0xffffffff;
const ACL = acl([1, 6, NONE], [2, 6, 1234], [4, 4, NONE], [16, 6, NONE], [32, 4, NONE]);
const hexText = (bytes: Buffer): string =>
  `"${[...bytes].map((b) => `\\x${b.toString(16).padStart(2, '0')}`).join('')}"`;

const large = Buffer.alloc(65535, 'large');
const MAX_MAJOR = 4095;
const MAX_MINOR = 1048575;

export const metadataCases: readonly Case[] = [
  {
    id: 'M001',
    what: 'set-user-ID, set-group-ID, sticky and no permission at all',
    layers: [
      raw(
        rawEntry({ name: 'suid', mode: 0o4755 }),
        rawEntry({ name: 'sgid', mode: 0o2755 }),
        rawEntry({ name: 'all', mode: 0o7777 }),
        rawEntry({ name: 'none', mode: 0 }),
        rawHeader({ name: 'tmp/', type: '5', mode: 0o1777 }),
        rawHeader({ name: 'closed/', type: '5', mode: 0 }),
        END,
      ),
    ],
    tree: `
      /all 07777
      /closed/ 0000
      /none 0000
      /sgid 02755
      /suid 04755
      /tmp/ 01777`,
  },
  {
    id: 'M002',
    what: 'type bits in the mode do not count',
    layers: [raw(rawEntry({ name: 'f', mode: 0o40755 }, 'x'), rawEntry({ name: 'd', type: '5', mode: 0o100700 }), END)],
    tree: `
      /d/ 0700
      /f 0755 "x"`,
  },
  {
    id: 'M003',
    what: 'numeric owners, whatever the names say',
    layers: [
      raw(
        rawEntry({
          name: 'f',
          uid: 1234,
          gid: 5678,
          patch: [
            [265, Buffer.from('root\0')],
            [297, Buffer.from('wheel\0')],
          ],
        }),
        END,
      ),
    ],
    tree: '/f 1234:5678',
  },
  {
    id: 'M003b',
    what: 'owners of every type of entry',
    layers: [
      [
        { name: 'd/', type: 'directory', uid: 1, gid: 2 },
        { name: 'l', type: 'symlink', linkname: 'd', uid: 3, gid: 4, mtime: new Date(7000) },
        { name: 'p', type: 'fifo', uid: 5, gid: 6 },
        { name: 'c', type: 'character-device', devmajor: 1, devminor: 3, uid: 7, gid: 8 },
      ],
    ],
    tree: `
      /c 7:8 chr(1,3)
      /d/ 1:2
      /l 3:4 @7 -> d
      /p 5:6 fifo`,
  },
  {
    id: 'M004',
    what: 'times: nanoseconds, before 1970, 0, after 2038 and after 2106',
    layers: [
      raw(
        paxEntry({ mtime: '1700000000.123456789' }),
        file('ns'),
        paxEntry({ mtime: '-1.5' }),
        file('before'),
        file('zero'),
        paxEntry({ mtime: '2147483648' }),
        file('y2038'),
        rawEntry({ name: 'y2106', magic: 'ustar  \0', mtime: base256(1n << 33n, 12) }),
        paxEntry({ mtime: '1.000000001' }),
        rawHeader({ name: 'd', type: '5', mode: 0o755 }),
        END,
      ),
    ],
    tree: `
      /before @-2.5
      /d/ @1.000000001
      /ns @1700000000.123456789
      /y2038 @2147483648
      /y2106 @8589934592
      /zero @0`,
    differs:
      'containerd clamps times before 1970; moby and containers/storage leave the time of extraction where the header says 0.',
  },
  {
    id: 'M005',
    what: 'access and change times are the modification time, whatever PAX says',
    layers: [raw(paxEntry({ mtime: '100.5', atime: '5000', ctime: '6000' }), file('f'), END)],
    tree: '/f @100.5',
    differs:
      'Extractors set an access time, which nobody can rely on after the first read; in an immutable tree there is none.',
  },
  {
    id: 'M006a',
    what: 'devices, up to the largest numbers',
    layers: [
      raw(
        device('null', '3', 1, 3),
        device('loop', '4', 7, 200),
        device('minor', '3', 5, 70_000),
        device('max', '4', MAX_MAJOR, MAX_MINOR),
        device('zero-minor', '3', 300, 0),
        END,
      ),
    ],
    tree: `
      /loop blk(7,200)
      /max blk(4095,1048575)
      /minor chr(5,70000)
      /null chr(1,3)
      /zero-minor chr(300,0)`,
  },
  {
    id: 'M006b',
    what: 'a major number that Linux does not have',
    layers: [raw(device('c', '3', MAX_MAJOR + 1, 0), END)],
    error: 'METADATA_INVALID',
    differs:
      'umoci, as all who leave it to mknod(2), makes another device than the archive says: the bits above are lost.',
  },
  {
    id: 'M006c',
    what: 'a minor number that Linux does not have',
    layers: [raw(device('b', '4', 0, MAX_MINOR + 1), END)],
    error: 'METADATA_INVALID',
    differs: 'As M006b.',
  },
  {
    id: 'M007',
    what: 'a fifo',
    layers: [[{ name: 'p', type: 'fifo', mode: 0o622, uid: 9 }]],
    tree: '/p 0622 9:0 fifo',
  },
  {
    id: 'M008',
    what: 'a character device 0:0, in a lower layer and in an upper one',
    layers: [
      [{ name: 'a', type: 'character-device', devmajor: 0, devminor: 0 }, 'b=x'],
      [{ name: 'b', type: 'character-device', devmajor: 0, devminor: 0 }],
    ],
    tree: `
      /a chr(0,0)
      /b chr(0,0)`,
    differs: 'On overlayfs it is a whiteout and hides the name; in one directory, and here, it is a device.',
  },
  {
    id: 'M009a',
    what: 'user attributes: empty, binary, with odd names, of 65,535 bytes',
    layers: [
      raw(
        withXattrs({ 'user.empty': '', 'user.bin': Buffer.from([0, 255, 10, 61]), 'user.a.b': 'dotted' }, file('f')),
        withXattrs({ 'user.large': large }, file('g')),
        withXattrs({ [`user.${'n'.repeat(250)}`]: 'x' }, rawHeader({ name: 'd', type: '5', mode: 0o755 })),
        END,
      ),
    ],
    tree: `
      /d/ user.${'n'.repeat(250)}="x"
      /f user.empty="" user.bin="\\x00\\xff\\x0a=" user.a.b="dotted"
      /g user.large=<large>`,
    contents: { large },
    differs: 'umoci 0.4 sets them, as far as the file system below takes them; later it drops those without a value.',
  },
  {
    id: 'M009b',
    what: 'an attribute of 65,536 bytes',
    layers: [raw(withXattrs({ 'user.large': Buffer.alloc(65536) }, file('f')), END)],
    error: 'METADATA_INVALID',
  },
  {
    id: 'M009c',
    what: 'an attribute name of 256 bytes',
    layers: [raw(withXattrs({ [`user.${'n'.repeat(251)}`]: 'x' }, file('f')), END)],
    error: 'METADATA_INVALID',
  },
  {
    id: 'M010',
    what: 'file capabilities, version 2 and 3',
    layers: [
      raw(
        withXattrs({ 'security.capability': capability(2) }, rawEntry({ name: 'v2', mode: 0o755 }, 'x')),
        withXattrs({ 'security.capability': capability(3, 1000) }, rawEntry({ name: 'v3', mode: 0o755 }, 'x')),
        END,
      ),
    ],
    tree: `
      /v2 0755 security.capability=${hexText(capability(2))} "x"
      /v3 0755 security.capability=${hexText(capability(3, 1000))} "x"`,
    observe: [
      { command: ['getcap', '-n', 'v2', 'v3'], prints: /^v2 cap_net_raw=ep\nv3 cap_net_raw=ep \[rootid=1000\]\n$/ },
    ],
  },
  {
    id: 'M011',
    what: 'labels of the build machine and trusted attributes',
    layers: [
      raw(
        withXattrs(
          {
            'security.selinux': 'system_u:object_r:etc_t:s0\0',
            'security.ima': 'x',
            'security.evm': 'x',
            'trusted.overlay.opaque': 'y',
            'trusted.other': 'x',
            'trusted.lamina.implied': 'y',
            'user.kept': '1',
          },
          rawHeader({ name: 'd', type: '5', mode: 0o750 }),
        ),
        file('d/f', 'x'),
        END,
      ),
    ],
    tree: `
      /d/ 0750 user.kept="1"
      /d/f "x"`,
    note: /a trusted\.\* attribute is dropped/,
    differs:
      'umoci sets trusted.* (and would have the directory opaque in an overlay), containerd passes over what it may not set; both leave security.selinux.',
  },
  {
    id: 'M011b',
    what: 'a trusted.overlay.opaque of an upper layer hides nothing',
    layers: [
      ['d/', 'd/low=x'],
      [withXattrs({ 'trusted.overlay.opaque': 'y' }, rawHeader({ name: 'd', type: '5', mode: 0o755 })), 'd/up=y'],
    ],
    tree: `
      /d/
      /d/low "x"
      /d/up "y"`,
    note: /a trusted\.\* attribute is dropped/,
    differs:
      'An extractor onto overlayfs that sets it hides the lower files; the specification knows the opaque marker only.',
  },
  {
    id: 'M012',
    what: 'user.overlay attributes, which an overlay of an ordinary user obeys',
    layers: [
      raw(
        withXattrs(
          { 'user.overlay.opaque': 'y', 'user.overlays': 'kept' },
          rawHeader({ name: 'd', type: '5', mode: 0o755 }),
        ),
        withXattrs({ 'user.overlay.redirect': '/etc' }, rawHeader({ name: 'e', type: '5', mode: 0o755 })),
        END,
      ),
    ],
    tree: `
      /d/ user.overlays="kept"
      /e/`,
    note: /a user\.overlay\.\* attribute is dropped/,
    differs: 'umoci escapes them where it unpacks for overlayfs.',
  },
  {
    id: 'M013',
    what: "other tools' PAX keys for attributes and ACLs",
    layers: [
      raw(
        paxEntry({
          'LIBARCHIVE.xattr.user.a': 'eA==',
          'SCHILY.acl.access': 'user::rw-,group::r--,other::r--',
          'SCHILY.acl.ace': 'x',
          'RHT.security.selinux': 'system_u:object_r:etc_t:s0',
          'LIBARCHIVE.creationtime': '5',
          'MSWINDOWS.fileattr': '32',
          'SCHILY.dev': '5',
          'SCHILY.nlink': '3',
        }),
        file('f', 'x'),
        END,
      ),
    ],
    tree: '/f "x"',
  },
  {
    id: 'M014',
    what: 'POSIX ACLs',
    layers: [
      raw(
        withXattrs({ 'system.posix_acl_access': ACL }, rawEntry({ name: 'f', mode: 0o664 }, 'x')),
        withXattrs({ 'system.posix_acl_default': ACL }, rawHeader({ name: 'd', type: '5', mode: 0o755 })),
        END,
      ),
    ],
    tree: `
      /d/ system.posix_acl_default=${hexText(ACL)}
      /f 0664 system.posix_acl_access=${hexText(ACL)} "x"`,
    observe: [
      { command: ['getfacl', '-cn', 'f'], prints: /user::rw-\nuser:1234:rw-\ngroup::r--\nmask::rw-\nother::r--/ },
      { command: ['getfacl', '-cn', 'd'], prints: /default:user:1234:rw-/ },
    ],
  },
  {
    id: 'M015',
    what: 'user attributes of a symlink, a fifo and a device',
    layers: [
      raw(
        withXattrs({ 'user.a': '1' }, rawHeader({ name: 'l', type: '2', linkname: 't', mode: 0o777 })),
        withXattrs({ 'user.a': '1' }, rawHeader({ name: 'p', type: '6' })),
        withXattrs({ 'user.a': '1' }, device('c', '3', 1, 3)),
        END,
      ),
    ],
    tree: `
      /c chr(1,3)
      /l -> t
      /p fifo`,
    note: /a user\.\* attribute on neither file nor directory is dropped/,
    differs: 'Linux refuses them (xattr(7)); extractors pass over the error, or fail.',
  },
  {
    id: 'M016',
    what: "the root's own entry",
    layers: [
      [
        {
          name: './',
          type: 'directory',
          mode: 0o750,
          uid: 3,
          gid: 4,
          mtime: new Date(5000),
          pax: { 'SCHILY.xattr.user.r': '1' },
        },
        'f=x',
      ],
      ['g=y'],
    ],
    tree: `
      / 0750 3:4 @5 user.r="1"
      /f "x"
      /g "y"`,
    differs:
      'containerd, and moby on overlayfs, ignore it; umoci and moby in one directory apply it, as for any directory.',
  },
  {
    id: 'M016b',
    what: 'the root of an upper layer',
    layers: [
      [{ name: './', type: 'directory', mode: 0o700 }],
      [{ name: './', type: 'directory', mode: 0o755, uid: 9 }],
    ],
    tree: '/ 0755 9:0',
    differs: 'As M016.',
  },
  {
    id: 'M017',
    what: 'directories that no entry describes',
    layers: [[{ name: 'a/b/c', content: 'x', uid: 7, mode: 0o600, mtime: new Date(9000) }]],
    tree: `
      /a/
      /a/b/
      /a/b/c 0600 7:0 @9 "x"`,
    differs:
      'umoci gives them 0777 less the umask, moby and containers/storage 0755 of the mapped root; all the time of extraction.',
  },
  {
    id: 'M018',
    what: 'inode numbers of directory entries are those of their files',
    layers: [['a=x', 'b => a', 'd/', 'd/e/', 'l -> a']],
    tree: `
      /a #1 "x"
      /b #1 "x"
      /d/
      /d/e/
      /l -> a`,
    observe: [
      {
        // Without colours ls prints the number that readdir gives, stat the file's own.
        command: [
          'sh',
          '-c',
          'ls -1iU --color=never | sort > /dev/null; [ "$(ls -1iU | sort | awk \'{print $1}\')" = "$(stat -c %i * | sort)" ] && echo same',
        ],
        prints: /^same\n$/,
      },
    ],
  },
  {
    id: 'M019',
    what: 'link counts of directories: two and one for each subdirectory',
    layers: [
      ['a/', 'a/b/', 'a/c/', 'a/c/d/', 'a/f', 'e/'],
      ['.wh.e', 'a/.wh.b', 'a/g/'],
    ],
    tree: `
      /a/
      /a/c/
      /a/c/d/
      /a/f
      /a/g/`,
  },
  {
    id: 'M020',
    what: 'holes of a sparse file, for stat and for SEEK_HOLE',
    layers: [
      raw(
        paxEntry({
          'GNU.sparse.map': '0,4096,1048576,8192,2097152,0',
          'GNU.sparse.size': '2097152',
          'GNU.sparse.numblocks': '3',
        }),
        file('f', 's'.repeat(12288)),
        END,
      ),
    ],
    tree: '/f <sparse>',
    contents: { sparse: sparse() },
    observe: [
      {
        // Perl hands its third argument to lseek(2): 3 is SEEK_DATA, 4 SEEK_HOLE.
        command: [
          'perl',
          '-e',
          'open F, "<", "f"; print join ",", map { sysseek F, $$_[0], $$_[1] } [0, 4], [4096, 3], [1048576, 4]',
        ],
        prints: /^4096,1048576,1056768$/,
      },
    ],
  },
  {
    id: 'M021',
    what: 'statfs and statx',
    layers: [[{ name: 'f', content: 'x', mtime: new Date(5000) }]],
    tree: '/f @5 "x"',
    observe: [
      { command: ['stat', '-f', '-c', '%l %f %a', '.'], prints: /^255 0 0\n$/ },
      { command: ['stat', '-c', '%s %W', 'f'], prints: /^1 (?:0|-|5)\n$/ },
    ],
  },
  {
    id: 'M022',
    what: "a symlink's permissions are always 0777",
    layers: [
      raw(
        rawHeader({ name: 'l', type: '2', linkname: 't', mode: 0o644 }),
        rawHeader({ name: 'm', type: '2', linkname: 't', mode: 0 }),
        END,
      ),
    ],
    tree: `
      /l -> t
      /m -> t`,
  },
];

function sparse(): Buffer {
  const bytes = Buffer.alloc(2097152);
  bytes.fill('s', 0, 4096);
  bytes.fill('s', 1048576, 1048576 + 8192);
  return bytes;
}
