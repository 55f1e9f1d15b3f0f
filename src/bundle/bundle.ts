/**
 * The bundle directory that a runtime takes (runtime-spec bundle.md): made before the image is mounted in it, taken away
 * after it was unmounted. Mounting is the daemon's.
 *
 *     DIR/ (0700)    a setuid program of the image must be nobody's who cannot enter here
 *       .lamina.json what says that Lamina made the bundle, and may remove it; written first, removed last
 *       config.json  (0600: Env may hold secrets)
 *       rootfs/      where the image is mounted
 */
import {
  chmodSync,
  closeSync,
  constants,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  rmSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { LaminaError, errnoOf, toLaminaError } from '../errors.js';
import { rootfsName, type RuntimeSpec } from './defaults.js';

export interface Bundle {
  /** Absolute, as the two below. */
  readonly directory: string;
  readonly configPath: string;
  readonly rootfs: string;
}

const markName = '.lamina.json';
const mark = { kind: 'bundle', version: 1 };
/** Bytes. */
const markLimit = 4096;

function layout(directory: string): Bundle {
  const path = resolve(directory);
  return { directory: path, configPath: join(path, 'config.json'), rootfs: join(path, rootfsName) };
}

/**
 * Makes the directory, where it is missing with those above it, and what belongs in it but for the config. Either all of it is
 * there afterwards, or nothing that was not there before. `lasting`: it shall be ours, and removed as such, after a power failure.
 *
 * Throws BUNDLE_EXISTS where there is a bundle already; BUNDLE_INVALID where the directory cannot become one: it is
 * another user's, or open to others with files in it, or its rootfs is no empty directory.
 */
export function createBundle({ directory, lasting }: { directory: string; lasting: boolean }): Bundle {
  const bundle = layout(directory);
  const undo: (() => void)[] = [];
  try {
    claimDirectory(bundle, undo);
    writeNew(join(bundle.directory, markName), mark, lasting);
    undo.push(() => unlinkSync(join(bundle.directory, markName)));
    if (!isEmptyDirectory(bundle.rootfs)) mkdirSync(bundle.rootfs, { mode: 0o755 });
    return bundle;
  } catch (e) {
    for (const step of undo.reverse()) ignoreErrors(step);
    if (errnoOf(e) === 'EEXIST') throw exists(bundle.directory, e);
    throw toLaminaError(e, `Cannot make the bundle ${bundle.directory}`);
  }
}

/** Completes a bundle. Throws BUNDLE_EXISTS where somebody else has done so. */
export function writeConfig({ directory, configPath }: Bundle, config: RuntimeSpec): void {
  try {
    writeNew(configPath, config, false);
  } catch (e) {
    if (errnoOf(e) === 'EEXIST') throw exists(directory, e);
    throw toLaminaError(e, `Cannot make the bundle ${directory}`);
  }
}

/**
 * Removes what {@link createBundle} made, and the directory where nothing else is in it.
 *
 * Throws BUNDLE_INVALID where Lamina made no bundle, or files are in its rootfs; MOUNT_BUSY while something is mounted
 * there. Then nothing was removed.
 */
export function removeBundle(directory: string): void {
  const bundle = layout(directory);
  if (!isOurs(bundle.directory)) {
    throw new LaminaError('BUNDLE_INVALID', `Cannot remove ${bundle.directory}: it is no bundle that Lamina made`, {
      details: { path: bundle.directory },
    });
  }
  removeRootfs(bundle.rootfs);
  try {
    rmSync(bundle.configPath, { force: true });
    rmSync(join(bundle.directory, markName), { force: true });
  } catch (e) {
    throw toLaminaError(e, `Cannot remove the bundle ${bundle.directory}`);
  }
  // It stays where it holds something else, is mounted on, or is in a directory that is not ours to change.
  ignoreErrors(() => rmdirSync(bundle.directory));
}

/** Makes the directory, or makes it private. */
function claimDirectory({ directory, configPath }: Bundle, undo: (() => void)[]): void {
  if (makeDirectory(directory, 0o700, undo)) return;
  const stat = statSync(directory);
  if (!stat.isDirectory()) throw unfit(directory, 'it is not a directory');
  const inside = readdirSync(directory);
  if (inside.includes(markName) || lstatSync(configPath, { throwIfNoEntry: false }) !== undefined)
    throw exists(directory);
  if (stat.uid !== process.geteuid?.()) {
    throw unfit(directory, `the directory belongs to user ${stat.uid}, who could change what is run`);
  }
  if ((stat.mode & 0o077) === 0) return;
  if (inside.some((name) => name !== rootfsName)) {
    throw unfit(directory, 'other users may enter the directory, and it is not empty', 'Name a new directory.');
  }
  chmodSync(directory, 0o700);
  undo.push(() => chmodSync(directory, stat.mode & 0o7777));
}

/** With those above it that are missing; false where there is something already. */
function makeDirectory(path: string, mode: number, undo: (() => void)[]): boolean {
  try {
    mkdirSync(path, { mode });
  } catch (e) {
    if (errnoOf(e) === 'EEXIST') return false;
    if (errnoOf(e) !== 'ENOENT' || !makeDirectory(dirname(path), 0o777, undo)) throw e;
    mkdirSync(path, { mode });
  }
  undo.push(() => rmdirSync(path));
  return true;
}

/** False where there is nothing; throws BUNDLE_INVALID where there is anything but an empty directory. */
function isEmptyDirectory(path: string): boolean {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return false;
  if (!stat.isDirectory() || readdirSync(path).length > 0) throw unfit(dirname(path), `${path} is no empty directory`);
  return true;
}

/** A whole file under a new name, or none: written aside, then linked, which never replaces (EEXIST). */
function writeNew(path: string, value: unknown, synced: boolean): void {
  const aside = `${path}.${process.pid}.new`;
  const fd = openSync(aside, 'wx', 0o600);
  try {
    try {
      writeAll(fd, Buffer.from(`${JSON.stringify(value, null, 2)}\n`));
      if (synced) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    linkSync(aside, path);
  } finally {
    unlinkSync(aside);
  }
}

function writeAll(fd: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
}

function isOurs(directory: string): boolean {
  try {
    const fd = openSync(join(directory, markName), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const buffer = Buffer.alloc(markLimit);
      const found = JSON.parse(buffer.toString('utf8', 0, readSync(fd, buffer))) as Partial<typeof mark> | null;
      return found?.kind === mark.kind && found.version === mark.version;
    } finally {
      closeSync(fd);
    }
  } catch {
    return false;
  }
}

/** rmdir(2) alone tells: of a mountpoint it says EBUSY before it asks the file system, whose server may be dead. */
function removeRootfs(path: string): void {
  try {
    rmdirSync(path);
  } catch (e) {
    const details = { path };
    switch (errnoOf(e)) {
      case 'ENOENT':
        return;
      case 'EBUSY':
        throw new LaminaError('MOUNT_BUSY', `Cannot remove the bundle: ${path} is mounted`, {
          hint: `Unmount it first: lamina umount ${path}`,
          details,
          cause: e,
        });
      case 'ENOTEMPTY':
      case 'ENOTDIR':
        throw new LaminaError('BUNDLE_INVALID', `Cannot remove the bundle: ${path} is no empty directory`, {
          details,
          cause: e,
        });
      default:
        throw toLaminaError(e, 'Cannot remove the bundle');
    }
  }
}

function exists(directory: string, cause?: unknown): LaminaError {
  return new LaminaError('BUNDLE_EXISTS', `Cannot make a bundle: there is one in ${directory}`, {
    hint: `Name another directory, or remove the bundle first: lamina bundle --remove ${directory}`,
    details: { path: directory },
    cause,
  });
}

function unfit(directory: string, why: string, hint?: string): LaminaError {
  return new LaminaError('BUNDLE_INVALID', `Cannot make a bundle in ${directory}: ${why}`, {
    hint,
    details: { path: directory },
  });
}

/** For steps that clean up: the failure that led to them is the one to tell. */
function ignoreErrors(step: () => void): void {
  try {
    step();
  } catch {
    return;
  }
}
