/** The rules on who may import what, and who may print or exit, held against the sources themselves. */
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import t from 'tap';
import { projectRoot } from '../support/project.js';

/** Arrows point down only: a folder may import itself and what stands after it. */
const order = [
  'cli',
  'daemon',
  'mount',
  'image',
  'bundle',
  'fuse',
  'union',
  'layer',
  'source',
  'erofs',
  'tar',
  'compress',
  'oci',
  'store',
  'native',
  'digest',
  'errors',
  'version',
];

/** What may print and end the process: the command line, and what the daemon's processes start with. */
const speakers = [/^cli\//, /^daemon\/(?:supervisor|server|native-server)\.ts$/];

const src = join(projectRoot, 'src');

interface Source {
  /** Relative to src. */
  readonly file: string;
  readonly code: string;
  readonly imports: readonly string[];
}

const sources: Source[] = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => {
    const code = withoutComments(readFileSync(join(src, file), 'utf8'));
    const specifiers = code.matchAll(/\b(?:from |import |import\()'([^'\n]+)'/g);
    return { file, code, imports: [...specifiers].map(([, specifier = '']) => specifier) };
  });

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
}

/** The folder of a file relative to src, or the name of a file of src itself. */
function folderOf(file: string): string {
  return (file.split('/')[0] ?? '').replace(/\.[jt]s$/, '');
}

t.test('every folder of src has its place in the order', async (t) => {
  for (const folder of new Set(sources.map(({ file }) => folderOf(file)))) t.ok(order.includes(folder), folder);
});

t.test('imports point down', async (t) => {
  const upward: string[] = [];
  for (const { file, imports } of sources) {
    for (const specifier of imports.filter((s) => s.startsWith('.'))) {
      const target = relative(src, join(src, dirname(file), specifier));
      if (order.indexOf(folderOf(target)) < order.indexOf(folderOf(file))) upward.push(`${file} imports ${target}`);
      if (target.startsWith('..')) upward.push(`${file} imports ${target}, which is not shipped`);
    }
  }
  t.strictSame(upward, []);
});

t.test('only src/native imports koffi; only src/digest hashes', async (t) => {
  const users = (pattern: RegExp): string[] =>
    sources.filter(({ imports }) => imports.some((s) => pattern.test(s))).map(({ file }) => file);
  t.strictSame(outside(users(/^koffi$/), /^native\//), []);
  t.strictSame(outside(users(/^@noble\/hashes/), /^digest\//), []);
  const hashing = sources.filter(
    ({ code, imports }) =>
      imports.some((s) => /^(?:node:)?crypto$/.test(s)) && /\b(?:createHash|createHmac|hash|subtle)\b/.test(code),
  );
  t.strictSame(
    outside(
      hashing.map(({ file }) => file),
      /^digest\//,
    ),
    [],
  );
});

t.test('only the command line and the entry files of the daemon print or exit', async (t) => {
  const speaks = /\bconsole\.|\bprocess\.(?:exit\b|exitCode|abort|std(?:out|err)\b)/;
  const silent = sources.filter(({ file }) => !speakers.some((speaker) => speaker.test(file)));
  t.strictSame(
    silent.filter(({ code }) => speaks.test(code)).map(({ file }) => file),
    [],
  );
});

function outside(files: readonly string[], allowed: RegExp): string[] {
  return files.filter((file) => !allowed.test(file));
}
