/**
 * What the compiler leaves undone: the command must be executable, and output whose source is gone must go, or a
 * removed test would run for ever.
 */
import { chmodSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const dist = fileURLToPath(new URL('..', import.meta.url));
const root = join(dist, '..');

for (const area of ['src', 'test', 'scripts']) {
  const built = join(dist, area);
  if (!existsSync(built)) continue;
  for (const file of readdirSync(built, { recursive: true, encoding: 'utf8' })) {
    const source = /^(.*)\.js(?:\.map)?$/.exec(file)?.[1];
    if (source !== undefined && !existsSync(join(root, area, `${source}.ts`))) rmSync(join(built, file));
  }
}

const command = join(dist, 'src/cli/main.js');
if (existsSync(command)) chmodSync(command, 0o755);
