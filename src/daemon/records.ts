/**
 * What the daemon must know again after a crash: RUN/mounts/ID.json, one per mount, and RUN/blobs.json, the layers that
 * blobfs serves. Written before the kernel is told, replaced atomically; they describe this boot only.
 */
import { readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { parseDigest } from '../digest/index.js';
import { errnoOf } from '../errors.js';
import { mountFlags } from '../mount/flags.js';
import type { RunDir } from './run-dir.js';
import { idMapSchema, registryAccess } from './schemas.js';

const digest = z.string().transform((text) => parseDigest(text));

const place = { path: z.string(), offset: z.int().min(0), size: z.int().min(0) };

const layerSource = z.object({
  slot: z.int().min(2),
  diffId: digest,
  directory: z.string(),
  mapPath: z.string(),
  blob: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('file'), ...place }),
    z.object({ kind: z.literal('embedded'), ...place, data: z.string() }),
    z.object({ kind: z.literal('registry'), ...place, digest, access: registryAccess }),
  ]),
  addressSpace: z.int().min(0),
  verify: z.enum(['every-read', 'first-read']),
});

const negotiated = z.object({
  minor: z.int(),
  flags: z.int(),
  flags2: z.int(),
  noOpen: z.boolean(),
  noOpendir: z.boolean(),
});

const mountRecord = z.object({
  id: z.string(),
  mountpoint: z.string(),
  engine: z.enum(['kernel', 'fuse']),
  /** Of the fuse engine: our own, or fuse-native. */
  transport: z.enum(['dev-fuse', 'fuse-native']),
  /** The process that serves a mount of fuse-native, once it is started. */
  nativePid: z.int().nullable(),
  /** Why this engine. */
  reason: z.string(),
  reference: z.string(),
  manifestDigest: z.string().nullable(),
  configDigest: z.string(),
  platform: z.string(),
  treePath: z.string(),
  layers: z.array(layerSource),
  /** Mounted over the image, which is then at `RunDir.lower(id)`. */
  overlay: z
    .object({
      upper: z.string(),
      /** On the file system of `upper`; goes with the mount. */
      work: z.string(),
      /** Of the daemon's own, with `upper` and `work` in it; null where the upper directory is the user's. */
      ownedDirectory: z.string().nullable(),
    })
    .nullable(),
  /** The directory of the image that is shown, from its root on and without symlinks; the image is at `RunDir.lower(id)` then. */
  subdir: z.string().nullable(),
  flags: z.array(z.enum(mountFlags)),
  /** The ids that are shown instead of the image's. */
  idMap: idMapSchema.nullable(),
  /** "major:minor" of the mounts, once they are made: tells ours from another's on the same place. */
  imageDevice: z.string().nullable(),
  overlayDevice: z.string().nullable(),
  /** The mountpoint was made by us and goes with the mount. */
  ownsMountpoint: z.boolean(),
  /** Milliseconds since 1970. */
  created: z.number(),
  /** The fuse engine's connection, once INIT was answered. */
  negotiated: negotiated.nullable(),
  /** Unmounted here, but alive in another mount namespace: still served, no longer listed. */
  detached: z.boolean(),
});

export type MountRecord = z.infer<typeof mountRecord>;

const blobTable = z.object({
  nextSlot: z.int().min(2),
  layers: z.array(layerSource),
  /** blobfs; more than one when an earlier one is alive in another mount namespace. */
  connections: z.array(z.object({ key: z.string(), negotiated: negotiated.nullable() })),
});

export type BlobTable = z.infer<typeof blobTable>;

export class Records {
  readonly #run: RunDir;

  constructor(run: RunDir) {
    this.#run = run;
  }

  put(record: MountRecord): void {
    writeAtomically(this.#run.record(record.id), record);
  }

  remove(id: string): void {
    rmSync(this.#run.record(id), { force: true });
  }

  /** Every record that can be read; of the others, the file names. */
  all(): { records: MountRecord[]; unreadable: string[] } {
    const records: MountRecord[] = [];
    const unreadable: string[] = [];
    for (const file of readdirSync(this.#run.records)) {
      if (!file.endsWith('.json')) continue;
      const parsed = parseFile(`${this.#run.records}/${file}`, mountRecord);
      if (parsed === undefined) unreadable.push(file);
      else records.push(parsed);
    }
    return { records: records.sort((a, b) => a.created - b.created), unreadable };
  }

  putBlobs(table: BlobTable): void {
    writeAtomically(this.#run.blobTable, table);
  }

  blobs(): BlobTable | undefined {
    return parseFile(this.#run.blobTable, blobTable);
  }

  removeBlobs(): void {
    rmSync(this.#run.blobTable, { force: true });
  }
}

/** A crash must not leave half a record; losing power ends the mounts too, so nothing is synced. */
function writeAtomically(path: string, value: unknown): void {
  const temporary = `${path}.new`;
  writeFileSync(temporary, JSON.stringify(value), { mode: 0o600 });
  renameSync(temporary, path);
}

function parseFile<T>(path: string, schema: z.ZodType<T>): T | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (e) {
    if (errnoOf(e) === 'ENOENT') return undefined;
    throw e;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
