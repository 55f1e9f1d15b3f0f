/** A small image that runs: this machine's /bin/sh and a few tools, with what they are linked with. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { makeLayout, type ImageSpec, type MadeImage } from '../support/images.js';

const tools = ['/bin/sh', '/bin/cat', '/bin/sleep'];

/** Paths of a shell, cat and sleep of this machine, or of other programs, and of what they are linked with. */
export function programsWithLibraries(programs: readonly string[] = tools): string[] {
  const libraries = programs.flatMap((path) => execFileSync('ldd', [path], { encoding: 'utf8' }).match(/\/\S+/g) ?? []);
  return [...new Set([...programs, ...libraries])];
}

/** Two layers: the tools, and a passwd file with the user app (1000:1001, in group log). */
export function makeShellImage(
  directory: string,
  config: ImageSpec['config'] = {},
  more: ImageSpec['layers'] = [],
): Promise<MadeImage> {
  const files = programsWithLibraries().map((path) => ({
    name: path.slice(1),
    mode: 0o755,
    content: readFileSync(path),
  }));
  const users = [
    { name: 'etc/', type: 'directory' as const },
    { name: 'etc/passwd', content: 'root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:\n' },
    { name: 'etc/group', content: 'log:x:4:app\n' },
    ...['proc', 'sys', 'dev', 'tmp'].map((name) => ({ name: `${name}/`, type: 'directory' as const })),
  ];
  return makeLayout(directory, { config, layers: [{ entries: files, level: 1 }, { entries: users }, ...more] });
}
