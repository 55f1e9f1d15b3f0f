/**
 * Every failure that a user can see is a {@link LaminaError} with a stable, upper-case code. The table below is the
 * one place that says which codes there are and what exit code the command line gives for each
 * (`native-notes/ERRORS.md` describes them in words; a test holds the two lists together).
 */

/** Exit codes of the command line: 0 done, 1 failed, 2 usage, 3 verification failed, 4 not found. */
export const exitCodes = {
  // what the user typed
  USAGE: 2,
  REFERENCE_INVALID: 2,
  IMAGE_AMBIGUOUS: 2,
  // not there
  IMAGE_NOT_FOUND: 4,
  TAG_NOT_FOUND: 4,
  PLATFORM_NOT_FOUND: 4,
  BLOB_MISSING: 4,
  PATH_NOT_FOUND: 4,
  MOUNT_NOT_FOUND: 4,
  MOUNTPOINT_MISSING: 4,
  // bytes are not what a digest says
  BLOB_SIZE_MISMATCH: 3,
  BLOB_DIGEST_MISMATCH: 3,
  DIFF_ID_MISMATCH: 3,
  CHUNK_DIGEST_MISMATCH: 3,
  STORE_CORRUPT: 3,
  // documents and archives that are not well formed
  DIGEST_INVALID: 1,
  DIGEST_UNSUPPORTED: 1,
  MANIFEST_INVALID: 1,
  CONFIG_INVALID: 1,
  LAYOUT_INVALID: 1,
  ARCHIVE_INVALID: 1,
  NOT_AN_IMAGE: 1,
  TAR_INVALID: 1,
  TAR_TRUNCATED: 1,
  TAR_UNSUPPORTED: 1,
  SPARSE_INVALID: 1,
  WHITEOUT_INVALID: 1,
  LINK_INVALID: 1,
  PATH_LOOP: 1,
  METADATA_INVALID: 1,
  COMPRESSION_UNKNOWN: 1,
  COMPRESSION_CORRUPT: 1,
  COMPRESSION_TRUNCATED: 1,
  LIMIT_EXCEEDED: 1,
  EROFS_INVALID: 1,
  SOCI_INVALID: 1,
  // registries
  REGISTRY_UNREACHABLE: 1,
  REGISTRY_AUTH: 1,
  REGISTRY_DENIED: 1,
  REGISTRY_RATE_LIMITED: 1,
  REGISTRY_PROTOCOL: 1,
  // mounting and running
  MOUNTPOINT_BUSY: 1,
  MOUNTPOINT_NOT_EMPTY: 1,
  MOUNTPOINT_NOT_DIRECTORY: 1,
  MOUNT_BUSY: 1,
  MOUNT_FAILED: 1,
  ENGINE_UNAVAILABLE: 1,
  FUSE_UNAVAILABLE: 1,
  FUSE_PROTOCOL: 1,
  TRANSPORT_UNAVAILABLE: 1,
  PERMISSION_DENIED: 1,
  NATIVE_UNAVAILABLE: 1,
  DAEMON_UNREACHABLE: 1,
  DAEMON_FAILED: 1,
  OUTPUT_EXISTS: 1,
  BUNDLE_EXISTS: 1,
  BUNDLE_INVALID: 1,
  USER_UNKNOWN: 1,
  NO_COMMAND: 1,
  RUNTIME_MISSING: 1,
  RUNTIME_FAILED: 1,
  DISK_FULL: 1,
  IO: 1,
  INTERNAL: 1,
} as const;

export type ErrorCode = keyof typeof exitCodes;

/** Facts about a failure, for logs and `--json`: digests, paths (as text), offsets and sizes in bytes. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | null | readonly string[]>>;

export interface ErrorOptions {
  /** What the user can do next, as a whole sentence. */
  readonly hint?: string | undefined;
  readonly details?: ErrorDetails | undefined;
  readonly cause?: unknown;
}

/** The one base class: `code` is stable, the message is for people. */
export class LaminaError extends Error {
  override readonly name = 'LaminaError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, { hint, details = {}, cause }: ErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.hint = hint;
    this.details = details;
  }

  get exitCode(): number {
    return exitCodes[this.code];
  }

  /** A plain object that survives a thread or a socket; {@link fromJSON} undoes it. */
  toJSON(): SerializedError {
    return { code: this.code, message: this.message, hint: this.hint ?? null, details: this.details };
  }

  static fromJSON(e: SerializedError): LaminaError {
    const code = e.code in exitCodes ? e.code : 'INTERNAL';
    return new LaminaError(code, e.message, { hint: e.hint ?? undefined, details: e.details });
  }
}

export interface SerializedError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | null;
  readonly details: ErrorDetails;
}

/** The errno name of a Node system error ("ENOENT"), or undefined. */
export function errnoOf(e: unknown): string | undefined {
  if (!(e instanceof Error) || !('code' in e)) return undefined;
  return typeof e.code === 'string' ? e.code : undefined;
}

/** Any thrown value as a {@link LaminaError}: system errors keep their text, ENOSPC gets its own code. */
export function toLaminaError(e: unknown, doing?: string): LaminaError {
  if (e instanceof LaminaError) return e;
  const text = e instanceof Error ? e.message : String(e);
  const message = doing === undefined ? text : `${doing}: ${text}`;
  switch (errnoOf(e)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new LaminaError('DISK_FULL', message, {
        cause: e,
        hint: 'Free space where the store is, or choose another with --store.',
      });
    case 'EACCES':
    case 'EPERM':
      return new LaminaError('PERMISSION_DENIED', message, { cause: e });
    case 'ERR_WORKER_OUT_OF_MEMORY':
      return new LaminaError('LIMIT_EXCEEDED', message, {
        cause: e,
        hint: 'The image has more files than fit into memory: give Node more (NODE_OPTIONS=--max-old-space-size=MIB).',
      });
    case undefined:
      return new LaminaError('INTERNAL', message, { cause: e });
    default:
      return new LaminaError('IO', message, { cause: e });
  }
}
