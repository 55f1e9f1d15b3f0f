/**
 * Serves one mount through fuse-native, in a process of its own: a crash in libfuse ends no other mount, and the end of
 * the daemon's server not this one. Argument: the mount's id. What to mount comes as the first message.
 */
import { toLaminaError, type SerializedError } from '../errors.js';
import { ErofsReader } from '../erofs/reader.js';
import { isListed } from '../mount/fuse-control.js';
import type { FuseMount } from '../mount/fuse-mount.js';
import { mountByFuseNative } from '../mount/fuse-native.js';
import type { IdMap } from '../mount/id-map.js';
import { ImageFs } from '../mount/image-fs.js';
import { LayerReaders, type LayerSource } from '../mount/layer-readers.js';
import { mapTree } from '../mount/map-tree.js';
import { mountAt } from '../mount/mountinfo.js';
import { pathOperations } from '../mount/path-operations.js';
import type { TypedCredentials } from '../source/fetch/fetcher.js';
import { withoutSeal } from '../store/sealed.js';
import { Repetitions, createLogger } from './log.js';
import { packageVersion } from './version.js';

export interface NativeMount {
  readonly mount: FuseMount;
  readonly treePath: string;
  readonly layers: readonly LayerSource[];
  readonly idMap: IdMap | undefined;
  /** Credentials for the layers' registries. */
  readonly typed: readonly TypedCredentials[];
}

/** The answer. */
export type NativeMounted = { readonly error?: SerializedError };

/** Bytes of verified chunks in memory. */
const MEMORY = 32 * 1024 * 1024;
/** A server that unmounts asks us to look at once (SIGTERM); others do not. */
const POLL_MS = 1000;

const [id = ''] = process.argv.slice(2);
const log = createLogger('fuse-native');
const repetitions = new Repetitions();

async function serve({ mount, treePath, layers, idMap, typed }: NativeMount): Promise<void> {
  const readers = new LayerReaders({
    memory: MEMORY,
    onHeal: ({ diffId }, offset, got) =>
      log.warn({ diffId, offset, got }, 'a cached chunk was wrong and has been replaced'),
  });
  for (const layer of layers) readers.set([layer]);
  // Reads wait here for a registry, one after the other: libfuse is served by this thread alone.
  if (layers.some(({ blob }) => blob.kind === 'registry')) {
    const { Fetcher } = await import('../source/fetch/fetcher.js');
    const fetcher = new Fetcher({ userAgent: `lamina/${packageVersion()}` });
    for (const credentials of typed) fetcher.restore(credentials);
    fetcher.serveThisThread();
  }
  const tree = mapTree(treePath);
  const fs = new ImageFs(
    new ErofsReader(withoutSeal(tree.bytes)),
    readers,
    layers.map(({ slot }) => slot),
    idMap,
  );
  const operations = pathOperations(fs, (path, e) => {
    const error = toLaminaError(e).toJSON();
    const suppressed = repetitions.report(`${path} ${error.code}`);
    if (suppressed !== undefined) log.error({ connection: id, path, error, suppressed }, 'an access has failed');
  });
  await mountByFuseNative(operations, mount);
  endWith(mount.target);
}

/** libfuse says nothing when it was unmounted. The kernel's list of connections does; where that is not mounted, our own. */
function endWith(target: string): void {
  const device = mountAt(target)?.device;
  const listed = device !== undefined && isListed(device);
  const look = (): void => {
    const alive = listed ? isListed(device) : mountAt(target)?.device === device;
    if (!alive) process.exit(0);
  };
  setInterval(look, POLL_MS);
  process.on('SIGTERM', look);
}

function answer(message: NativeMounted): void {
  process.send?.(message, undefined, undefined, () => undefined);
}

process.umask(0o077);
process.on('disconnect', () => undefined);
for (const signal of ['SIGINT', 'SIGHUP', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.once('message', (what: NativeMount) => {
  serve(what).then(
    () => answer({}),
    (e: unknown) => {
      answer({ error: toLaminaError(e).toJSON() });
      process.disconnect();
      process.exitCode = 1;
    },
  );
});
