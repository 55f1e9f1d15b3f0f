/**
 * Where an appc image is, by its name (appc spec v0.8.11, spec/discovery.md): a page at the address that the name is says so
 * in meta tags, or the page of a part of the name.
 */
import { LaminaError } from '../../errors.js';
import type { AciManifest } from '../../oci/aci-manifest.js';
import { directOptions } from './endpoints.js';
import { protocolError } from './failures.js';
import { metaTags } from './meta-tags.js';
import { isLoopback, type Answer, type Transport } from './transport.js';

/** Bytes of a page. */
const PAGE_LIMIT = 1024 * 1024;
const REDIRECTS_MAX = 10;

export interface AppName {
  /** "example.com/reduce-worker" */
  readonly name: string;
  /** "version", "os", "arch" and others. */
  readonly labels: ReadonlyMap<string, string>;
}

export interface DiscoveryOptions {
  readonly transport: Transport;
  /** Whether to go without TLS, and to trust any certificate. On this machine that is so anyway. */
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

const IDENTIFIER = /^[a-z0-9]+(?:[-._~/][a-z0-9]+)*$/;

/** `NAME[:VERSION][,LABEL=VALUE]...`, as in appc's own tools. Throws REFERENCE_INVALID. */
export function parseAppName(text: string): AppName {
  const [first = '', ...pairs] = text.split(',');
  const colon = first.indexOf(':');
  const name = colon < 0 ? first : first.slice(0, colon);
  const labels = new Map(colon < 0 ? [] : [['version', first.slice(colon + 1)]]);
  let sound = IDENTIFIER.test(name) && labels.get('version') !== '';
  for (const pair of pairs) {
    const equals = pair.indexOf('=');
    const label = pair.slice(0, Math.max(equals, 0));
    sound &&= IDENTIFIER.test(label) && label !== 'name' && !labels.has(label);
    labels.set(label, pair.slice(equals + 1));
  }
  if (sound) return { name, labels };
  throw new LaminaError('REFERENCE_INVALID', `${JSON.stringify(text.slice(0, 200))} is no name of an appc image`, {
    hint: 'It is NAME[:VERSION][,LABEL=VALUE]..., such as example.com/app:1.0.0,os=linux,arch=amd64.',
  });
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
    const found = await fetchPage(page, options);
    tried.push(typeof found === 'number' ? `${page} (${found})` : page);
    if (typeof found === 'number') continue;
    const tags = readTags(found, app.name);
    // Each list comes from the longest part of the name for which there is one.
    if (images.length === 0) images = bestImages(tags, app, options.insecure === true);
    if (publicKeys.length === 0)
      publicKeys = tags.filter(({ kind }) => kind === 'ac-discovery-pubkeys').map(({ url }) => url);
  }
  if (images.length > 0) return { images, publicKeys };
  throw new LaminaError('IMAGE_NOT_FOUND', `Cannot find ${app.name}: no page says where it is`, {
    hint: 'It may need other labels (version, os, arch), or have moved.',
    details: { tried: tried.map((text) => text.slice(0, 200)).slice(0, 20) },
  });
}

/** Whether an image is the one that was asked for: its name, and each label that was given. */
export function isWanted({ name, labels }: Pick<AciManifest, 'name' | 'labels'>, wanted: AppName): boolean {
  return name === wanted.name && [...wanted.labels].every(([label, value]) => labels.get(label) === value);
}

/** The page's text, or the status that came instead. */
async function fetchPage(name: string, options: DiscoveryOptions): Promise<string | number> {
  const slash = name.indexOf('/');
  const hostname = slash < 0 ? name : name.slice(0, slash);
  const host = options.port === undefined ? hostname : `${hostname}:${options.port}`;
  const path = `${host}${slash < 0 ? '/' : name.slice(slash)}?ac-discovery=1`;
  const plain = options.insecure === true || isLoopback(hostname);
  try {
    const page = await follow(new URL(`https://${path}`), options, plain);
    if (!plain || typeof page === 'string') return page;
  } catch (e) {
    if (!plain || !(e instanceof LaminaError) || e.code !== 'REGISTRY_UNREACHABLE') throw e;
  }
  return follow(new URL(`http://${path}`), options, plain);
}

async function follow(start: URL, options: DiscoveryOptions, plain: boolean): Promise<string | number> {
  const { transport, insecure, signal } = options;
  let url = start;
  for (let n = 0; n <= REDIRECTS_MAX; n++) {
    const { tls } = directOptions(url.host, insecure === true ? false : undefined);
    const answer = await transport.send(url, { method: 'GET', tls, signal });
    if (answer.status === 200) return (await answer.read(PAGE_LIMIT, `the page of ${url.host}`)).toString('utf8');
    await answer.cancel();
    if (answer.status < 300 || answer.status > 399) return answer.status;
    url = redirected(answer, plain);
  }
  throw protocolError(start.host, `redirects more than ${REDIRECTS_MAX} times`);
}

function redirected(answer: Answer, plain: boolean): URL {
  const location = answer.header('location') ?? '';
  const next = location !== '' && URL.canParse(location, answer.url.href) ? new URL(location, answer.url) : undefined;
  if (next?.protocol === 'https:' || (next?.protocol === 'http:' && plain)) return next;
  throw protocolError(answer.host, 'redirects to what is no address with TLS', answer.status);
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
function bestImages(tags: readonly Tag[], app: AppName, insecure: boolean): Discovered['images'] {
  let best: { aci: string; signature: string }[] = [];
  let most = 0;
  for (const { kind, url } of tags) {
    if (kind !== 'ac-discovery') continue;
    const aci = render(url, app, 'aci');
    const signature = render(url, app, 'aci.asc');
    if (aci === undefined || signature === undefined || !isUsable(aci.url, insecure)) continue;
    if (aci.labels > most) best = [];
    if (aci.labels >= most) best.push({ aci: aci.url, signature: signature.url });
    most = Math.max(most, aci.labels);
  }
  return best;
}

/** Other ways of transport may be named beside; without TLS only where that was asked for. */
function isUsable(text: string, insecure: boolean): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname } = new URL(text);
  return protocol === 'https:' || (protocol === 'http:' && (insecure || isLoopback(hostname)));
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
