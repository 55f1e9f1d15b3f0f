/** The essential path on the other versions of Node: native calls, restart points, both engines. `npm run test:nodes` runs all. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { nodeBinary, nodeIsInstalled, otherNodes } from '../../scripts/test-nodes.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { runCommand } from '../support/cli.js';
import { makeLayout } from '../support/images.js';
import { projectRoot } from '../support/project.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

const cli = join(projectRoot, 'dist/src/cli/main.js');
const engines = kernelEngineObstacle() === undefined ? ['kernel', 'fuse'] : ['fuse'];

for (const major of otherNodes) {
  t.test(`Node ${major}`, async (t) => {
    const installed = process.env['LAMINA_CI'] === '1' || nodeIsInstalled(major);
    if (skipUnless(t, installed, `Node ${major} is not in .cache (npm run test:nodes gets it)`)) return;
    if (skipUnless(t, isRoot && existsSync('/dev/fuse'), 'mounting needs root and /dev/fuse')) return;
    const node = nodeBinary(major);
    t.match((await runCommand(node, ['--version'])).stdout, new RegExp(`^v${major}\\.`));
    for (const file of ['compress/gzip', 'compress/zstd']) {
      const { code, stdout } = await runCommand(node, [join(projectRoot, `dist/test/${file}.test.js`)]);
      t.equal(code, 0, `${file}: ${stdout.slice(-500)}`);
    }
    const directory = tempDir(t);
    const content = Buffer.alloc(3_000_000, 'content ');
    const { reference } = await makeLayout(join(directory, 'image'), {
      layers: (['gzip', 'zstd', 'none'] as const).map((compression) => ({
        entries: [{ name: compression, content }],
        compression,
      })),
    });
    const env = { LAMINA_RUN: join(directory, 'run'), LAMINA_STORE: join(directory, 'store') };
    const lamina = async (...args: string[]): Promise<void> => {
      const { code, stderr } = await runCommand(node, [cli, ...args], { env });
      t.equal(code, 0, `lamina ${args.join(' ')}: ${stderr}`);
    };
    try {
      for (const engine of engines) {
        const mountpoint = join(directory, engine);
        mkdirSync(mountpoint);
        await lamina('mount', '--engine', engine, reference, mountpoint);
        for (const name of ['gzip', 'zstd', 'none'])
          t.ok(readFileSync(join(mountpoint, name)).equals(content), `${engine}: ${name}`);
        await lamina('umount', mountpoint);
      }
    } finally {
      await lamina('daemon', 'stop', '--force');
    }
  });
}
