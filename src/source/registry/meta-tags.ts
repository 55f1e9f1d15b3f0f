/**
 * The `<meta>` elements of an HTML page, as far as a browser would see them: not those in comments, scripts and other text.
 * One pass, whatever the page looks like.
 */

/** Attributes by name in lower case; of two the first counts (HTML, "attribute name state"). */
export type Attributes = ReadonlyMap<string, string>;

/** Elements whose content is text, up to their end tag. */
const TEXT_ELEMENTS = new Set(['script', 'style', 'textarea', 'title', 'iframe', 'noembed', 'noframes', 'xmp']);

const ATTRIBUTE = /[\s/]*([^\s/>=][^\s/>=]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"'][^\s>]*)))?/y;

export function metaTags(html: string): Attributes[] {
  const tags: Attributes[] = [];
  const lower = html.toLowerCase();
  for (let at = html.indexOf('<'); at >= 0; at = html.indexOf('<', at)) {
    if (html.startsWith('<!--', at)) {
      // "<!-->" is a whole comment.
      const end = html.indexOf('-->', at + 2);
      if (end < 0) break;
      at = end + 3;
      continue;
    }
    const name = /^[a-z][a-z0-9-]{0,20}(?=[\s/>])/.exec(lower.slice(at + 1, at + 24))?.[0];
    if (name === undefined) {
      at++;
      continue;
    }
    const { attributes, end } = readAttributes(html, at + 1 + name.length);
    if (name === 'meta') tags.push(attributes);
    at = end;
    if (TEXT_ELEMENTS.has(name)) {
      const close = lower.indexOf(`</${name}`, at);
      if (close < 0) break;
      at = close + 1;
    }
  }
  return tags;
}

function readAttributes(html: string, start: number): { attributes: Attributes; end: number } {
  const attributes = new Map<string, string>();
  let at = start;
  for (;;) {
    ATTRIBUTE.lastIndex = at;
    const match = ATTRIBUTE.exec(html);
    if (match === null) break;
    at = ATTRIBUTE.lastIndex;
    const [, name = '', double, single, bare] = match;
    const key = name.toLowerCase();
    if (!attributes.has(key)) attributes.set(key, decode(double ?? single ?? bare ?? ''));
  }
  const close = html.indexOf('>', at);
  return { attributes, end: close < 0 ? html.length : close + 1 };
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: ' ' };

/** Character references, as far as a URL or a name may have them. */
function decode(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]{2,4}));/gi, (whole, decimal, hex, name) => {
    if (typeof name === 'string') return ENTITIES[name.toLowerCase()] ?? whole;
    const code = typeof decimal === 'string' ? Number(decimal) : parseInt(String(hex), 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}
