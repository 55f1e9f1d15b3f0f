/**
 * The syntax of references as users write them: `oci:DIR[:TAG|@DIGEST]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:REF|:@N]`, `aci:FILE`,
 * `aci:HOST/NAME[:VERSION][,LABEL=VALUE]`, `docker://HOST/NAME[:TAG][@DIGEST]`, or a path, whose kind is found by looking at it. Names and tags may have colons, and
 * so may paths: the longest path that exists is meant.
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseDigest, type Digest } from '../digest/form.js';
import { LaminaError } from '../errors.js';
import { fullName } from '../oci/name.js';
import { isDiscoverable, parseAppName, type AppName } from './registry/app-name.js';
import { parseRegistryName, type RegistryName } from './registry/name.js';

export type FileKind = 'oci' | 'oci-archive' | 'docker-archive' | 'aci';

/** To what lies in a file or directory. */
export interface FileReference {
  readonly kind: FileKind;
  /** Absolute. */
  readonly path: string;
  /** The name in a layout, or one of the names in a docker-archive. */
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
  /** The place in a docker-archive, from 0. */
  readonly index?: number | undefined;
  /** In full, with the absolute path: "oci:/srv/app.oci:latest". */
  readonly text: string;
}

/** To an image in a registry; `text` is "docker://docker.io/library/alpine:latest". */
export interface RegistryReference extends RegistryName {
  readonly kind: 'docker';
}

/** To an appc image by its name; `text` is "aci:example.com/app:1.0.0,os=linux". */
export interface AppcReference extends AppName {
  readonly kind: 'appc';
  readonly text: string;
}

export type Reference = FileReference | RegistryReference | AppcReference;

/** A path without a prefix, at which something is; what kind of image it is, is still to be found out (./sniff). */
export interface PathReference extends Split {
  readonly kind: 'path';
}

/** Whether what it names is looked for in the network. */
export function isRemote({ kind }: Reference): boolean {
  return kind === 'docker' || kind === 'appc';
}

const LENGTH_MAX = 8192;

const KIND = /^(oci-archive|docker-archive|oci|aci):/;
/** What skopeo and podman can name besides. */
const OTHER_TRANSPORT = /^(containers-storage|dir|docker-daemon|ostree|sif|tarball|https?):/;

/**
 * `cwd` is what relative paths start from. The path of a reference with a prefix need not exist. Throws REFERENCE_INVALID,
 * DIGEST_UNSUPPORTED, DIGEST_INVALID; for a path without a prefix also IMAGE_NOT_FOUND.
 */
export function parseSyntax(text: string, cwd: string): Reference | PathReference {
  if (text === '' || text.length > LENGTH_MAX || /\p{Cc}/u.test(text)) {
    throw invalid(text, 'it is empty, too long or has control characters', GRAMMAR);
  }
  const [prefix = '', kind] = KIND.exec(text) ?? [];
  if (
    kind === 'aci' &&
    isAppName(text.slice(prefix.length)) &&
    longestPath(text.slice(prefix.length), cwd) === undefined
  )
    return appcReference(text.slice(prefix.length));
  if (kind !== undefined) return withPrefix(kind as FileKind, text.slice(prefix.length), text, cwd);
  if (text.startsWith('docker://')) return { kind: 'docker', ...parseRegistryName(text) };
  const found = longestPath(text, cwd);
  if (found !== undefined) return { kind: 'path', ...found };
  if (/^[/.]/.test(text)) {
    throw new LaminaError('IMAGE_NOT_FOUND', `Cannot open ${text}: there is no such file or directory`, {
      details: { path: resolve(cwd, text) },
    });
  }
  const [, transport] = OTHER_TRANSPORT.exec(text) ?? [];
  if (transport !== undefined) {
    const hint = `Copy it first: skopeo copy ${text} oci:DIR:TAG, then use oci:DIR:TAG.`;
    throw invalid(text, `images of ${transport}: are not read`, hint);
  }
  throw unprefixed(text);
}

/** The same for a reference in its full form, where a path is absolute: a relative one that exists here is not meant. */
export function parseFullSyntax(text: string): Reference | PathReference {
  const [, rest] = /^aci:(.*)$/s.exec(text) ?? [];
  return rest !== undefined && rest.length <= LENGTH_MAX && isAppName(rest)
    ? appcReference(rest)
    : parseSyntax(text, '/');
}

/**
 * Whether it begins as the name of an appc image that says where to look for it, HOST/NAME. What begins with "." or "/" is a
 * path, and so is what ends as an archive does: a file that is not there is not to be looked for in the network.
 */
function isAppName(rest: string): boolean {
  const [name = ''] = rest.split(/[:,]/, 1);
  return isDiscoverable(name) && !rest.endsWith('.aci');
}

function appcReference(text: string): AppcReference {
  return { kind: 'appc', ...parseAppName(text), text: `aci:${text}` };
}

/** A path, and what follows it: "", or from the ":" or "@" on. */
export interface Split {
  readonly path: string;
  readonly suffix: string;
}

function withPrefix(kind: FileKind, rest: string, text: string, cwd: string): FileReference {
  const existing = longestPath(rest, cwd);
  if (existing !== undefined) return fileReference(kind, existing, text, cwd);
  // Nothing is there; it is read as it would be if the shortest path were.
  const split = splits(rest)
    .reverse()
    .find(({ suffix }) => parseSuffix(kind, suffix) !== undefined);
  return fileReference(kind, split ?? { path: rest, suffix: '' }, text, cwd);
}

/** Every way to cut the text in two, the longest path first. */
function splits(rest: string): Split[] {
  const all: Split[] = [{ path: rest, suffix: '' }];
  for (let i = rest.length - 1; i > 0; i--) {
    if (rest[i] === ':' || rest[i] === '@') all.push({ path: rest.slice(0, i), suffix: rest.slice(i) });
  }
  return all;
}

function longestPath(rest: string, cwd: string): Split | undefined {
  return splits(rest).find(({ path }) => path !== '' && existsSync(resolve(cwd, path)));
}

/** Throws REFERENCE_INVALID. */
export function fileReference(kind: FileKind, { path, suffix }: Split, text: string, cwd: string): FileReference {
  if (path === '') throw invalid(text, 'it names no path', GRAMMAR);
  const parts = parseSuffix(kind, suffix);
  if (parts === undefined) {
    const what =
      { 'docker-archive': ':REF or :@N', aci: 'expected: an ACI holds one image' }[kind as string] ?? ':TAG or @DIGEST';
    throw invalid(text, `${JSON.stringify(suffix.slice(0, 200))} after the path ${path} is not ${what}`, GRAMMAR);
  }
  const absolute = resolve(cwd, path);
  return { kind, path: absolute, ...parts, text: `${kind}:${absolute}${suffix}` };
}

type Parts = Pick<FileReference, 'tag' | 'digest' | 'index'>;

/** Undefined when `suffix` is nothing that may follow the path. */
function parseSuffix(kind: FileKind, suffix: string): Parts | undefined {
  if (suffix === '') return {};
  if (kind === 'aci') return undefined;
  const [, tag, digest] = /^(?::(.+?))?(?:@([a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,}))?$/.exec(suffix) ?? [];
  if (kind === 'docker-archive') {
    const [, index] = /^:@(\d{1,6})$/.exec(suffix) ?? [];
    if (index !== undefined) return { index: Number(index) };
    return tag === undefined || tag.startsWith('@') || digest !== undefined ? undefined : { tag };
  }
  if (tag === undefined && digest === undefined) return undefined;
  return { ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest: parseDigest(digest) }) };
}

const GRAMMAR =
  'An image is oci:DIR[:TAG|@DIGEST], oci-archive:FILE[:TAG], docker-archive:FILE[:REF|:@N], aci:FILE, aci:HOST/NAME[:VERSION], docker://HOST/NAME[:TAG], or a path.';

function invalid(text: string, why: string, hint: string): LaminaError {
  return new LaminaError('REFERENCE_INVALID', `Cannot use ${JSON.stringify(text.slice(0, 200))} as an image: ${why}`, {
    hint,
  });
}

/** A name as docker takes it: the prefix is asked for, since a misspelt path looks the same. */
function unprefixed(text: string): LaminaError {
  const full = fullName(text);
  if (full === undefined) return invalid(text, 'it is neither a path that exists nor the name of an image', GRAMMAR);
  return invalid(text, 'there is no such path', `An image in a registry has a prefix: docker://${full}`);
}
