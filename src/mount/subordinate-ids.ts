/**
 * The ids that an ordinary user may use in a user namespace: his own, as root, and behind it those that /etc/subuid and
 * /etc/subgid give him (subuid(5)), in their order. podman and buildah map in the same way.
 */
import { readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import type { IdMap, IdRange } from './id-map.js';

export interface User {
  readonly uid: number;
  readonly gid: number;
  /** Undefined for one without an entry in passwd. */
  readonly name: string | undefined;
}

export interface OwnIds {
  readonly map: IdMap;
  /** False: he has his own id alone, and all others are nobody's to him. */
  readonly subordinate: boolean;
}

export function isOrdinaryUser(): boolean {
  return process.geteuid?.() !== 0;
}

export function currentUser(): User {
  try {
    const { uid, gid, username } = userInfo();
    return { uid, gid, name: username };
  } catch {
    return { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, name: undefined };
  }
}

export function ownIds(
  { uid, gid, name }: User = currentUser(),
  files: { subuid: string; subgid: string } = { subuid: read('/etc/subuid'), subgid: read('/etc/subgid') },
): OwnIds {
  const names = [String(uid), ...(name === undefined ? [] : [name])];
  const [uids, gids] = [rangesOf(files.subuid, names), rangesOf(files.subgid, names)];
  const subordinate = uids.length > 0 && gids.length > 0;
  return { map: { uid: behind(uid, subordinate ? uids : []), gid: behind(gid, subordinate ? gids : []) }, subordinate };
}

interface Span {
  readonly start: number;
  readonly count: number;
}

/** The lines NAME:START:COUNT of any of the names; malformed ones are nobody's. */
function rangesOf(text: string, names: readonly string[]): Span[] {
  return text.split('\n').flatMap((line) => {
    const [, name = '', start, count] = /^([^:#]+):(\d{1,10}):(\d{1,10})$/.exec(line.trim()) ?? [];
    if (!names.includes(name) || Number(count) === 0) return [];
    return [{ start: Number(start), count: Number(count) }];
  });
}

function behind(own: number, spans: readonly Span[]): IdRange[] {
  const ranges = [{ container: 0, host: own, size: 1 }];
  let next = 1;
  for (const { start, count } of spans) {
    ranges.push({ container: next, host: start, size: count });
    next += count;
  }
  return ranges;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
