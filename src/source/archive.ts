/** An uncompressed tar that holds a layout or what `docker save` writes: its members are used in place. */
import { statSync } from 'node:fs';
import { posix } from 'node:path';
import { LaminaError } from '../errors.js';
import { printable } from '../tar/notes.js';
import { openBlob, type BlobLocation, type RandomAccessBlob } from './blob.js';
import { isDirectory, type Files } from './files.js';
import { tarMembers, type TarMember } from './tar-members.js';

const MEMBERS_MAX = 1_000_000;
/** Bytes. Longer names than Linux takes are nothing that an image has. */
const NAME_MAX = 4096;

/** Which of several members of one name counts: an extracted layout has the last, Docker's readers take the first. */
export type Duplicates = 'first' | 'last';

export class Archive implements Files {
  readonly path: string;
  /** What was odd but not wrong. */
  readonly warnings: readonly string[];
  readonly #first: ReadonlyMap<string, TarMember>;
  /** Only of names that come more than once. */
  readonly #last: ReadonlyMap<string, TarMember>;

  private constructor(path: string, first: ReadonlyMap<string, TarMember>, last: ReadonlyMap<string, TarMember>) {
    this.path = path;
    this.#first = first;
    this.#last = last;
    const [name] = last.keys();
    this.warnings =
      name === undefined ? [] : [`the archive has ${last.size} names more than once, such as ${printable(name)}`];
  }

  /**
   * Reads the headers of the archive at `path`. Throws IMAGE_NOT_FOUND, ARCHIVE_INVALID (also for a compressed one),
   * LIMIT_EXCEEDED, PERMISSION_DENIED, IO.
   */
  static open(path: string): Archive {
    const blob = openArchive(path);
    try {
      checkUncompressed(blob, path);
      return Archive.#index(blob, path);
    } catch (e) {
      if (!(e instanceof LaminaError) || !e.code.startsWith('TAR_')) throw e;
      throw new LaminaError('ARCHIVE_INVALID', `${path} is not a tar archive, or it is damaged: ${e.message}`, {
        details: { ...e.details, path },
        cause: e,
      });
    } finally {
      blob.close();
    }
  }

  static #index(blob: RandomAccessBlob, path: string): Archive {
    const first = new Map<string, TarMember>();
    const last = new Map<string, TarMember>();
    for (const member of tarMembers(blob)) {
      if (member.type === 'other' || member.name.length > NAME_MAX || member.linkName.length > NAME_MAX) continue;
      const name = cleanName(member.name);
      if (first.has(name)) last.set(name, member);
      else first.set(name, member);
      if (first.size > MEMBERS_MAX) {
        throw new LaminaError('LIMIT_EXCEEDED', `${path} has more than ${MEMBERS_MAX} members`, { details: { path } });
      }
    }
    return new Archive(path, first, last);
  }

  has(name: string): boolean {
    return this.#first.has(name);
  }

  /** `name` is clean. A link is followed once, as `docker save` makes them. Throws ARCHIVE_INVALID. */
  find(name: string, duplicates: Duplicates = 'last'): BlobLocation | undefined {
    let member = this.#member(name, duplicates);
    if (member !== undefined && member.type !== 'file') {
      const target = linkTarget(member, name);
      member = this.#member(target, duplicates);
      if (member?.type !== 'file') {
        const what = member === undefined ? 'which is not there' : 'which is a link too';
        throw new LaminaError('ARCHIVE_INVALID', `${printable(name)} is a link to ${printable(target)}, ${what}`);
      }
    }
    if (member === undefined) return undefined;
    if (member.sparse)
      throw new LaminaError('ARCHIVE_INVALID', `${printable(name)} is stored as a sparse file`, { hint: REPACK });
    return { kind: 'file', path: this.path, offset: member.offset, size: member.size };
  }

  #member(name: string, duplicates: Duplicates): TarMember | undefined {
    return (duplicates === 'last' ? this.#last.get(name) : undefined) ?? this.#first.get(name);
  }
}

const REPACK = 'Pack the archive again without tar --sparse.';

/** "./a//b/" is "a/b"; nothing is above the root. */
export function cleanName(name: string): string {
  return posix.normalize(`/${name}`).replace(/\/$/, '').slice(1);
}

/** A hard link's target is a name of the archive, a symbolic link's is relative to the link. */
function linkTarget({ type, linkName }: TarMember, name: string): string {
  return cleanName(type === 'hardlink' || linkName.startsWith('/') ? linkName : `${posix.dirname(name)}/${linkName}`);
}

function openArchive(path: string): RandomAccessBlob {
  if (!isDirectory(path)) return openBlob({ kind: 'file', path, offset: 0, size: fileSize(path) });
  throw new LaminaError('ARCHIVE_INVALID', `${path} is a directory`, {
    hint: 'A directory with an image in it is written oci:DIR.',
    details: { path },
  });
}

function fileSize(path: string): number {
  const stats = statSync(path);
  if (stats.isFile()) return stats.size;
  throw new LaminaError('ARCHIVE_INVALID', `${path} is not a regular file`, { details: { path } });
}

const compressions: readonly { magic: string; name: string; tool: string }[] = [
  { magic: '1f8b', name: 'gzip', tool: 'gunzip' },
  { magic: '28b52ffd', name: 'zstd', tool: 'zstd -d' },
  { magic: '425a68', name: 'bzip2', tool: 'bunzip2' },
  { magic: 'fd377a585a00', name: 'xz', tool: 'unxz' },
  { magic: '04224d18', name: 'lz4', tool: 'lz4 -d' },
];

function checkUncompressed(blob: RandomAccessBlob, path: string): void {
  const head = Buffer.alloc(8);
  const length = blob.read(0, head);
  if (length === 0) throw new LaminaError('ARCHIVE_INVALID', `${path} is empty`, { details: { path } });
  const compression = compressions.find(({ magic }) => head.toString('hex').startsWith(magic));
  if (compression === undefined) return;
  throw new LaminaError('ARCHIVE_INVALID', `${path} is compressed with ${compression.name}`, {
    hint: `Decompress it first (${compression.tool}): layers are read in place, which the archive around them must allow. They may be compressed themselves.`,
    details: { path, compression: compression.name },
  });
}
