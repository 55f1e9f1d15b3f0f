/** What a mount forbids, whatever the files' modes say: flags of mount(2), with the same numbers for fsmount(2). */

/** MS_NOSUID, MS_NODEV, MS_NOEXEC (linux/mount.h). */
const BITS = { nosuid: 2, nodev: 4, noexec: 8 } as const;

export const mountFlags = ['nosuid', 'nodev', 'noexec'] as const;
export type MountFlag = (typeof mountFlags)[number];

export function flagBits(flags: readonly MountFlag[]): number {
  return flags.reduce((bits, flag) => bits | BITS[flag], 0);
}
