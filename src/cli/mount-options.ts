/** `-o name[=value],...`, as mount(8) and fstab(5) have it: what is ours, what mount(8) keeps for itself, what is unknown. */
import type { Command } from 'commander';
import { LaminaError } from '../errors.js';
import { mountFlags, type MountFlag } from '../mount/flags.js';

/** Names of ours that are options of `lamina mount`, too; those with "=" take a value. */
const OURS: Readonly<Partial<Record<string, string>>> = {
  'platform=': '--platform',
  'engine=': '--engine',
  'transport=': '--transport',
  'verify=': '--verify',
  'compat=': '--compat',
  'subdir=': '--subdir',
  'upper=': '--upper',
  'aci-path=': '--aci-path',
  'uid-map=': '--uid-map',
  'gid-map=': '--gid-map',
  'pull=': '--pull',
  offline: '--offline',
  'authfile=': '--authfile',
  'tls-verify=': '--tls-verify',
  'store=': '--store',
  'run=': '--run',
  writable: '--rw',
};

/**
 * What fstab and mount(8) use themselves, and flags that make no difference here. `rw` is among them: mount(8) passes it
 * with `defaults`, and images are read-only all the same; `writable` and `upper=` ask for an overlay.
 */
const IGNORED = new Set(
  (
    'defaults auto noauto user nouser users owner group nofail _netdev ro rw sync async dirsync atime noatime relatime ' +
    'norelatime strictatime nostrictatime diratime nodiratime lazytime nolazytime iversion noiversion mand nomand ' +
    'silent loud symfollow nosymfollow'
  ).split(' '),
);
const IGNORED_PREFIXES = ['x-', 'X-', 'comment=', 'uhelper=', 'helper='];

/** Take a flag back. */
const OPPOSITES: Readonly<Partial<Record<string, MountFlag>>> = { suid: 'nosuid', dev: 'nodev', exec: 'noexec' };

export interface ParsedMountOptions {
  /** The same for the command line of `lamina mount`. */
  readonly args: readonly string[];
  readonly flags: readonly MountFlag[];
  readonly unknown: readonly string[];
}

/** The last of several wins. Throws USAGE for what cannot be done at all. */
export function parseMountOptions(texts: readonly string[]): ParsedMountOptions {
  const args: string[] = [];
  const unknown: string[] = [];
  const flags = new Set<MountFlag>();
  for (const option of texts.flatMap((text) => text.split(','))) {
    const equals = option.indexOf('=');
    const name = equals < 0 ? option : option.slice(0, equals + 1);
    const ours = OURS[name];
    const flag = mountFlags.find((known) => known === option);
    const opposite = OPPOSITES[option];
    if (ours !== undefined) {
      args.push(equals < 0 ? ours : `${ours}=${option.slice(equals + 1)}`);
      if (name === 'upper=') args.push('--rw');
    } else if (flag !== undefined) flags.add(flag);
    else if (opposite !== undefined) flags.delete(opposite);
    else if (option === 'remount')
      throw new LaminaError('USAGE', 'A mounted image cannot be remounted', { hint: 'Unmount it and mount it again.' });
    else if (!isIgnored(option)) unknown.push(option);
  }
  return { args, flags: [...flags], unknown };
}

function isIgnored(option: string): boolean {
  return option === '' || IGNORED.has(option) || IGNORED_PREFIXES.some((prefix) => option.startsWith(prefix));
}

/** Gives the command's options what `-o` says, as if they had been typed. Throws what commander throws for a wrong value. */
export function applyMountOptions(command: Command, args: readonly string[]): void {
  command.parseOptions([...args]);
}
