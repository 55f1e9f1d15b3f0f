import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Lamina's version: that of the package.json above this file, wherever the build has put it. */
export function packageVersion(): string {
  for (let dir = new URL('.', import.meta.url); ; dir = new URL('..', dir)) {
    const file = fileURLToPath(new URL('package.json', dir));
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
    if (dir.pathname === '/') return 'unknown';
  }
}
