/**
 * appc images: the archive and what it depends on, as a stack of layers (appc spec, spec/aci.md).
 *
 * Dependencies come before the image that names them, in its order, depth first; an image that is reached twice is
 * applied twice. Each archive is one layer, of which the image sees what is below `rootfs/` and what the whitelists of
 * the image and of all that led there have in common.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Digest } from '../digest/index.js';
import { LaminaError, toLaminaError } from '../errors.js';
import { aciConfig, aciPlatform, type AciDependency, type AciManifest } from '../oci/aci-manifest.js';
import type { Platform } from '../oci/platform.js';
import { readAci, readAciManifest, type AciArchive } from './aci-archive.js';
import type { Image, Layer } from './image.js';
import { platformWarnings } from './oci-image.js';

export interface AciWanted {
  /** In its full form. */
  readonly reference: string;
  /** Directories with the archives of dependencies, absolute. */
  readonly aciPath: readonly string[];
  readonly platform: Platform;
  /** Finds a dependency that no directory has. */
  readonly discover?: ((dependency: AciDependency, by: AciManifest) => Promise<AciArchive>) | undefined;
}

/** Images on the way from the first to one that it needs. */
const DEPTH_MAX = 32;
/** An image that is reached twice counts twice: what is small on disk may be large here. */
const LAYERS_MAX = 512;
/** Archives in one directory. */
const ARCHIVES_MAX = 10_000;
const MEDIA_TYPE = 'application/appc-image-layout';

/** Throws what {@link readAci} throws; IMAGE_NOT_FOUND, IMAGE_AMBIGUOUS, BLOB_DIGEST_MISMATCH for dependencies. */
export async function aciImage(top: AciArchive, { reference, aciPath, platform, discover }: AciWanted): Promise<Image> {
  const finder = new Finder(aciPath, discover);
  const layers: Layer[] = [];
  const add = async (
    aci: AciArchive,
    above: readonly Digest[],
    lists: readonly (readonly string[])[],
  ): Promise<void> => {
    const { id, digest, manifest, blob } = aci;
    if (above.includes(id)) throw new LaminaError('ARCHIVE_INVALID', `${manifest.name} depends on itself`);
    if (above.length > DEPTH_MAX) {
      throw new LaminaError('LIMIT_EXCEEDED', `its dependencies go deeper than ${DEPTH_MAX} images`);
    }
    const whitelists = manifest.pathWhitelist.length === 0 ? lists : [...lists, manifest.pathWhitelist];
    for (const dependency of manifest.dependencies) {
      await add(await finder.find(dependency, manifest), [...above, id], whitelists);
    }
    if (layers.length >= LAYERS_MAX) {
      throw new LaminaError('LIMIT_EXCEEDED', `it and its dependencies are more than ${LAYERS_MAX} layers`);
    }
    layers.push({
      diffId: id,
      digest,
      size: blob.size,
      mediaType: MEDIA_TYPE,
      blob,
      view: 'aci',
      whitelists,
    });
  };
  await add(top, [], []);
  const config = aciConfig(
    top.manifest,
    layers.map(({ diffId }) => diffId),
  );
  return {
    reference,
    manifestDigest: undefined,
    configDigest: top.id,
    platform: aciPlatform(top.manifest),
    config,
    configBytes: top.manifestBytes,
    // What a lower image has as a symlink to a directory is not followed: an upper directory replaces it.
    compat: 'overlay',
    layers,
    annotations: {},
    warnings: [
      ...finder.warnings,
      // What is not said is any: "the image is assumed to be OS- and/or architecture-independent".
      ...(config.os === '' || config.architecture === ''
        ? []
        : platformWarnings(config, { platform: undefined, wanted: platform })),
    ],
  };
}

interface Candidate {
  readonly path: string;
  readonly manifest: AciManifest;
}

/** The archives of some directories, by what their manifests say; then what `discover` finds. */
class Finder {
  /** Archives that cannot be used. */
  readonly warnings: string[] = [];
  readonly #directories: readonly string[];
  readonly #discover: AciWanted['discover'];
  readonly #archives = new Map<string, Promise<AciArchive>>();
  #candidates: Promise<readonly Candidate[]> | undefined;

  constructor(directories: readonly string[], discover: AciWanted['discover']) {
    this.#directories = directories;
    this.#discover = discover;
  }

  async find(dependency: AciDependency, by: AciManifest): Promise<AciArchive> {
    this.#candidates ??= this.#list();
    const { imageName, imageId, labels } = dependency;
    const named = (await this.#candidates).filter(({ manifest }) => manifest.name === imageName);
    if (imageId !== undefined && named.length > 0) return this.#byId(named, imageId, dependency, by);
    const matching = named.filter(({ manifest }) => hasLabels(manifest, labels));
    if (matching.length === 0 && this.#discover !== undefined) return this.#discover(dependency, by);
    if (matching.length === 0) throw this.#missing(dependency, by, named);
    // One for the platform of the image that wants it, where there are several.
    const own = new Map([...by.labels].filter(([name]) => name === 'os' || name === 'arch'));
    const closer = matching.filter(({ manifest }) => hasLabels(manifest, own));
    return this.#only(closer.length > 0 ? closer : matching, dependency);
  }

  async #byId(
    named: readonly Candidate[],
    wanted: Digest,
    dependency: AciDependency,
    by: AciManifest,
  ): Promise<AciArchive> {
    const got: string[] = [];
    for (const { path } of named) {
      const archive = await this.#read(path);
      if (archive.id === wanted) return archive;
      got.push(`${path}: ${imageIdText(archive.id)}`);
    }
    if (this.#discover !== undefined) return this.#discover(dependency, by);
    throw new LaminaError(
      'BLOB_DIGEST_MISMATCH',
      `the dependency ${dependency.imageName} has to be ${imageIdText(wanted)}; there is ${got.join(', ')}`,
      { details: { wanted, got } },
    );
  }

  async #only(matching: readonly Candidate[], { imageName }: AciDependency): Promise<AciArchive> {
    const archives = await Promise.all(matching.map(({ path }) => this.#read(path)));
    const [first] = archives;
    if (first !== undefined && archives.every(({ id }) => id === first.id)) return first;
    const lines = matching.map(({ path, manifest }) => `\n  ${path}  ${labelText(manifest.labels)}`);
    throw new LaminaError('IMAGE_AMBIGUOUS', `several images can be the dependency ${imageName}:${lines.join('')}`, {
      hint: 'Leave one of them in the directory, or name a directory that has only one.',
      details: { paths: matching.map(({ path }) => path) },
    });
  }

  #missing({ imageName, labels }: AciDependency, by: AciManifest, named: readonly Candidate[]): LaminaError {
    const wanted = `${imageName}${labels.size === 0 ? '' : ` (${labelText(labels)})`}`;
    const where = this.#directories.length === 0 ? 'no directory was named' : `not in ${this.#directories.join(', ')}`;
    const others = named.map(({ path, manifest }) => `\n  ${path}  ${labelText(manifest.labels)}`).join('');
    return new LaminaError(
      'IMAGE_NOT_FOUND',
      `${by.name} depends on ${wanted}, which is not there: ${where}${others}`,
      {
        hint: 'Name the directory that has it as a file *.aci: --aci-path DIR, or LAMINA_ACI_PATH.',
        details: { wanted, directories: this.#directories },
      },
    );
  }

  #read(path: string): Promise<AciArchive> {
    let archive = this.#archives.get(path);
    if (archive === undefined) this.#archives.set(path, (archive = readDependency(path)));
    return archive;
  }

  async #list(): Promise<readonly Candidate[]> {
    const candidates: Candidate[] = [];
    for (const path of this.#directories.flatMap(archivesIn)) {
      try {
        candidates.push({ path, manifest: await readAciManifest(path) });
      } catch (e) {
        this.warnings.push(`${path} is passed over: ${toLaminaError(e).message}`);
      }
    }
    return candidates;
  }
}

async function readDependency(path: string): Promise<AciArchive> {
  try {
    return await readAci(path);
  } catch (e) {
    const { code, message, hint, details } = toLaminaError(e);
    throw new LaminaError(code, `the dependency ${path}: ${message}`, { hint, details, cause: e });
  }
}

/** In the order of their names. */
function archivesIn(directory: string): string[] {
  let names: string[];
  try {
    names = readdirSync(directory).filter((name) => name.endsWith('.aci'));
  } catch (e) {
    throw toLaminaError(e, `Looking for dependencies in ${directory}`);
  }
  if (names.length <= ARCHIVES_MAX) return names.sort().map((name) => join(directory, name));
  throw new LaminaError('LIMIT_EXCEEDED', `${directory} has more than ${ARCHIVES_MAX} archives`);
}

/** A label that is not asked for may have any value (spec/aci.md, "Dependency Matching"). */
function hasLabels({ labels }: AciManifest, wanted: ReadonlyMap<string, string>): boolean {
  return [...wanted].every(([name, value]) => labels.get(name) === value);
}

function labelText(labels: ReadonlyMap<string, string>): string {
  return [...labels].map(([name, value]) => `${name}=${value.slice(0, 100)}`).join(',');
}

function imageIdText(id: Digest): string {
  return id.replace(':', '-');
}
