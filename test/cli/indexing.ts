/** A command that is stopped while its image is indexed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { cliPath } from '../support/cli.js';
import { until } from '../support/daemon.js';
import { makeLayout } from '../support/images.js';

export interface Indexing {
  /** Sends SIGINT; exit code and signal. */
  readonly interrupt: () => Promise<unknown[]>;
}

/** Starts `lamina` with the arguments that `args` makes of a new, large image, and waits until that is indexed. A daemon is running. */
export async function startIndexing(
  directory: string,
  env: Readonly<Record<string, string>>,
  args: (reference: string) => readonly string[],
): Promise<Indexing> {
  const entries = Array.from({ length: 60 }, (_, i) => ({ name: `f${i}`, content: Buffer.alloc(1 << 20, i) }));
  const { reference } = await makeLayout(join(directory, 'large'), { layers: [{ entries, compression: 'none' }] });
  const child = spawn(process.execPath, [cliPath, ...args(reference)], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()));
  const exit = once(child, 'exit');
  await until(() => stderr.includes('indexing'), 20_000);
  return {
    interrupt() {
      child.kill('SIGINT');
      return exit;
    },
  };
}
