import type { Command } from 'commander';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { S_IFMT, S_IFREG } from '../../erofs/tree.js';
import type { ImageTree } from '../../image/tree.js';
import { describe, entryDocument, extents, type Entry, type FileExtent } from '../entries.js';
import { isoTime, modeString, octalMode } from '../format.js';
import { examples } from '../help.js';
import { parseImagePath, resolvePath, type ImagePath } from '../image-path.js';
import { withTree } from '../open-image.js';
import { addTreeOptions, type TreeOptions } from '../options.js';
import { keyValues, type Output } from '../output.js';
import { bytesField, formatBytes } from '../text.js';
import { isUtf8 } from 'node:buffer';

export interface StatOptions extends TreeOptions {
  readonly dereference?: boolean;
}

export function registerStat(program: Command, cli: Cli): void {
  const command = program
    .command('stat')
    .description('Show everything about one path of an image, and which layers its bytes lie in.')
    .argument('<image>', 'what to look into')
    .argument('<path>', 'a path inside the image')
    .option('-L, --dereference', 'follow a symlink at the end of the path');
  addTreeOptions(command)
    .addHelpText(
      'after',
      examples([
        ['lamina stat oci:app.oci:latest /usr/bin/sudo', 'mode, owner, times, xattrs, extents'],
        ['lamina stat --json app.oci /bin | jq -r .target', 'where a symlink leads'],
      ]),
    )
    .action((image: string, path: string, options: StatOptions) =>
      cli.run(command, (context) => stat(context, image, path, options)),
    );
}

async function stat(context: Context, image: string, path: string, options: StatOptions): Promise<void> {
  const { out } = context;
  await withTree(context, image, options, (tree) => {
    const details = inspectPath(tree, parseImagePath(path), options.dereference === true);
    return out.json ? out.document(detailsDocument(details)) : out.lines(detailsLines(out, details));
  });
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

function detailsDocument({ entry, xattrs, extents: parts }: PathDetails): unknown {
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
