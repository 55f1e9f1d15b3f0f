/**
 * Where an appc image is, by its name (appc spec v0.8.11, spec/discovery.md): a page at the address that the name is says so
 * in meta tags, or the page of a part of the name.
 */
import { LaminaError } from '../../errors.js';
import { hostOf, type AppName } from './app-name.js';
import { directOptions } from './endpoints.js';
import { protocolError, statusError } from './failures.js';
import { metaTags } from './meta-tags.js';
import { isLoopback } from './loopback.js';
import type { Answer, Transport } from './transport.js';

/** Bytes of a page. */
const PAGE_LIMIT = 1024 * 1024;
const REDIRECTS_MAX = 10;

export interface DiscoveryOptions {
  readonly transport: Transport;
  /** Whether to go without TLS, and to trust any certificate. Where nobody says, on this machine only. */
  readonly insecure?: boolean | undefined;
  /** Of the pages; the usual one when absent. */
  readonly port?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Discovered {
  /** Equally good, in the order of the page; with their detached signatures. At least one. */
  readonly images: readonly { readonly aci: string; readonly signature: string }[];
  /** Where the keys are that should have signed it. May be empty. */
  readonly publicKeys: readonly string[];
}

/**
 * Throws IMAGE_NOT_FOUND where no page has a usable template, REGISTRY_UNREACHABLE, REGISTRY_PROTOCOL, LIMIT_EXCEEDED. What
 * is then fetched must be checked with {@link isWanted}.
 */
export async function discover(app: AppName, options: DiscoveryOptions): Promise<Discovered> {
  const parts = app.name.split('/');
  let images: Discovered['images'] = [];
  let publicKeys: readonly string[] = [];
  const tried: string[] = [];
  for (let n = parts.length; n > 0 && (images.length === 0 || publicKeys.length === 0); n--) {
    const page = parts.slice(0, n).join('/');
    const found = await fetchPage(page, options).catch((e: unknown) => {
      // Where the image is, is known: its keys are a matter of words only.
      if (images.length > 0) return 0;
      throw e;
    });
    tried.push(typeof found === 'number' ? `${page} (${found})` : page);
    if (typeof found === 'number') continue;
    const tags = readTags(found, app.name);
    // Each list comes from the longest part of the name for which there is one.
    if (images.length === 0) images = bestImages(tags, app, options.insecure);
    if (publicKeys.length === 0)
      publicKeys = tags.filter(({ kind }) => kind === 'ac-discovery-pubkeys').map(({ url }) => url);
  }
  if (images.length > 0) return { images, publicKeys };
  throw new LaminaError('IMAGE_NOT_FOUND', `Cannot find ${app.name}: no page says where it is`, {
    hint: 'It may need other labels (version, os, arch), or have moved.',
    details: { tried: tried.map((text) => text.slice(0, 200)).slice(0, 20) },
  });
}

/**
 * Whether a place that a page or a redirect names may be asked: with TLS; without it where {@link DiscoveryOptions} allow that; on
 * this machine only for an image whose name says so, lest others have us ask what only we can reach.
 */
export function mayAsk(url: URL, { name }: Pick<AppName, 'name'>, insecure: boolean | undefined): boolean {
  const here = isLoopback(url.hostname);
  if (here && !isLoopback(hostOf(name))) return false;
  return url.protocol === 'https:' || (url.protocol === 'http:' && (insecure ?? here));
}

/** GET, with redirects followed as far as {@link mayAsk} allows. The answer is the last one, whatever its status. */
export async function getFollowing(start: URL, app: Pick<AppName, 'name'>, options: DiscoveryOptions): Promise<Answer> {
  const { transport, insecure, signal } = options;
  let url = start;
  for (let n = 0; n <= REDIRECTS_MAX; n++) {
    const { tls } = directOptions(url.host, insecure === undefined ? undefined : !insecure);
    const answer = await transport.send(url, { method: 'GET', tls, signal });
    if (answer.status < 300 || answer.status > 399) return answer;
    await answer.cancel();
    const location = answer.header('location') ?? '';
    const next = location !== '' && URL.canParse(location, url.href) ? new URL(location, url) : undefined;
    if (next === undefined || !mayAsk(next, app, insecure)) {
      throw protocolError(answer.host, 'redirects to what is no address with TLS that may be asked', answer.status);
    }
    url = next;
  }
  throw protocolError(start.host, `redirects more than ${REDIRECTS_MAX} times`);
}

/** The page's text, or the status that came instead. */
async function fetchPage(name: string, options: DiscoveryOptions): Promise<string | number> {
  const slash = name.indexOf('/');
  const hostname = hostOf(name);
  const host = options.port === undefined ? hostname : `${hostname}:${options.port}`;
  const path = `${host}${slash < 0 ? '/' : name.slice(slash)}?ac-discovery=1`;
  const plain = options.insecure ?? isLoopback(hostname);
  try {
    const page = await readPage(new URL(`https://${path}`), name, options);
    if (!plain || typeof page === 'string') return page;
  } catch (e) {
    if (!plain || !(e instanceof LaminaError) || e.code !== 'REGISTRY_UNREACHABLE') throw e;
  }
  return readPage(new URL(`http://${path}`), name, options);
}

async function readPage(url: URL, name: string, options: DiscoveryOptions): Promise<string | number> {
  const answer = await getFollowing(url, { name }, options);
  if (answer.status === 200) return (await answer.read(PAGE_LIMIT, `the page of ${url.host}`)).toString('utf8');
  if (answer.status >= 400 && answer.status <= 499 && answer.status !== 429) {
    await answer.cancel();
    return answer.status;
  }
  // Only of what is not there the specification says that the page above it is looked at.
  throw await statusError(answer, { what: `read the page of ${name}`, missing: 'IMAGE_NOT_FOUND' }, url.host);
}

interface Tag {
  readonly kind: string;
  readonly url: string;
}

/** Of a page, those for images whose names begin as `name` does. */
function readTags(page: string, name: string): Tag[] {
  return metaTags(page).flatMap((attributes) => {
    const kind = attributes.get('name') ?? '';
    const [, prefix, url] = /^\s*(\S+)\s+(\S.*?)\s*$/s.exec(attributes.get('content') ?? '') ?? [];
    return prefix !== undefined && url !== undefined && name.startsWith(prefix) ? [{ kind, url }] : [];
  });
}

/** Those templates that can be filled in wholly, with the most labels. */
function bestImages(tags: readonly Tag[], app: AppName, insecure: boolean | undefined): Discovered['images'] {
  let best: { aci: string; signature: string }[] = [];
  let most = 0;
  for (const { kind, url } of tags) {
    if (kind !== 'ac-discovery') continue;
    const aci = render(url, app, 'aci');
    const signature = render(url, app, 'aci.asc');
    if (aci === undefined || signature === undefined || !isUsable(aci.url, app, insecure)) continue;
    if (aci.labels > most) best = [];
    if (aci.labels >= most) best.push({ aci: aci.url, signature: signature.url });
    most = Math.max(most, aci.labels);
  }
  return best;
}

/** Other ways of transport may be named beside. */
function isUsable(text: string, app: AppName, insecure: boolean | undefined): boolean {
  return URL.canParse(text) && mayAsk(new URL(text), app, insecure);
}

/** Undefined where a variable has no value. What a value says is not read as a template again. */
function render(template: string, app: AppName, ext: string): { url: string; labels: number } | undefined {
  const used = new Set<string>();
  let missing = false;
  const url = template.replace(/\{(.*?)\}/g, (_, variable: string) => {
    if (variable === 'name') return app.name;
    if (variable === 'ext') return ext;
    const value = app.labels.get(variable);
    if (value === undefined) missing = true;
    else used.add(variable);
    return value ?? '';
  });
  return missing ? undefined : { url, labels: used.size };
}
