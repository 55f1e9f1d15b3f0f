/**
 * A container image that runs, made of what is on this machine, without a network: Node itself with its shared libraries,
 * and a small program. Three layers, so that there is a union to look at: the second changes a file, the third deletes
 * one and empties a directory.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { makeLayout, type MadeImage } from '../test/support/images.js';
import type { Entry } from '../test/support/tar.js';

/** What a look at the mounted image must find. */
export const expected = {
  greeting: 'Hello from the second layer.\n',
  deleted: '/app/secret.txt',
  cache: ['fresh.txt'],
  answer: 'The demo container says: Hello from the second layer.',
} as const;

const PROGRAM = `
const { readFileSync, readdirSync, existsSync } = require('node:fs');
const greeting = readFileSync('/app/greeting.txt', 'utf8').trim();
console.log('The demo container says: ' + greeting);
console.log('node ' + process.version + ', uid ' + process.getuid() + ', cache: ' + readdirSync('/app/cache').join(' '));
if (existsSync('/app/secret.txt')) throw new Error('a deleted file is there');
`;

/** Throws where the running node and its libraries cannot be found. */
export async function makeDemoImage(directory: string): Promise<MadeImage> {
  const node = realpathSync(process.execPath);
  const libraries = sharedLibraries(node);
  const files: Entry[] = [
    { name: node, mode: 0o755, content: readFileSync(node) },
    ...libraries.map((path) => ({ name: path, mode: 0o755, content: readFileSync(path) })),
    { name: '/etc/passwd', content: 'root:x:0:0:root:/:/sbin/nologin\ndemo:x:1000:1000:Demo:/app:/sbin/nologin\n' },
    { name: '/etc/group', content: 'root:x:0:\ndemo:x:1000:\n' },
    { name: '/app/main.cjs', content: PROGRAM },
    { name: '/app/greeting.txt', content: 'Hello from the first layer.\n' },
    { name: '/app/secret.txt', content: 'deleted by the third layer\n' },
    { name: '/app/cache/stale-1.txt', content: 'hidden by the third layer\n' },
    { name: '/app/cache/stale-2.txt', content: 'hidden by the third layer\n' },
  ];
  return makeLayout(directory, {
    tag: 'demo',
    config: {
      Entrypoint: [node],
      Cmd: ['/app/main.cjs'],
      Env: [
        'PATH=/usr/local/bin:/usr/bin:/bin',
        `LD_LIBRARY_PATH=${[...new Set(libraries.map((path) => dirname(path)))].join(':')}`,
      ],
      WorkingDir: '/app',
      User: 'demo',
      Labels: { 'org.opencontainers.image.title': 'Lamina demo' },
    },
    layers: [
      { level: 1, entries: inLayer([...directories(files, ['/dev', '/proc', '/sys', '/tmp']), ...files]) },
      { entries: inLayer([{ name: '/app/greeting.txt', content: expected.greeting }]) },
      {
        entries: inLayer([
          { name: '/app/.wh.secret.txt' },
          { name: '/app/cache/.wh..wh..opq' },
          { name: '/app/cache/fresh.txt', content: 'the only file left here\n' },
        ]),
      },
    ],
  });
}

/** Every directory that the files need, parents first. */
function directories(files: readonly Entry[], more: readonly string[]): Entry[] {
  const names = new Set<string>();
  const add = (path: string): void => {
    if (path === '/' || names.has(path)) return;
    add(dirname(path));
    names.add(path);
  };
  for (const { name } of files) add(dirname(name));
  for (const name of more) add(name);
  return [...names].map((name) => ({ name, type: 'directory', mode: name === '/tmp' ? 0o1777 : 0o755 }));
}

/** Names as layers have them: relative, directories with a slash at the end. */
function inLayer(entries: readonly Entry[]): Entry[] {
  const mtime = new Date('2024-01-01T00:00:00Z');
  return entries.map((entry) => ({
    mtime,
    ...entry,
    name: `${entry.name.replace(/^\//, '')}${entry.type === 'directory' ? '/' : ''}`,
  }));
}

/** The libraries that the program is linked with, and the dynamic loader, under the paths by which it asks for them. */
function sharedLibraries(program: string): string[] {
  let listing: string;
  try {
    listing = execFileSync('ldd', [program], { encoding: 'utf8' });
  } catch {
    listing = readFileSync('/proc/self/maps', 'utf8').replace(/^.* (?=\/)/gm, '=> ');
  }
  const paths = [...listing.matchAll(/(?:=> |^\s*)(\/\S+\.so\S*)/gm)].map(([, path = '']) => path);
  return [...new Set(paths)].filter((path) => existsSync(path));
}
