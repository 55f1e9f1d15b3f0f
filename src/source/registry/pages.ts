/** Lists that come in pages (distribution-spec "Listing Tags"; RFC 8288). */
import { z } from 'zod';
import { LaminaError } from '../../errors.js';
import { parseJson } from '../../oci/json.js';
import type { Call, Exchange } from './exchange.js';
import { protocolError } from './failures.js';
import type { Answer } from './transport.js';

const PAGE_LIMIT = 8 * 1024 * 1024;
/** Tags of one repository. */
const TAGS_MAX = 200_000;

const tagList = z.object({ tags: z.array(z.string()).nullish() });

/** Of the header `Link: <URL>; rel="next"`. Throws REGISTRY_PROTOCOL where it leads to another origin. */
export function nextPage(answer: Answer): URL | undefined {
  const link = answer.header('link') ?? '';
  for (const [, target = '', params = ''] of link.matchAll(/<([^>]*)>([^<]*)/g)) {
    if (!/;\s*rel\s*=\s*"?next"?/i.test(params)) continue;
    const next = URL.canParse(target, answer.url.href) ? new URL(target, answer.url) : undefined;
    if (next?.origin === answer.url.origin) return next;
    throw protocolError(answer.host, 'gives the next page of a list a wrong address', answer.status);
  }
  return undefined;
}

/** Throws LIMIT_EXCEEDED, REGISTRY_PROTOCOL and what {@link Exchange.run} throws. */
export function listTags(exchange: Exchange, call: Call): Promise<string[]> {
  return exchange.run(call, async (answer, endpoint) => {
    const tags: string[] = [];
    for (let page = answer; ;) {
      if (page.status !== 200) throw await exchange.refusal(page, call);
      const next = nextPage(page);
      const document = {
        what: `the list of tags of ${page.host}`,
        code: 'REGISTRY_PROTOCOL',
        limit: PAGE_LIMIT,
      } as const;
      const found = parseJson(await page.read(PAGE_LIMIT), tagList, document).tags ?? [];
      for (const tag of found) tags.push(tag);
      if (tags.length > TAGS_MAX) {
        throw new LaminaError('LIMIT_EXCEEDED', `${call.repository} has more than ${TAGS_MAX} tags`);
      }
      if (next === undefined) return tags;
      // An empty page that names another would never end.
      if (found.length === 0) throw protocolError(page.host, 'lists tags without an end');
      page = await exchange.sendTo(next, endpoint, call);
    }
  });
}
