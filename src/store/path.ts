/** Where the store is, unless somebody says otherwise. */
import { join } from 'node:path';

/** `--store`, then LAMINA_STORE, then /var/lib/lamina as root or $XDG_DATA_HOME/lamina. */
export function defaultStorePath(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.() ?? 0): string {
  if (env['LAMINA_STORE'] !== undefined && env['LAMINA_STORE'] !== '') return env['LAMINA_STORE'];
  if (uid === 0) return '/var/lib/lamina';
  return join(env['XDG_DATA_HOME'] ?? join(env['HOME'] ?? '/', '.local/share'), 'lamina');
}
