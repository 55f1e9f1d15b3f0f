/** A command that is stopped while its image is indexed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { cliPath } from '../support/cli.js';
import { until } from '../support/daemon.js';
import { makeLayout } from '../support/images.js';
import { rawHeader } from '../support/tar.js';

const PART = gzipSync(Buffer.alloc(64 * 1024 * 1024));
const PARTS = 127;

export interface Indexing {
  /** Sends SIGINT; exit code and signal. */
  readonly interrupt: () => Promise<unknown[]>;
}

/**
 * Starts `lamina` with the arguments that `args` makes of a new image, and waits until that is being indexed; it has 8 GiB
 * in a small blob, which keeps any machine busy. What indexes is this command, or a daemon that runs already.
 */
export async function startIndexing(
  directory: string,
  env: Readonly<Record<string, string>>,
  args: (reference: string) => readonly string[],
): Promise<Indexing> {
  const header = gzipSync(rawHeader({ name: 'zeros', size: PARTS * 64 * 1024 * 1024 }));
  const blob = Buffer.concat([header, ...Array<Buffer>(PARTS).fill(PART)]);
  const { reference } = await makeLayout(join(directory, 'large'), { layers: [{ blob }] });
  const child = spawn(process.execPath, [cliPath, ...args(reference)], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()));
  const exit = once(child, 'exit');
  if (!(await until(() => stderr.includes('indexing'), 60_000))) throw new Error(`It does not index: ${stderr}`);
  return {
    interrupt() {
      child.kill('SIGINT');
      return exit;
    },
  };
}
