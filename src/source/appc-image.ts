/**
 * An appc image by its name. A name says no digest: what was fetched under it is remembered with its image ID, the SHA-512 of the
 * uncompressed archive, and means that from then on. Dependencies that no directory has are found in the same way.
 *
 * Signatures are not verified: the image is what the host of its name gives out, over TLS, and not more.
 */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';
import { parseDigest, type Digest } from '../digest/index.js';
import { LaminaError, toLaminaError } from '../errors.js';
import { platformLabels, type AciDependency, type AciManifest } from '../oci/aci-manifest.js';
import type { Platform } from '../oci/platform.js';
import { publish } from '../store/store.js';
import { aciImage } from './aci.js';
import { readAci, type AciArchive } from './aci-archive.js';
import { withoutSecrets } from './documents.js';
import type { Image } from './image.js';
import { layerLimit } from './limits.js';
import type { AppcReference } from './reference.js';
import type { RegistrySource } from './registry-image.js';
import { hostOf, isDiscoverable, isWanted, type AppName } from './registry/app-name.js';
import { isLoopback } from './registry/loopback.js';
import { recall, remember } from './remembered.js';

export interface AppcWanted {
  /** Directories with the archives of dependencies, absolute. */
  readonly aciPath: readonly string[];
  readonly platform: Platform;
}

/** What a name meant. */
const meaning = z.object({
  reference: z.string(),
  digest: z.string(),
  imageId: z.string(),
  url: z.string(),
  publicKeys: z.array(z.string()),
});
type Meaning = z.output<typeof meaning>;

/**
 * Throws what {@link aciImage} and fetching throw; IMAGE_NOT_FOUND, also where nobody may be asked; BLOB_MISSING;
 * BLOB_DIGEST_MISMATCH; ARCHIVE_INVALID for an archive of another name or other labels.
 */
export async function appcImage(
  { name, labels, text }: AppcReference,
  { aciPath, platform }: AppcWanted,
  source: RegistrySource | undefined,
): Promise<Image> {
  if (source === undefined) throw new LaminaError('INTERNAL', 'Nothing is there to look for an image with');
  const finder = new Discoverer(source);
  const top = await finder.find({ name, labels }, platformLabels(platform));
  const discoverDependency = (dependency: AciDependency, by: AciManifest): Promise<AciArchive> =>
    finder.findDependency(dependency, by, { top: name, platform });
  const image = await aciImage(top, { reference: text, aciPath, platform, discover: discoverDependency });
  return { ...image, warnings: [...image.warnings, finder.unverified()] };
}

class Discoverer {
  readonly #source: RegistrySource;
  readonly #found = new Map<string, Promise<AciArchive>>();
  readonly #meanings = new Map<string, Meaning>();

  constructor(source: RegistrySource) {
    this.#source = source;
  }

  /** The warning for everything that was found. */
  unverified(): string {
    const images = [...this.#meanings].map(([name, { url }]) => `${name} from ${withoutSecrets(url)}`);
    const keys = [...new Set([...this.#meanings.values()].flatMap(({ publicKeys }) => publicKeys))].map(withoutSecrets);
    const said = keys.length === 0 ? 'no keys are named' : `keys: ${keys.join(', ')}`;
    return `signatures are not verified: ${images.join('; ')} (${said})`;
  }

  /** Throws IMAGE_NOT_FOUND where its name says no host that may be asked, and what {@link find} throws. */
  findDependency(
    { imageName: name, imageId, labels }: AciDependency,
    by: AciManifest,
    { top, platform }: { readonly top: string; readonly platform: Platform },
  ): Promise<AciArchive> {
    const here = isLoopback(hostOf(name));
    if (!isDiscoverable(name) || (here && !isLoopback(hostOf(top)))) {
      const why = here ? 'an image from elsewhere must not ask this machine' : 'its name does not say a host';
      throw new LaminaError('IMAGE_NOT_FOUND', `${by.name} depends on ${name}, which is not looked for: ${why}`, {
        hint: 'Name a directory that has it as a file *.aci: --aci-path DIR, or LAMINA_ACI_PATH.',
      });
    }
    const own = [...by.labels].filter(([label]) => label === 'os' || label === 'arch');
    return this.find({ name, labels }, own.length > 0 ? new Map(own) : platformLabels(platform), imageId);
  }

  /** `usual`: labels that help to find it where none are given; an image that lacks them will do. */
  find(app: AppName, usual: ReadonlyMap<string, string>, imageId?: Digest): Promise<AciArchive> {
    const os = app.labels.get('os');
    const labels = new Map(os === undefined || os === usual.get('os') ? [...usual, ...app.labels] : app.labels);
    const key = keyOf({ name: app.name, labels }, imageId);
    let found = this.#found.get(key);
    if (found === undefined) {
      found = this.#find({ app, full: { name: app.name, labels }, key, imageId });
      this.#found.set(key, found);
    }
    return found;
  }

  async #find(search: Search): Promise<AciArchive> {
    const { store, pull, access } = this.#source;
    const before = recall(store, meaning, search.key);
    const again = pull === 'always' && search.imageId === undefined && access.offline !== true;
    if (before !== undefined && !again) {
      const kept = await this.#kept(before);
      if (kept !== undefined) {
        this.#meanings.set(search.app.name, before);
        return kept;
      }
    }
    if (access.offline === true || (pull === 'never' && before === undefined)) throw notHere(search, before);
    const { archive, found } = await this.#fetch(search, again ? undefined : before);
    remember(store, found);
    this.#meanings.set(search.app.name, found);
    return archive;
  }

  /** Undefined where it is gone or damaged. */
  async #kept({ digest, imageId }: Meaning): Promise<AciArchive | undefined> {
    const path = this.#source.store.blobPath(parseDigest(digest));
    if (!existsSync(path)) return undefined;
    try {
      const archive = await readAci(path);
      return archive.id === imageId ? archive : undefined;
    } catch (e) {
      if (e instanceof LaminaError && /^(?:ARCHIVE|MANIFEST|COMPRESSION|TAR)_/.test(e.code)) return undefined;
      throw e;
    }
  }

  async #fetch(search: Search, before: Meaning | undefined): Promise<{ archive: AciArchive; found: Meaning }> {
    const { fetcher, store, access } = this.#source;
    const temporary = store.temporary();
    try {
      const { url, digest, publicKeys } = await fetcher.aci(search.full, access, {
        path: temporary,
        limit: layerLimit(),
      });
      const archive = await readAci(temporary);
      check(archive, search, before, url);
      const path = store.blobPath(digest);
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      publish(temporary, path);
      const found = { reference: search.key, digest, imageId: archive.id, url, publicKeys: [...publicKeys] };
      return { archive: { ...archive, blob: { ...archive.blob, path } }, found };
    } catch (e) {
      rmSync(temporary, { force: true });
      throw toLaminaError(e, `Fetching ${search.app.name}`);
    }
  }
}

interface Search {
  /** As it was asked for. */
  readonly app: AppName;
  /** With the usual labels. */
  readonly full: AppName;
  readonly key: string;
  readonly imageId: Digest | undefined;
}

/** Labels in one order. Of an image that must be a certain one it is kept apart from others of its name. */
function keyOf({ name, labels }: AppName, imageId: Digest | undefined): string {
  const pairs = [...labels].sort(([a], [b]) => (a < b ? -1 : 1)).map(([label, value]) => `,${label}=${value}`);
  return `aci:${name}${pairs.join('')}${imageId === undefined ? '' : `@${imageId}`}`;
}

/** Throws ARCHIVE_INVALID, BLOB_DIGEST_MISMATCH. */
function check({ id, manifest }: AciArchive, search: Search, before: Meaning | undefined, url: string): void {
  const { app, full, imageId } = search;
  const from = withoutSecrets(url);
  const other = [...full.labels].some(([label, value]) => (manifest.labels.get(label) ?? value) !== value);
  if (!isWanted(manifest, app) || other) {
    throw new LaminaError(
      'ARCHIVE_INVALID',
      `${from} is not ${search.key}: its manifest has another name or other labels`,
      {
        hint: 'The host of the name gives out another image: give other labels (version, os, arch), or tell those who run it.',
      },
    );
  }
  const wanted = imageId ?? before?.imageId;
  if (wanted === undefined || wanted === id) return;
  throw new LaminaError(
    'BLOB_DIGEST_MISMATCH',
    `${from} has the image ID ${id.replace(':', '-')}, wanted is ${wanted.replace(':', '-')}`,
    {
      details: { wanted, got: id },
      ...(imageId === undefined ? { hint: 'It is another image now than it was: --pull always takes it.' } : {}),
    },
  );
}

function notHere({ app }: Search, before: Meaning | undefined): LaminaError {
  return before === undefined
    ? new LaminaError('IMAGE_NOT_FOUND', `${app.name} has not been used here before, and nobody must be asked for it`, {
        hint: 'Use it once without --offline and --pull never.',
      })
    : new LaminaError('BLOB_MISSING', `${app.name} is not in the store as a whole, and nobody must be asked for it`, {
        hint: 'Use it once without --offline.',
      });
}
