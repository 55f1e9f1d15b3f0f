/** Images that are stored in rare ways, mounted: what a new server has to find again is in the daemon's records. */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import type { DaemonStatus } from '../../src/daemon/protocol.js';
import { startDaemon, until } from '../support/daemon.js';
import { addToIndex, blobPath, digest, writeBlob, writeJson } from '../support/images.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { makeTar } from '../support/tar.js';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

t.test('a layer inside its descriptor is served, by the next server too', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const daemon = await startDaemon(t);
  const layout = join(daemon.directory, 'layout');
  const tar = await makeTar(['a', 'b'].map((name) => ({ name, content: name.repeat(300_000) })));
  const blob = gzipSync(tar);
  const layer = { ...writeBlob(layout, LAYER, blob), data: blob.toString('base64') };
  rmSync(blobPath(layout, layer.digest));
  const rootfs = { type: 'layers', diff_ids: [digest(tar)] };
  const config = writeJson(layout, CONFIG, { os: 'linux', architecture: 'amd64', rootfs });
  addToIndex(layout, writeJson(layout, MANIFEST, { schemaVersion: 2, config, layers: [layer] }));

  const mountpoint = join(daemon.directory, 'mnt');
  mkdirSync(mountpoint);
  const mounted = await daemon.lamina(['mount', '--engine', 'fuse', `oci:${layout}`, mountpoint]);
  t.equal(mounted.code, 0, mounted.stderr);
  t.equal(readFileSync(join(mountpoint, 'a'), 'utf8'), 'a'.repeat(300_000));

  const status = async (): Promise<DaemonStatus | undefined> => {
    const answer = await daemon.control('GET', '/v1/status').catch(() => undefined);
    return answer?.status === 200 ? (answer.body as DaemonStatus) : undefined;
  };
  const before = (await status())?.serverPid ?? -1;
  process.kill(before, 'SIGKILL');
  t.ok(await until(async () => ![before, undefined].includes((await status())?.serverPid), 20_000), 'another server');
  t.equal(await readFile(join(mountpoint, 'b'), 'utf8'), 'b'.repeat(300_000));
  t.equal((await daemon.lamina(['umount', mountpoint])).code, 0);
});
