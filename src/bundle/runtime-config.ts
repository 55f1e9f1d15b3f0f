/**
 * From an image's config to a runtime's config.json: the conversion of image-spec conversion.md.
 *
 *     WorkingDir              process.cwd          verbatim; "" is "/"
 *     Env                     process.env          verbatim, of two with one name the last; then what it lacks of PATH,
 *                                                  HOME (by passwd) and, with a terminal, TERM
 *     Entrypoint, Cmd         process.args         one after the other; both empty: NO_COMMAND
 *     User                    process.user         by the image's passwd and group (user.ts)
 *     Volumes                 mounts               an empty tmpfs each (mounts.ts)
 *     os, author, ...         annotations          org.opencontainers.image.*; never an empty one
 *     ExposedPorts            annotations          ...exposedPorts, sorted, comma-separated
 *     Labels                  annotations          verbatim; they win over those above
 *
 * Of an appc image also supplementaryGIDs and how it names user and group (appc-user.ts), and mountPoints: its volumes,
 * some of them read-only.
 *
 * Everything else is what `runc spec` writes (defaults.ts). The result depends on nothing but the arguments.
 */
import { posix } from 'node:path';
import { LaminaError } from '../errors.js';
import type { AppcApp, ImageConfig } from '../oci/config.js';
import { resolveAppcUser } from './appc-user.js';
import {
  defaultHostname,
  defaultLinux,
  defaultPath,
  defaultProcess,
  defaultTerm,
  ociVersion,
  rootfsName,
  type RuntimeMount,
  type RuntimeSpec,
} from './defaults.js';
import { bindVolumes, imageVolumes, mountList, readonlyAt, withoutPlace, type BindVolume } from './mounts.js';
import { rootlessConfig, type Rootless } from './rootless.js';
import { resolveUser, type RootfsFiles } from './user.js';

export type { BindVolume, RootfsFiles, RuntimeSpec };

export interface RuntimeOptions {
  readonly readonlyRootfs: boolean;
  readonly terminal: boolean;
  /** Takes the place of the image's Cmd, behind its Entrypoint; an empty list does not. */
  readonly args?: readonly string[] | undefined;
  /** What to run when the image names no command and `args` neither; without it that is an error. */
  readonly fallback?: readonly string[] | undefined;
  /** `NAME=VALUE`, over the image's. */
  readonly env?: readonly string[] | undefined;
  readonly volumes?: readonly BindVolume[] | undefined;
  readonly hostname?: string | undefined;
  /** Absolute. */
  readonly workdir?: string | undefined;
  /** In the form of the image's User. */
  readonly user?: string | undefined;
  /** The container of an ordinary user. */
  readonly rootless?: Rootless | undefined;
}

export interface RuntimeConfig {
  readonly config: RuntimeSpec;
  /** One a kind, for stderr. */
  readonly warnings: string[];
}

/**
 * Throws CONFIG_INVALID (not for Linux), NO_COMMAND, USER_UNKNOWN, PERMISSION_DENIED (rootless), USAGE (an option that
 * makes no sense), and what `files` throws.
 */
export function runtimeConfig(image: ImageConfig, files: RootfsFiles, options: RuntimeOptions): RuntimeConfig {
  if (image.os !== 'linux' && image.os !== '') {
    throw new LaminaError('CONFIG_INVALID', `Cannot run an image for ${shown([image.os])}: only Linux images run here`);
  }
  const warnings: string[] = [];
  const { appc } = image;
  const { home, ...user } =
    appc === undefined || options.user !== undefined
      ? resolveUser(options.user ?? image.user, files)
      : resolveAppcUser(appc, files);
  if (appc !== undefined) warnings.push(...appcWarnings(appc, options));
  const args = [...image.entrypoint, ...(options.args?.length ? options.args : image.cmd)];
  if (args.length === 0 && options.fallback !== undefined) {
    args.push(...options.fallback);
    warnings.push(`The image names no command (Entrypoint, Cmd) and none was given: it will run ${shown(args)}`);
  }
  if (args.length === 0) {
    throw new LaminaError(
      'NO_COMMAND',
      'Cannot run the image: it names no command (Entrypoint, Cmd) and none was given',
      {
        hint: 'Give the command after the image.',
      },
    );
  }
  const cwd = workingDirectory(image.workingDir, options.workdir, warnings);
  const annotations = annotationsOf(image, warnings);
  const mounts = mountsOf(image, user, cwd, files, options, warnings);
  if (appc !== undefined && options.workdir === undefined) checkDirectory(cwd, mounts, files);
  const config: RuntimeSpec = {
    ociVersion,
    process: {
      terminal: options.terminal,
      user: user.additionalGids.length === 0 ? { uid: user.uid, gid: user.gid } : user,
      args,
      env: environment(image.env, options, home, warnings),
      cwd,
      ...defaultProcess,
    },
    root: { path: rootfsName, readonly: options.readonlyRootfs },
    hostname: options.hostname ?? defaultHostname,
    mounts,
    ...(annotations.size === 0 ? {} : { annotations: Object.fromEntries(annotations) }),
    linux: defaultLinux,
  };
  return { config: options.rootless === undefined ? config : rootlessConfig(config, options.rootless), warnings };
}

function appcWarnings({ mountPoints, ignored }: AppcApp, { volumes = [] }: RuntimeOptions): string[] {
  const warnings: string[] = [];
  const given = new Set(volumes.map(({ destination }) => posix.resolve('/', destination)));
  const empty = mountPoints.map(({ path }) => posix.resolve('/', path)).filter((path) => !given.has(path));
  if (empty.length > 0) warnings.push(`The image expects data at ${shown(empty)}: it is empty without a volume there`);
  if (ignored.length > 0) warnings.push(`The image asks for what is not done here: ${shown(ignored)}`);
  return warnings;
}

/** "If the directory does not exist [..] the ACE must fail execution" (appc spec, spec/aci.md). Throws CONFIG_INVALID. */
function checkDirectory(cwd: string, mounts: readonly RuntimeMount[], files: RootfsFiles): void {
  if (files.exists === undefined) return;
  const place = { destination: cwd, type: '', source: '' };
  if (!withoutPlace([...mounts, place], files.exists.bind(files)).includes(place)) return;
  throw new LaminaError('CONFIG_INVALID', `Cannot run the image: it has no directory ${shown([cwd])} to start in`, {
    hint: 'Choose another with --workdir.',
  });
}

function workingDirectory(image: string, option: string | undefined, warnings: string[]): string {
  if (option !== undefined) {
    if (option.startsWith('/')) return option;
    throw new LaminaError('USAGE', `Not an absolute path: working directory ${JSON.stringify(option)}`);
  }
  if (image === '') return '/';
  if (image.startsWith('/')) return image;
  const cwd = posix.join('/', image);
  warnings.push(`The image's WorkingDir ${shown([image])} is not absolute; taken as ${shown([cwd])}`);
  return cwd;
}

function environment(
  image: readonly string[],
  { env = [], terminal }: RuntimeOptions,
  home: string | undefined,
  warnings: string[],
): string[] {
  const variables = new Map<string, string>();
  const malformed = image.filter((entry) => !setVariable(variables, entry));
  if (malformed.length > 0) warnings.push(`Left out of Env, not of the form NAME=VALUE: ${shown(malformed)}`);
  for (const entry of env) {
    if (!setVariable(variables, entry)) throw new LaminaError('USAGE', `Not of the form NAME=VALUE: ${shown([entry])}`);
  }
  if (!variables.has('PATH')) variables.set('PATH', defaultPath);
  if (terminal && !variables.has('TERM')) variables.set('TERM', defaultTerm);
  if (home !== undefined && !variables.has('HOME')) setVariable(variables, `HOME=${home}`);
  return [...variables].map(([name, value]) => `${name}=${value}`);
}

/** A name keeps the place where it stood first. False where execve(2) could not pass the entry on, or it has no name. */
function setVariable(variables: Map<string, string>, entry: string): boolean {
  const at = entry.indexOf('=');
  if (at <= 0 || entry.includes('\0')) return false;
  variables.set(entry.slice(0, at), entry.slice(at + 1));
  return true;
}

/** Settings of crun, of systemd by way of runc and crun, and of runc's criu. Labels MUST be copied, so these are too. */
const runtimeAnnotation = /^(?:run\.oci\.|org\.systemd\.property\.|org\.criu\.)/;

function annotationsOf(image: ImageConfig, warnings: string[]): Map<string, string> {
  const implicit = {
    os: image.os,
    architecture: image.architecture,
    variant: image.variant,
    'os.version': image.osVersion,
    'os.features': image.osFeatures?.join(','),
    author: image.author,
    created: image.created,
    stopSignal: image.stopSignal,
    exposedPorts: [...image.exposedPorts].sort().join(','),
  };
  const annotations = new Map<string, string>();
  for (const [name, value] of Object.entries(implicit)) {
    if (value !== undefined && value !== '') annotations.set(`org.opencontainers.image.${name}`, value);
  }
  for (const [key, value] of Object.entries(image.labels)) {
    if (key !== '') annotations.set(key, value);
    else warnings.push('Left out a label without a name: the runtime-spec forbids an empty annotation key');
  }
  const obeyed = Object.keys(image.labels).filter((key) => runtimeAnnotation.test(key));
  if (obeyed.length > 0) warnings.push(`Labels that runtimes act on as annotations: ${shown(obeyed)}`);
  return annotations;
}

function mountsOf(
  image: ImageConfig,
  user: { uid: number; gid: number },
  cwd: string,
  files: RootfsFiles,
  { volumes = [], readonlyRootfs }: RuntimeOptions,
  warnings: string[],
): RuntimeMount[] {
  const { mounts: tmpfs, refused } = imageVolumes(image.volumes, user);
  if (refused.length > 0)
    warnings.push(`Left out volumes that would hide the root, /proc, /sys or /dev: ${shown(refused)}`);
  const readonly = (image.appc?.mountPoints ?? []).filter(({ readOnly }) => readOnly).map(({ path }) => path);
  const mounts = readonlyAt(mountList(bindVolumes(volumes), tmpfs), readonly);
  if (!readonlyRootfs || files.exists === undefined) return mounts;

  // A runtime makes the directories that it mounts on, and cwd; in a read-only file system it fails instead.
  const exists = files.exists.bind(files);
  const homeless = withoutPlace(mounts, exists);
  const empty = new Set(tmpfs.map(({ destination }) => destination));
  const dropped = homeless
    .filter(({ type, destination }) => type === 'tmpfs' && empty.has(destination))
    .map(({ destination }) => destination);
  if (dropped.length > 0) warnings.push(`Left out volumes that the image has no directory for: ${shown(dropped)}`);
  const kept = mounts.filter((mount) => !dropped.includes(mount.destination));
  const missing = withoutPlace([...kept, { destination: cwd, type: '', source: '' }], exists);
  if (missing.length > 0) {
    const paths = shown(missing.map((mount) => mount.destination));
    warnings.push(`The image lacks ${paths}, and a runtime cannot make it in a read-only root: use --rw`);
  }
  return kept;
}

/** A few strings of an image for a message. */
function shown(texts: readonly string[]): string {
  const some = texts.slice(0, 5).map((text) => JSON.stringify(text.slice(0, 100)));
  return texts.length > some.length ? `${some.join(', ')} and ${texts.length - some.length} more` : some.join(', ');
}
