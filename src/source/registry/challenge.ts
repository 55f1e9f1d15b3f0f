/** WWW-Authenticate headers (RFC 9110, section 11.6.1): one or several challenges, each with parameters. */

export interface Challenge {
  /** In lower case: "bearer", "basic". */
  readonly scheme: string;
  /** Names in lower case; values without their quotes. */
  readonly params: ReadonlyMap<string, string>;
}

const SPACE = /[\s,]*/y;
const PARAM = /([!#$%&'*+.^`|~\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/y;
/** A scheme, and the one word that some schemes have instead of parameters. */
const SCHEME = /([!#$%&'*+.^`|~\w-]+)(?:\s+[\w.~+/-]+=*(?=\s*(?:,|$)))?/y;

/** What is malformed is passed over: a registry that cannot be understood is one that offers nothing. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; params: Map<string, string> }[] = [];
  let at = 0;
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(header);
    if (found !== null) at = pattern.lastIndex;
    return found;
  };
  while (at < header.length) {
    match(SPACE);
    const param = match(PARAM);
    if (param !== null) {
      const [, name = '', quoted, bare = ''] = param;
      const params = challenges.at(-1)?.params;
      const key = name.toLowerCase();
      if (params !== undefined && !params.has(key)) params.set(key, quoted?.replace(/\\(.)/g, '$1') ?? bare);
      continue;
    }
    const scheme = match(SCHEME);
    if (scheme === null) at++;
    else challenges.push({ scheme: (scheme[1] ?? '').toLowerCase(), params: new Map() });
  }
  return challenges;
}
