/** Patterns for names, as fnmatch(3) without flags: `*`, `?`, `[..]`, `[!..]`, and a backslash before what is meant itself. */
import { isUtf8 } from 'node:buffer';

type Token = { readonly kind: 'any' } | { readonly kind: 'one'; readonly matches: (c: string) => boolean };

/**
 * Tells whether names match; both are bytes in latin1 strings. Where a name is UTF-8 `?` is one of its characters, else
 * one byte. The time is at most the product of the lengths.
 */
export function globMatcher(pattern: string): (name: string) => boolean {
  const ofBytes = parse([...pattern]);
  const text = characters(pattern);
  const ofText = text === undefined ? undefined : parse(text);
  return (name) => {
    const named = ofText === undefined ? undefined : characters(name);
    return named === undefined || ofText === undefined ? match(ofBytes, [...name]) : match(ofText, named);
  };
}

/** The characters of UTF-8; undefined for what is not. */
function characters(bytes: string): string[] | undefined {
  const raw = Buffer.from(bytes, 'latin1');
  return isUtf8(raw) ? [...raw.toString('utf8')] : undefined;
}

function parse(pattern: readonly string[]): Token[] {
  const tokens: Token[] = [];
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i] ?? '';
    const set = c === '[' ? parseSet(pattern, i) : undefined;
    if (c === '*') tokens.push({ kind: 'any' });
    else if (c === '?') tokens.push({ kind: 'one', matches: () => true });
    else if (set !== undefined) {
      tokens.push({ kind: 'one', matches: set.matches });
      i = set.end;
    } else {
      const literal = c === '\\' && i + 1 < pattern.length ? (pattern[++i] ?? '') : c;
      tokens.push({ kind: 'one', matches: (other) => other === literal });
    }
  }
  return tokens;
}

/** The set that begins at `[`; undefined where nothing closes it: the bracket means itself then. */
function parseSet(
  pattern: readonly string[],
  start: number,
): { matches: (c: string) => boolean; end: number } | undefined {
  const negative = pattern[start + 1] === '!' || pattern[start + 1] === '^';
  const first = start + (negative ? 2 : 1);
  const ranges: [from: string, to: string][] = [];
  for (let i = first; i < pattern.length; i++) {
    if (pattern[i] === ']' && i > first) {
      const within = (c: string): boolean => ranges.some(([from, to]) => from <= c && c <= to);
      return { matches: (c) => within(c) !== negative, end: i };
    }
    if (pattern[i] === '\\' && i + 1 < pattern.length) i++;
    const from = pattern[i] ?? '';
    const isRange = pattern[i + 1] === '-' && i + 2 < pattern.length && pattern[i + 2] !== ']';
    ranges.push([from, isRange ? (pattern[i + 2] ?? '') : from]);
    if (isRange) i += 2;
  }
  return undefined;
}

/** Of several `*` only the last has to be tried again. */
function match(tokens: readonly Token[], name: readonly string[]): boolean {
  let t = 0;
  let retryToken = -1;
  let retryAt = 0;
  for (let n = 0; n < name.length;) {
    const token = tokens[t];
    if (token?.kind === 'any') {
      retryToken = ++t;
      retryAt = n;
    } else if (token?.matches(name[n] ?? '') === true) {
      t++;
      n++;
    } else if (retryToken >= 0) {
      t = retryToken;
      n = ++retryAt;
    } else return false;
  }
  while (tokens[t]?.kind === 'any') t++;
  return t === tokens.length;
}
