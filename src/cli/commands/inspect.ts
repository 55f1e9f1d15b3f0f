import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { prepareImage } from '../../image/prepare.js';
import { formatPlatform } from '../../oci/platform.js';
import type { Image, Layer } from '../../source/image.js';
import { Store } from '../../store/store.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { examples } from '../help.js';
import { layerIndexState, sameBytes, type LayerIndexState } from '../image-state.js';
import { openImage } from '../open-image.js';
import { addImageOptions, type ImageOptions } from '../options.js';
import { keyValues, table, type Output } from '../output.js';
import { formatBytes, plural, shortDigest } from '../text.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('inspect')
    .description('Show what an image is: digests, platform, config, layers, and what is indexed.')
    .argument('<image>', 'what to look into');
  addImageOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina inspect oci:app.oci:latest', 'for people'],
        ["lamina inspect --json app.tar | jq '.config.env'", 'for a program'],
        ['lamina inspect -q app.tar', 'the image ID'],
      ]),
    )
    .action((image: string, options: ImageOptions) => cli.run(command, (context) => inspect(context, image, options)));
}

async function inspect(context: Context, reference: string, options: ImageOptions): Promise<void> {
  const { out } = context;
  const image = await openImage(context, reference, options);
  if (out.quiet && !out.json) return out.lines([image.configDigest]);
  const facts = await imageFacts(image, context.store);
  return out.json ? out.document(facts) : out.lines(factLines(out, facts));
}

export type LayerFacts = Pick<Layer, 'diffId' | 'size' | 'mediaType'> & {
  readonly digest: string | null;
  readonly index: LayerIndexState;
};

export interface ImageFacts {
  readonly reference: string;
  readonly manifestDigest: string | null;
  readonly configDigest: string;
  readonly platform: string;
  readonly config: ReturnType<typeof configFacts>;
  readonly annotations: Readonly<Record<string, string>>;
  /** Bytes of all blobs. */
  readonly size: number;
  /** Whether `--compat overlay` gives another tree; null while layers are not indexed. */
  readonly compatDiffers: boolean | null;
  readonly layers: readonly LayerFacts[];
}

/** Indexes nothing: an image that was never mounted says so. */
export async function imageFacts(image: Image, storePath: string): Promise<ImageFacts> {
  const store = existsSync(storePath) ? Store.open(storePath) : undefined;
  const layers = image.layers.map((layer) => ({
    digest: layer.digest ?? null,
    diffId: layer.diffId,
    mediaType: layer.mediaType,
    size: layer.size,
    index: layerIndexState(store, layer),
  }));
  const indexed = layers.every(({ index }) => index.indexed);
  return {
    reference: image.reference,
    manifestDigest: image.manifestDigest ?? null,
    configDigest: image.configDigest,
    platform: formatPlatform(image.platform),
    config: configFacts(image),
    annotations: image.annotations,
    size: layers.reduce((sum, { size }) => sum + size, 0),
    compatDiffers: indexed && store !== undefined ? await compatDiffers(image, store) : null,
    layers,
  };
}

function configFacts({ config }: Image) {
  return {
    created: config.created ?? null,
    author: config.author ?? null,
    user: config.user,
    entrypoint: config.entrypoint,
    cmd: config.cmd,
    env: config.env,
    workingDir: config.workingDir,
    labels: config.labels,
    volumes: config.volumes,
    exposedPorts: config.exposedPorts,
    stopSignal: config.stopSignal ?? null,
  };
}

/** Equal trees are equal bytes: the writer is deterministic. */
async function compatDiffers(image: Image, store: Store): Promise<boolean> {
  const spec = await prepareImage(image, { store, compat: 'spec' });
  const overlay = await prepareImage(image, { store, compat: 'overlay' });
  return !sameBytes(spec.treePath, overlay.treePath);
}

function factLines(out: Output, facts: ImageFacts): string[] {
  const { config } = facts;
  const list = (values: readonly string[]): string | undefined =>
    values.length === 0 ? undefined : out.text(values.join(' '));
  return [
    ...keyValues([
      ['image', out.text(facts.reference)],
      ['manifest', facts.manifestDigest ?? undefined],
      ['config', facts.configDigest],
      ['platform', out.text(facts.platform)],
      ['created', config.created === null ? undefined : out.text(config.created)],
      ['entrypoint', list(config.entrypoint.map((arg) => JSON.stringify(arg)))],
      ['cmd', list(config.cmd.map((arg) => JSON.stringify(arg)))],
      ['user', list([config.user].filter((user) => user !== ''))],
      ['workdir', list([config.workingDir].filter((dir) => dir !== ''))],
      ['volumes', list(config.volumes)],
      ['ports', list(config.exposedPorts)],
      ['stop signal', config.stopSignal === null ? undefined : out.text(config.stopSignal)],
      ['size', `${formatBytes(facts.size)} in ${plural(facts.layers.length, 'layer')}`],
      ['compat', compatText(facts.compatDiffers)],
    ]),
    ...config.env.map((variable) => `env ${out.text(variable)}`),
    ...Object.entries(config.labels).map(([key, value]) => `label ${out.text(`${key}=${value}`)}`),
    ...layerTable(out, facts.layers),
    ...facts.layers.flatMap(layerNotes).map((line) => out.text(line)),
  ];
}

function compatText(differs: boolean | null): string | undefined {
  if (differs === null) return undefined;
  return differs
    ? 'the tree differs between --compat spec and --compat overlay'
    : 'the same tree with spec and overlay';
}

const RIGHT_ALIGNED = [0, 3, 6];

function layerTable(out: Output, layers: readonly LayerFacts[]): string[] {
  const rows = layers.map(({ digest, diffId, size, mediaType, index }, i) => [
    String(i + 1),
    digest === null ? '-' : shortDigest(digest),
    shortDigest(diffId),
    formatBytes(size),
    index.byToc ? 'by its TOC' : index.indexed ? 'indexed' : 'not indexed',
    index.compression ?? '-',
    index.restartPoints === null ? '-' : String(index.restartPoints),
    out.text(mediaType),
  ]);
  const heading = ['LAYER', 'DIGEST', 'DIFFID', 'SIZE', 'INDEX', 'COMPRESSION', 'POINTS', 'MEDIA TYPE'];
  return table([heading, ...rows], RIGHT_ALIGNED);
}

function layerNotes({ index }: LayerFacts, i: number): string[] {
  const notes = [...index.notes];
  if (index.problem !== null) notes.push(index.problem);
  if (index.keptBytes > 0) notes.push(keptNote(index));
  return notes.map((note) => `layer ${i + 1}: ${note}`);
}

function keptNote({ compression, restartPoints, keptBytes }: LayerIndexState): string {
  const kept = `${formatBytes(keptBytes)} of it were kept in the store when it was indexed`;
  return compression === 'zstd' && restartPoints === 1
    ? `it is one zstd frame, which can only be read from its start: ${kept}`
    : `${kept}, being far from a place where decompression can start`;
}
