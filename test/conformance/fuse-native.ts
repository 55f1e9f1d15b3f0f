/** What the transport fuse-native loses of a tree, in general and case by case. */

/**
 * An expected line as this transport shows it: times in milliseconds, none before 1970 (PATH TYPE MODE UID:GID SIZE MTIME ..).
 */
export function asFuseNative(line: string): string {
  const fields = line.split(' ');
  const mtime = fields[5] ?? '';
  fields[5] = mtime.startsWith('-') ? '0.000000000' : mtime.replace(/\d{6}$/, '000000');
  return fields.join(' ');
}

/** Cases that look different all the same, or cannot be looked at; one that does not is a failure. */
export const losses: Readonly<Record<string, string>> = {
  T031: 'times beyond what a signed 64-bit count of milliseconds holds',
  T038: 'a name that is not UTF-8 is left out',
  T053: 'names and link targets that are not UTF-8',
  P024a: 'a link target that is not UTF-8',
};

/** Cases of which only what a command prints is different. */
export const unseen: Readonly<Record<string, string>> = {
  M020: 'libfuse 2.9 has no SEEK_DATA and SEEK_HOLE: a file is all data',
};
