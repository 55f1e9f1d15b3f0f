/**
 * The user and the group of an appc app as numbers (appc spec, spec/aci.md): a path means the owner of that file in the
 * image; else the image's passwd and group are asked first, for numbers too; a number that they do not know is itself.
 */
import type { AppcApp } from '../oci/config.js';
import { accounts, groups, parseId, unknownUser, type ResolvedUser, type RootfsFiles } from './user.js';

/** Throws USER_UNKNOWN, and what {@link RootfsFiles} throws. */
export function resolveAppcUser(app: AppcApp, files: RootfsFiles): ResolvedUser {
  const { uid, home } = resolveUid(app.user, files);
  return { uid, gid: resolveGid(app.group, files), additionalGids: [...new Set(app.supplementaryGids)], home };
}

function resolveUid(user: string, files: RootfsFiles): { uid: number; home: string | undefined } {
  const lines = accounts(files);
  const named = user.startsWith('/') ? undefined : lines.find(({ name }) => name === user);
  const uid = named?.uid ?? (user.startsWith('/') ? ownerOf(user, files).uid : parseId(user));
  if (uid === undefined) throw unknownUser(user, `there is no user ${JSON.stringify(user)} in the image's /etc/passwd`);
  const home = (named ?? lines.find((line) => line.uid === uid))?.home;
  return { uid, home: home === '' ? undefined : home };
}

function resolveGid(group: string, files: RootfsFiles): number {
  if (group.startsWith('/')) return ownerOf(group, files).gid;
  const gid = groups(files).find(({ name }) => name === group)?.gid ?? parseId(group);
  if (gid !== undefined) return gid;
  throw unknownUser(group, `there is no group ${JSON.stringify(group)} in the image's /etc/group`);
}

function ownerOf(path: string, files: RootfsFiles): { uid: number; gid: number } {
  const owner = files.owner?.(path);
  if (owner !== undefined) return owner;
  throw unknownUser(path, `the image has no file ${JSON.stringify(path)}, whose owner is meant`);
}
