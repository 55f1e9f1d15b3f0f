/** Documents, references, and the archives and layouts that they are in. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { digestOf, parseDigest } from '../../src/digest/index.js';
import { LaminaError } from '../../src/errors.js';
import { parseConfig } from '../../src/oci/config.js';
import { parseIndex } from '../../src/oci/index-document.js';
import { parseManifest } from '../../src/oci/manifest.js';
import { fullName } from '../../src/oci/name.js';
import { candidates, parsePlatform } from '../../src/oci/platform.js';
import { Archive } from '../../src/source/archive.js';
import { dockerImage } from '../../src/source/docker-archive.js';
import { Layout } from '../../src/source/layout.js';
import { ociImage } from '../../src/source/oci-image.js';
import { parseReference } from '../../src/source/sniff.js';
import { parseRegistryName } from '../../src/source/registry/name.js';
import { selectManifest } from '../../src/source/select.js';
import { tarMembers } from '../../src/source/tar-members.js';
import { temporaryPrefix } from '../../scripts/leftovers.js';
import { repairTar, tarWords } from './tar-targets.js';
import type { Target } from './targets.js';
import { sum, words } from './words.js';

const json = words(
  '{',
  '}',
  '[',
  ']',
  ',',
  '"',
  ':',
  'null',
  'true',
  '-1',
  '1e999',
  '9007199254740993',
  '"\\ud800"',
  '{}',
  '[]',
);
const jsonWords = (...keys: readonly string[]): Buffer[] => [
  ...json,
  ...words(...keys.map((key) => `"${key}":`)),
  ...words('"__proto__":{},'),
];

const manifestType = 'application/vnd.oci.image.manifest.v1+json';
const hex = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

const manifest: Target = {
  name: 'manifest',
  runs: 8000,
  dictionary: jsonWords(
    'schemaVersion',
    'mediaType',
    'config',
    'layers',
    'manifests',
    'digest',
    'size',
    'data',
    'fsLayers',
  ),
  run: (bytes) => `manifest ${JSON.stringify(parseManifest(bytes, manifestType))}`,
};

const index: Target = {
  name: 'index',
  runs: 8000,
  dictionary: jsonWords(
    'schemaVersion',
    'manifests',
    'platform',
    'variant',
    'annotations',
    'os',
    'artifactType',
    'data',
  ),
  run: (bytes) => `index ${JSON.stringify(parseIndex(bytes, undefined))}`,
};

const config: Target = {
  name: 'config',
  runs: 8000,
  dictionary: jsonWords('rootfs', 'diff_ids', 'type', 'config', 'Env', 'Entrypoint', 'Cmd', 'Volumes', 'history'),
  run: (bytes) => `config ${JSON.stringify(parseConfig(bytes))}`,
};

/** Everything that a user types or a document names: references, digests, names, platforms. */
const reference: Target = {
  name: 'reference',
  runs: 5000,
  most: 9000,
  dictionary: words(
    'oci:',
    'oci-archive:',
    'docker-archive:',
    'docker://',
    ':@1',
    `@sha256:${hex}`,
    'sha512:',
    'linux/arm/v7',
    'a.b/c:d',
    ':',
    '@',
    '/',
    ':a@',
    '-a',
  ),
  run(bytes) {
    const text = bytes.toString('utf8');
    const acts: (() => unknown)[] = [
      () => parseReference(text, '/nonexistent'),
      () => parseDigest(text),
      () => candidates(parsePlatform(text)),
      () => fullName(text),
      () => parseRegistryName(text),
    ];
    const answers = acts.map((act) => {
      try {
        return JSON.stringify(act()) ?? 'undefined';
      } catch (e) {
        if (e instanceof LaminaError) return e.code;
        throw e;
      }
    });
    return `${answers.map((a) => (/^[A-Z_]+$/.test(a) ? a : 'ok')).join('/')} ${answers.join(' ')}`;
  },
};

/** The walk over the headers of an outer archive, which skips bodies without reading them. */
const members: Target = {
  name: 'members',
  runs: 8000,
  dictionary: tarWords,
  repair: repairTar,
  run(bytes) {
    const blob = {
      size: bytes.length,
      read(offset: number, into: Uint8Array): number {
        if (offset > bytes.length) throw new Error('read behind the end');
        const piece = bytes.subarray(offset, offset + into.length);
        into.set(piece);
        return piece.length;
      },
      close: () => undefined,
    };
    const found = [...tarMembers(blob)];
    for (const { offset, size } of found) if (offset + size > bytes.length) throw new Error('a member outside');
    return `members-${Math.min(found.length, 4)} ${sum(JSON.stringify(found))}`;
  },
};

const platform = { os: 'linux', architecture: 'amd64' };
let file: string | undefined;

/** The input as a file: archives are files. One for all of them, which goes with the process. */
function asFile(bytes: Buffer): string {
  if (file === undefined) {
    const directory = mkdtempSync(join(tmpdir(), temporaryPrefix('fuzz')));
    process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
    file = join(directory, 'input');
  }
  writeFileSync(file, bytes);
  return file;
}

const archiveWords = [
  ...tarWords,
  ...words('manifest.json', 'index.json', 'oci-layout', 'blobs/sha256/', hex),
  ...json,
];

/** From an archive to the image in it. What a digest covers is reached only unchanged; the documents have targets of their own. */
const ociArchive: Target = {
  name: 'oci-archive',
  runs: 2500,
  once: true,
  dictionary: archiveWords,
  repair: repairTar,
  run(bytes) {
    const layout = Layout.open(Archive.open(asFile(bytes)));
    const { descriptor, platform: said, warnings } = selectManifest(layout, { platform });
    const image = ociImage(layout, descriptor, { reference: 'fuzz', platform: said, wanted: platform, warnings });
    return `image-${image.layers.length} ${JSON.stringify(image.layers)}`;
  },
};

const dockerArchive: Target = {
  name: 'docker-archive',
  runs: 2500,
  once: true,
  dictionary: [...archiveWords, ...jsonWords('Config', 'RepoTags', 'Layers')],
  repair: repairTar,
  run(bytes) {
    const image = dockerImage(Archive.open(asFile(bytes)), { reference: 'fuzz', platform });
    for (const { blob } of image.layers) if (blob.offset + blob.size > bytes.length) throw new Error('a layer outside');
    return `image-${image.layers.length} ${digestOf(Buffer.from(JSON.stringify(image.layers)))}`;
  },
};

export const documentTargets: readonly Target[] = [
  manifest,
  index,
  config,
  reference,
  members,
  ociArchive,
  dockerArchive,
];
