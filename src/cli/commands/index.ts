import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { PreparedLayer } from '../../image/known-layer.js';
import type { PreparedImage } from '../../image/prepare.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { examples } from '../help.js';
import { openImage, prepare } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import { table } from '../output.js';
import { interruptible } from '../signals.js';
import { pushIndex } from '../push-index.js';
import { writeIndex } from '../soci-index.js';
import { formatBytes, formatDuration, formatRate, shortDigest } from '../text.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('index')
    .description('Build what a mount needs, without mounting: one pass over every layer, once.')
    .argument('<image...>', 'what to index');
  addTreeOptions(command)
    .option('--push', 'put a SOCI index, and what containers have read first, beside the image in its registry')
    .option('--soci <dir>', 'write a SOCI index of an image in a registry to a new directory')
    .addHelpText(
      'after',
      examples([
        ['lamina index oci:app.oci:latest', 'what it took and how large it is'],
        ['lamina index --json *.tar', 'several, for a program'],
        [
          'lamina index --push docker://quay.io/me/app:1',
          'for other machines: gzip layers are lazy, and starts are sooner',
        ],
      ]),
    )
    .action((images: string[], options: IndexOptions) =>
      cli.run(command, (context) => index(context, images, options)),
    );
}

export interface IndexOptions extends TreeOptions {
  readonly push?: boolean;
  readonly soci?: string;
}

async function index(context: Context, images: readonly string[], options: IndexOptions): Promise<void> {
  const { out } = context;
  const reports: IndexReport[] = [];
  for (const image of images) {
    const report = await indexImage(context, image, options);
    reports.push(report);
    if (out.quiet && !out.json) await out.lines([report.configDigest]);
    else if (!out.json) await out.lines(reportLines(report).map((line) => out.name(line)));
  }
  if (out.json) await out.document(reports);
}

export interface LayerReport {
  readonly diffId: string;
  readonly digest: string | null;
  readonly compression: string;
  /** Bytes of the blob. */
  readonly size: number;
  /** Bytes of the uncompressed stream and what the index put behind it. */
  readonly uncompressed: number;
  readonly restartPoints: number;
  /** Bytes of tree, chunk digests and map. */
  readonly indexSize: number;
  /** The index was in the store before. */
  readonly cached: boolean;
}

export interface IndexReport {
  readonly reference: string;
  readonly manifestDigest: string | null;
  readonly configDigest: string;
  readonly seconds: number;
  /** Compressed bytes that were read for it. */
  readonly bytesIndexed: number;
  /** The same, uncompressed. */
  readonly bytesUncompressed: number;
  /** Bytes of the merged tree. */
  readonly treeSize: number;
  readonly layers: readonly LayerReport[];
}

export async function indexImage(context: Context, reference: string, options: IndexOptions): Promise<IndexReport> {
  const image = await openImage(context, reference, options);
  const start = performance.now();
  const prepared = await interruptible((signal) => prepare(context, image, { ...options, signal }));
  const seconds = (performance.now() - start) / 1000;
  if (options.push === true) await pushIndex(context, prepared, options);
  if (options.soci !== undefined) writeIndex(context, image, resolve(context.cwd, options.soci));
  return summarize(prepared, seconds);
}

function summarize({ image, layers, treePath }: PreparedImage, seconds: number): IndexReport {
  const reports = layers.map((layer, i): LayerReport => ({
    diffId: layer.diffId,
    digest: image.layers[i]?.digest ?? null,
    compression: layer.compression,
    size: layer.blob.size,
    uncompressed: layer.addressSpace,
    restartPoints: layer.points,
    indexSize: indexSize(layer),
    cached: layer.cached,
  }));
  const fresh = reports.filter(({ cached }) => !cached);
  return {
    reference: image.reference,
    manifestDigest: image.manifestDigest ?? null,
    configDigest: image.configDigest,
    seconds,
    bytesIndexed: fresh.reduce((sum, { size }) => sum + size, 0),
    bytesUncompressed: fresh.reduce((sum, { uncompressed }) => sum + uncompressed, 0),
    treeSize: statSync(treePath).size,
    layers: reports,
  };
}

function indexSize({ directory, mapPath }: PreparedLayer): number {
  const files = [...['tree.erofs', 'chunks', 'toc', 'ztoc'].map((name) => join(directory, name)), mapPath];
  return files.reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);
}

const RIGHT_ALIGNED = [0, 3, 4, 5, 6];

function reportLines(report: IndexReport): string[] {
  const rows = report.layers.map((layer, i) => [
    String(i + 1),
    shortDigest(layer.diffId),
    layer.compression,
    formatBytes(layer.size),
    formatBytes(layer.uncompressed),
    String(layer.restartPoints),
    formatBytes(layer.indexSize),
    layer.cached ? 'known' : 'indexed',
  ]);
  const heading = ['LAYER', 'DIFFID', 'COMPRESSION', 'SIZE', 'UNCOMPRESSED', 'POINTS', 'INDEX', 'STATE'];
  return [report.reference, ...table([heading, ...rows], RIGHT_ALIGNED), totalLine(report)];
}

function totalLine({ layers, treeSize, bytesIndexed, bytesUncompressed, seconds }: IndexReport): string {
  const size = layers.reduce((sum, layer) => sum + layer.indexSize, 0);
  const sizes = `indexes ${formatBytes(size)}, merged tree ${formatBytes(treeSize)}`;
  if (bytesIndexed === 0) return `everything was known; ${sizes}`;
  const rate = formatRate(bytesIndexed, seconds);
  const unpacked = formatRate(bytesUncompressed, seconds);
  const speed = rate === undefined || unpacked === undefined ? '' : ` (${rate} compressed, ${unpacked} uncompressed)`;
  return `${formatBytes(bytesIndexed)} in ${formatDuration(seconds)}${speed}; ${sizes}`;
}
