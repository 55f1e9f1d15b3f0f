/**
 * The image's `User` ("", "name", "uid", either with ":group" or ":gid") as numbers, by the image's own passwd and
 * group files.
 *
 * The rules are those of moby/sys/user, which runc, umoci and docker use: a numeric user is never a name; the first
 * matching line wins; "" is uid 0; a uid without a line is itself, with gid 0; supplementary groups are those that list
 * the matched line's *name*, and only where no group was given. One rule is ours: a line whose numbers are not numbers
 * is skipped, where moby takes them for 0, that is for root.
 */
import { LaminaError } from '../errors.js';

/** Files of the image by absolute path: symlinks, absolute ones too, are followed inside the image only. */
export interface RootfsFiles {
  /**
   * The bytes of a regular file, or undefined when there is nothing at `path`. Throws when it is no regular file,
   * a loop of symlinks, or larger than `limit` bytes.
   */
  readFile(path: string, limit: number): Uint8Array | undefined;
  /** Whether anything is at `path`. Without it nothing can be said about mountpoints that the image lacks. */
  exists?(path: string): boolean;
  /** Who owns what is at `path`; undefined when nothing is there. Only appc images ask. */
  owner?(path: string): { readonly uid: number; readonly gid: number } | undefined;
}

export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  /** In the order of the group file, each once. */
  readonly additionalGids: readonly number[];
  /** Home directory by passwd. */
  readonly home: string | undefined;
}

interface PasswdLine {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

interface GroupLine {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/** Bytes; a passwd file of a thousand accounts has 60 KB. */
const fileLimit = 1 << 20;
/** What moby/sys/user and runc accept as an id. */
const maxId = 2 ** 31 - 1;

/** Throws USER_UNKNOWN, and what {@link RootfsFiles.readFile} throws. */
export function resolveUser(spec: string, files: RootfsFiles): ResolvedUser {
  const colon = spec.indexOf(':');
  const userPart = colon < 0 ? spec : spec.slice(0, colon);
  const groupPart = colon < 0 ? '' : spec.slice(colon + 1);

  const uid = userPart === '' ? 0 : numericId(userPart, 'user', spec);
  const account = accounts(files).find((line) => (uid === undefined ? line.name === userPart : line.uid === uid));
  if (account === undefined && uid === undefined) {
    throw unknownUser(spec, `there is no user ${JSON.stringify(userPart)} in the image's /etc/passwd`);
  }
  const base = { uid: account?.uid ?? uid ?? 0, home: account?.home === '' ? undefined : account?.home };

  if (groupPart !== '') return { ...base, gid: explicitGid(groupPart, spec, files), additionalGids: [] };
  const gid = account?.gid ?? 0;
  if (account === undefined) return { ...base, gid, additionalGids: [] };
  const memberships = groups(files)
    .filter((group) => group.members.includes(account.name))
    .map((group) => group.gid);
  return { ...base, gid, additionalGids: [...new Set(memberships)] };
}

/** A number needs no line in the group file. */
function explicitGid(text: string, spec: string, files: RootfsFiles): number {
  const gid = numericId(text, 'group', spec);
  if (gid !== undefined) return gid;
  const group = groups(files).find((line) => line.name === text);
  if (group === undefined)
    throw unknownUser(spec, `there is no group ${JSON.stringify(text)} in the image's /etc/group`);
  return group.gid;
}

/** Undefined for a name; throws USER_UNKNOWN for a number that no id can be. */
function numericId(text: string, what: 'user' | 'group', spec: string): number | undefined {
  if (!/^-?\d+$/.test(text)) return undefined;
  const id = parseId(text);
  if (id === undefined) throw unknownUser(spec, `the ${what} id ${text.slice(0, 40)} is not in 0..${maxId}`);
  return id;
}

/** Undefined for what is no id. */
export function parseId(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+$/.test(text)) return undefined;
  const id = Number(text);
  return id <= maxId ? id : undefined;
}

export function accounts(files: RootfsFiles): PasswdLine[] {
  return linesOf(files, '/etc/passwd', parsePasswdLine);
}

export function groups(files: RootfsFiles): GroupLine[] {
  return linesOf(files, '/etc/group', parseGroupLine);
}

function linesOf<T>(files: RootfsFiles, path: string, parse: (fields: string[]) => T | undefined): T[] {
  const bytes = files.readFile(path, fileLimit);
  if (bytes === undefined) return [];
  if (bytes.length > fileLimit) {
    throw new LaminaError(
      'LIMIT_EXCEEDED',
      `The image's ${path} has ${bytes.length} bytes; the limit is ${fileLimit}`,
      {
        details: { path, size: bytes.length, limit: fileLimit },
      },
    );
  }
  const lines = new TextDecoder().decode(bytes).split('\n');
  return lines.map((line) => parse(line.trim().split(':'))).filter((parsed) => parsed !== undefined);
}

/** passwd(5): name:password:UID:GID:GECOS:directory:shell */
function parsePasswdLine([name, , uidText, gidText, , home = '']: string[]): PasswdLine | undefined {
  const uid = parseId(uidText);
  const gid = parseId(gidText);
  if (name === undefined || name === '' || uid === undefined || gid === undefined) return undefined;
  return { name, uid, gid, home };
}

/** group(5): name:password:GID:user_list */
function parseGroupLine([name, , gidText, members = '']: string[]): GroupLine | undefined {
  const gid = parseId(gidText);
  if (name === undefined || name === '' || gid === undefined) return undefined;
  return { name, gid, members: members.split(',') };
}

export function unknownUser(spec: string, why: string): LaminaError {
  const shown = spec.slice(0, 200);
  return new LaminaError('USER_UNKNOWN', `Cannot run as user ${JSON.stringify(shown)}: ${why}`, {
    hint: 'Numbers (uid:gid) need no entry in the image.',
    details: { user: shown },
  });
}
