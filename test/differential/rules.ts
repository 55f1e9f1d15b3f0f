/**
 * Differences that are known and right, each by name with its reason. A rule looks at one difference and what is on both
 * sides; it never excuses a path or a field as a whole.
 */
import type { Difference } from './compare.js';
import type { Stack, World } from './stack.js';

export interface Context {
  readonly stack: Stack;
  /** Seconds since 1970, just before the oracle began. */
  readonly started: number;
}

export interface Rule {
  readonly name: string;
  readonly worlds: readonly World[];
  readonly reason: string;
  explains(difference: Difference, context: Context): boolean;
}

const NONE = '(none)';

/** Ours is a directory that no layer has an entry for: the generator never writes a time of 0. */
function isImplied({ nodes: { ours } }: Difference): boolean {
  return ours?.type === 'dir' && ours.mtime === '0.000000000';
}

function isExtractionTime({ nodes: { oracle } }: Difference, { started }: Context): boolean {
  return oracle?.type === 'dir' && Number(oracle.mtime) >= started;
}

export const rules: readonly Rule[] = [
  {
    name: 'trusted-dropped',
    worlds: ['spec', 'overlay'],
    reason: 'Both set trusted.* attributes of an image. We drop them: overlayfs over a mount would obey some of them.',
    explains: ({ field, ours }) => field.startsWith('xattr trusted.') && ours === NONE,
  },
  {
    name: 'umoci-empty-xattr',
    worlds: ['spec'],
    reason: "umoci drops attributes with an empty value: Go's archive/tar took an empty PAX value for a removal.",
    explains: ({ field, ours, oracle }) => field.startsWith('xattr ') && ours === '' && oracle === NONE,
  },
  {
    name: 'umoci-directory-time',
    worlds: ['spec'],
    reason:
      'Directories that no layer describes get the time of the extraction from umoci, 1970 from us; and umoci puts back ' +
      "the time of an entry's own parent only, not of the directory above it in which the parent had to be made.",
    explains: (difference, context) => difference.field === 'mtime' && isExtractionTime(difference, context),
  },
  {
    name: 'implied-setgid',
    worlds: ['spec', 'overlay'],
    reason: 'Directories that no layer describes inherit group and set-group-ID from the file system extracted to.',
    explains: (difference) => {
      const { field, ours, oracle } = difference;
      if (!isImplied(difference)) return false;
      return (field === 'mode' && ours === '755' && oracle === '2755') || (field === 'gid' && ours === '0');
    },
  },
  {
    name: 'containerd-directory-time',
    worlds: ['overlay'],
    reason: 'containerd leaves the time of the extraction on directories that the layer has no entry for.',
    explains: (difference, context) => difference.field === 'mtime' && isExtractionTime(difference, context),
  },
  {
    name: 'overlayfs-directory-links',
    worlds: ['overlay'],
    reason: 'overlayfs gives directories that several layers make up a link count of 1 (linux: ovl_getattr).',
    explains: ({ field, nodes: { ours, oracle } }) => field === 'nlink' && ours?.type === 'dir' && oracle?.nlink === 1,
  },
  {
    name: 'overlayfs-hidden-links',
    worlds: ['overlay'],
    reason: 'overlayfs counts names of a lower file that upper layers hide; we count the names that are to be seen.',
    explains: ({ field, nodes: { ours, oracle } }) =>
      field === 'nlink' && ours?.type !== 'dir' && (ours?.nlink ?? 0) < (oracle?.nlink ?? 0),
  },
  {
    name: 'containerd-parent-of-symlink',
    worlds: ['overlay'],
    reason:
      'A directory that takes the place of a lower symlink gets the attributes of the directory to which the link leads ' +
      '(containerd mkparent resolves the path in the lower layer, its comment says that it does not mean to).',
    explains: ({ field, nodes: { ours } }, { stack }) =>
      ours?.type === 'dir' &&
      (/^(?:mode|uid|gid)$/.test(field) || field.startsWith('xattr ') || field === 'mtime') &&
      ours.mtime === '0.000000000' &&
      stack.layers.flat().some(({ type, name }) => /link/.test(type) && ours.path.split('/').includes(lastName(name))),
  },
];

/** Of an entry whose path may lead through other symlinks. */
function lastName(name: string): string {
  return name.split('/').at(-1) ?? '';
}

/** Images that a tool refuses though they are right: nothing is compared then. */
const refusals = [
  {
    name: 'containerd-parent-not-a-directory',
    world: 'overlay',
    reason:
      'containerd looks for the attributes of a parent in every older layer, and gives up (ENOTDIR) when one of them has ' +
      'a file or a whiteout above it. The generator avoids this where it can see it, not behind chains of symlinks.',
    pattern: /: lstat [^]*: not a directory/,
  },
  {
    name: 'containerd-parent-behind-symlink-loop',
    world: 'overlay',
    reason:
      'containerd looks for the attributes of a parent in every older layer, follows symlinks there, though a directory ' +
      'takes their place, and gives up when they are a loop (mkparent, continuity fs.RootPath): by its own count, which ' +
      'names no path, or when the link adds to the path each time and the kernel refuses that. The generator avoids this ' +
      'in the layer below, not in those under it or where links share an inode.',
    pattern:
      /: failed to extract layer sha256:[0-9a-f]{64}: (?:too many links|lstat [^]*: too many levels of symbolic links)(?:: unknown)?\s*$|(\/[^:]{1,400}?)\1{2,}[^:]*: file name too long(?:: unknown)?\s*$/,
  },
  {
    name: 'containerd-directory-time-of-the-host',
    world: 'overlay',
    reason:
      'containerd sets the times of directories last, by names that it looks up anew; behind symlinks to "/" it reads a ' +
      'symlink of the machine it runs on (/lib -> usr/lib) for one of the image, and gives up where that leads nowhere.',
    pattern: /: failed call to UtimesNanoAt for [^]*: no such file or directory(?:: unknown)?\s*$/,
  },
  {
    name: 'overlayfs-lists-whiteout',
    world: 'overlay',
    reason:
      'overlayfs lists a whiteout in a directory that it need not merge; to look it up fails (linux: ovl_dir_is_real). ' +
      'The generator avoids it in directories that the same layer makes opaque.',
    pattern: /^overlayfs lists what it does not find/,
  },
] as const;

/** The name of the rule that explains a tool's error. */
export function refusalFor(world: World, message: string): string | undefined {
  return refusals.find((refusal) => refusal.world === world && refusal.pattern.test(message))?.name;
}

/** The rule that explains a difference; undefined: a difference to look into. */
export function ruleFor(difference: Difference, context: Context): Rule | undefined {
  return rules.find((rule) => rule.worlds.includes(context.stack.world) && rule.explains(difference, context));
}
