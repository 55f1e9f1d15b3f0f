import { InvalidArgumentError, type Command } from 'commander';
import { LaminaError } from '../../errors.js';
import {
  changedFields,
  compareImages,
  layerChanges,
  type Change,
  type ChangedField,
  type ImageChange,
} from '../../image/diff.js';
import type { PreparedImage } from '../../image/prepare.js';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { fileType } from '../format.js';
import { examples } from '../help.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import type { Output } from '../output.js';
import { bytesField, plural, shortDigest } from '../text.js';

export interface DiffOptions extends TreeOptions {
  readonly layer?: number;
  readonly ignore?: ReadonlySet<ChangedField>;
}

const LETTERS = { added: 'A', changed: 'C', deleted: 'D' } as const;

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('diff')
    .description('Show what each layer of an image adds (A), changes (C) and deletes (D), or how two images differ.')
    .argument('<image>', 'what to look into')
    .argument('[image2]', 'what it is compared with: A is only in this one, D only in the first')
    .option('--layer <n>', 'of one layer only, 1 is the base', parseLayer)
    .option('--ignore <fields>', `with two images, what makes no change: ${changedFields.join(',')}`, parseFields);
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina diff oci:app.oci:latest', 'layer by layer'],
        ['lamina diff app.oci --layer 2 --json', 'the second layer, for a program'],
        ['lamina diff app.oci:1.0 app.oci:1.1 --ignore mtime', 'two images; times do not count'],
      ]),
    )
    .action((image: string, other: string | undefined, options: DiffOptions) =>
      cli.run(command, (context) =>
        other === undefined ? diffLayers(context, image, options) : diffImages(context, image, other, options),
      ),
    );
}

function parseLayer(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('Layers are numbered from 1 on.');
  return Number(text);
}

function parseFields(text: string, before: ReadonlySet<ChangedField> = new Set()): ReadonlySet<ChangedField> {
  const fields = text.split(',').map((name) => changedFields.find((field) => field === name));
  if (fields.includes(undefined)) throw new InvalidArgumentError(`It takes names of ${changedFields.join(', ')}.`);
  return new Set([...before, ...fields.filter((field) => field !== undefined)]);
}

async function diffLayers(context: Context, image: string, options: DiffOptions): Promise<void> {
  const { out } = context;
  const { layer: wanted, compat = 'spec' } = options;
  if (options.ignore !== undefined) throw new LaminaError('USAGE', '--ignore compares two images, and one was named');
  await withTree(context, image, options, ({ prepared }) => {
    const count = prepared.layers.length;
    if (wanted !== undefined && wanted > count) {
      throw new LaminaError('USAGE', `There is no layer ${wanted}: the image has ${plural(count, 'layer')}`);
    }
    const layers = layerChanges(prepared, compat).filter(({ layer }) => wanted === undefined || layer === wanted);
    if (out.json) return out.array(layerDocuments(layers, prepared));
    return out.lines(layerLines(out, layers, prepared, wanted === undefined));
  });
}

type Layers = readonly { readonly layer: number; readonly changes: readonly Change[] }[];

function* layerDocuments(layers: Layers, prepared: PreparedImage): Generator<unknown> {
  for (const { layer, changes } of layers) {
    const { diffId } = prepared.layers[layer - 1] ?? {};
    for (const change of changes) yield { layer, diffId, ...changeDocument(change) };
  }
}

function* layerLines(out: Output, layers: Layers, prepared: PreparedImage, headings: boolean): Generator<string> {
  for (const { layer, changes } of layers) {
    const { diffId = '' } = prepared.layers[layer - 1] ?? {};
    if (headings) {
      if (layer > 1) yield '';
      yield out.paint('bold', `layer ${layer} ${shortDigest(diffId)}`);
    }
    for (const change of changes) yield changeLine(out, change);
  }
}

async function diffImages(context: Context, first: string, second: string, options: DiffOptions): Promise<void> {
  const { out } = context;
  if (options.layer !== undefined) throw new LaminaError('USAGE', '--layer is of one image, and two were named');
  await withTree(context, first, options, (from) =>
    withTree(context, second, options, (to) => {
      const changes = compareImages(from, to, options.ignore);
      return out.json ? out.array(imageDocuments(changes)) : out.lines(imageLines(out, changes));
    }),
  );
}

function* imageDocuments(changes: Iterable<ImageChange>): Generator<unknown> {
  for (const change of changes) yield { ...changeDocument(change), fields: change.fields };
}

function* imageLines(out: Output, changes: Iterable<ImageChange>): Generator<string> {
  for (const change of changes) {
    const { fields } = change;
    yield `${changeLine(out, change)}${fields.length === 0 ? '' : out.paint('dim', `  (${fields.join(', ')})`)}`;
  }
}

function changeDocument({ path, kind, mode }: Change): Record<string, unknown> {
  return { change: kind, ...bytesField('path', path), type: fileType(mode) };
}

function changeLine(out: Output, { path, kind }: Change): string {
  const color = kind === 'added' ? 'green' : kind === 'deleted' ? 'red' : 'yellow';
  return `${out.paint(color, LETTERS[kind])} ${out.name(path)}`;
}
