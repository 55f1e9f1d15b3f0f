import type { Command } from 'commander';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { S_IFBLK, S_IFCHR, S_IFMT, S_IFREG } from '../../erofs/tree.js';
import { LaminaError } from '../../errors.js';
import { provenance, type Provenance } from '../../image/provenance.js';
import { realPath } from '../../image/real-path.js';
import type { EntryFacts } from '../../image/replay.js';
import type { ImageTree } from '../../image/tree.js';
import { describe, entryDocument, extents, type Entry, type FileExtent } from '../entries.js';
import { deviceNumber, fileType, isoTime, modeString, octalMode } from '../format.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath, type ImagePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import { keyValues, type Output } from '../output.js';
import { bytesField, formatBytes, toText } from '../text.js';
import type { Compat } from '../../union/merge.js';
import { isUtf8 } from 'node:buffer';

export interface StatOptions extends TreeOptions {
  readonly dereference?: boolean;
}

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('stat')
    .description('Show everything about one path of an image: attributes, the layer it comes from, and what it hides.')
    .argument('<image>', 'what to look into')
    .argument('<path>', 'a path inside the image')
    .option('-L, --dereference', 'follow a symlink at the end of the path');
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina stat oci:app.oci:latest /usr/bin/sudo', 'mode, owner, times, xattrs, extents'],
        ['lamina stat --json app.oci /bin | jq -r .target', 'where a symlink leads'],
        ['lamina stat app.oci /etc/motd', 'a deleted path, too: which layer had it, which took it away'],
      ]),
    )
    .action((image: string, path: string, options: StatOptions) =>
      cli.run(command, (context) => stat(context, image, path, options)),
    );
}

async function stat(context: Context, image: string, path: string, options: StatOptions): Promise<void> {
  const { out } = context;
  const { compat = 'spec' } = options;
  await withTree(context, image, options, (tree) => {
    const imagePath = parseImagePath(path);
    const followLast = options.dereference === true || imagePath.directory;
    try {
      const details = inspectPath(tree, imagePath, followLast);
      const origin = provenance(tree.prepared, compat, realPath(tree, imagePath.path, { followLast }));
      if (out.json) return out.document({ ...detailsDocument(details), ...provenanceDocument(tree, origin) });
      return out.lines([...detailsLines(out, details), ...provenanceLines(out, tree, origin)]);
    } catch (e) {
      throw withHistory(e, tree, provenanceOfMissing(e, tree, compat, imagePath));
    }
  });
}

function provenanceOfMissing(e: unknown, tree: ImageTree, compat: Compat, { path }: ImagePath): Provenance | undefined {
  const isMissing = e instanceof LaminaError && e.code === 'PATH_NOT_FOUND';
  return isMissing ? provenance(tree.prepared, compat, path) : undefined;
}

/** The error for a path that lower layers have had, with a hint that says so. */
function withHistory(e: unknown, tree: ImageTree, origin: Provenance | undefined): unknown {
  const last = origin?.hidden.at(-1);
  if (!(e instanceof LaminaError) || last === undefined) return e;
  const { layer, by, entry } = last;
  const hint = `Layer ${layer} had it (${entryText(entry)}); layer ${by} of ${tree.prepared.layers.length} took it away.`;
  return new LaminaError(e.code, e.message, { hint, details: { ...e.details, layer, removedBy: by }, cause: e });
}

function provenanceDocument(tree: ImageTree, { layer, history, hidden }: Provenance): Record<string, unknown> {
  return {
    origin: layer === undefined ? null : { layer, diffId: tree.prepared.layers[layer - 1]?.diffId },
    history: history.map((step) => ({
      layer: step.layer,
      change: step.change,
      entry: step.entry === undefined ? null : factsDocument(step.entry),
    })),
    hides: hidden.map(({ layer: from, by, entry }) => ({ layer: from, hiddenBy: by, entry: factsDocument(entry) })),
  };
}

function factsDocument({ mode, uid, gid, size, rdev, mtime, mtimeNsec, target }: EntryFacts): Record<string, unknown> {
  return {
    type: fileType(mode),
    mode: octalMode(mode),
    uid,
    gid,
    size,
    device: isDevice(mode) ? deviceNumber(rdev) : null,
    mtime: isoTime(mtime, mtimeNsec),
    ...(target === undefined ? { target: null } : bytesField('target', target)),
  };
}

function isDevice(mode: number): boolean {
  return (mode & S_IFMT) === S_IFCHR || (mode & S_IFMT) === S_IFBLK;
}

const WORDS = {
  added: 'added',
  implied: 'implied',
  replaced: 'replaced',
  attributes: 'new attributes',
  removed: 'removed',
} as const;

function provenanceLines(out: Output, tree: ImageTree, { layer, history, hidden }: Provenance): string[] {
  const { layers } = tree.prepared;
  const from =
    layer === undefined ? 'no entry of any layer' : `layer ${layer} of ${layers.length}, ${layers[layer - 1]?.diffId}`;
  const lines = [`from: ${from}`];
  if (history.length > 1) {
    for (const step of history) {
      lines.push(
        `layer ${step.layer}: ${WORDS[step.change]}${step.entry === undefined ? '' : ` (${out.text(entryText(step.entry))})`}`,
      );
    }
  }
  for (const { layer: below, by, entry } of hidden)
    lines.push(`hides: ${out.text(entryText(entry))} of layer ${below}, since layer ${by}`);
  return lines;
}

/** "file 0644 0:0, 12 bytes". */
function entryText({ mode, uid, gid, size, target }: EntryFacts): string {
  const what = `${fileType(mode).replace('-', ' ')} ${octalMode(mode)} ${uid}:${gid}`;
  if (target !== undefined) return `${what} -> ${toText(target)}`;
  return (mode & S_IFMT) === S_IFREG ? `${what}, ${size} bytes` : what;
}

export interface PathDetails {
  readonly entry: Entry;
  readonly xattrs: readonly (readonly [name: string, value: Buffer])[];
  readonly extents: readonly FileExtent[];
}

export function inspectPath(tree: ImageTree, path: ImagePath, follow: boolean): PathDetails {
  const nid = resolvePath(tree, path, follow);
  const entry = describe(tree, nid, path.path);
  const { reader } = tree;
  return {
    entry,
    xattrs: reader.xattrNames(nid).map((name) => [name, Buffer.from(reader.xattr(nid, name) ?? [])] as const),
    extents: (entry.mode & S_IFMT) === S_IFREG ? [...extents(tree, nid)] : [],
  };
}

function detailsDocument({ entry, xattrs, extents: parts }: PathDetails): Record<string, unknown> {
  return {
    ...entryDocument(entry),
    nid: entry.nid,
    xattrs: xattrs.map(([name, value]) => ({ ...bytesField('name', name), value: value.toString('base64') })),
    extents: parts,
  };
}

function detailsLines(out: Output, { entry, xattrs, extents: parts }: PathDetails): string[] {
  const { device, target } = entry;
  const facts = keyValues([
    ['path', out.name(entry.path)],
    ['type', entry.type.replace('-', ' ')],
    ['target', target === undefined ? undefined : out.name(target)],
    ['device', device === undefined ? undefined : `${device.major},${device.minor}`],
    ['size', entry.size < 1000 ? `${entry.size}` : `${entry.size} (${formatBytes(entry.size)})`],
    ['mode', `${octalMode(entry.mode)} (${modeString(entry.mode)})`],
    ['owner', `${entry.uid}:${entry.gid}`],
    ['links', String(entry.nlink)],
    ['modified', isoTime(entry.mtime, entry.mtimeNsec)],
    ['node', String(entry.nid)],
  ]);
  for (const [name, value] of xattrs) facts.push(`xattr ${out.name(name)} = ${valueText(out, value)}`);
  for (const { offset, length, layer, position } of parts) {
    facts.push(`bytes ${offset}-${offset + length - 1}: layer ${layer}, tar offset ${position}`);
  }
  return facts;
}

/** Text in quotes, or hex, as getfattr(1). */
function valueText(out: Output, value: Buffer): string {
  const printable = isUtf8(value) && !/\p{Cc}/u.test(value.toString('utf8'));
  return printable ? JSON.stringify(out.name(value.toString('latin1'))) : `0x${value.toString('hex')}`;
}
