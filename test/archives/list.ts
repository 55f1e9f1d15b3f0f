/** Archives as text, one line an entry: what another reader must agree on. */
import { createHash } from 'node:crypto';
import { LaminaError } from '../../src/errors.js';
import type { TarEntry } from '../../src/tar/entry.js';
import { TarReader } from '../../src/tar/reader.js';

/** Bytes; of larger files, which are sparse, the content is not put together. */
const CONTENT_MAX = 16 * 1024 * 1024;

export interface Listing {
  readonly lines: readonly string[];
  /** What ended it, or "". */
  readonly code: string;
}

export function listTar(tar: Buffer): Listing {
  const lines: string[] = [];
  const reader = new TarReader((entry) => lines.push(line(tar, entry)));
  try {
    reader.push(tar);
    reader.end();
  } catch (e) {
    if (e instanceof LaminaError) return { lines, code: e.code };
    throw e;
  }
  return { lines, code: '' };
}

/** `type name link mode uid:gid size seconds major,minor sha256`; names as JSON strings of latin1 text. */
function line(tar: Buffer, entry: TarEntry): string {
  const { type, name, linkName, mode, uid, gid, size, mtime, devMajor, devMinor } = entry;
  const names = [name, linkName].map((bytes) => JSON.stringify(bytes).replace(/[\x7f-\xff]/g, escaped));
  const numbers = `${mode.toString(8)} ${uid}:${gid} ${size} ${mtime} ${devMajor},${devMinor}`;
  return `${type} ${names.join(' ')} ${numbers} ${type === 'file' ? contentSum(tar, entry) : '-'}`;
}

const escaped = (c: string): string => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;

function contentSum(tar: Buffer, { size, data }: TarEntry): string {
  if (size > CONTENT_MAX) return '-';
  const content = Buffer.alloc(size);
  for (const { offset, length, position } of data) {
    if (position + length > tar.length) return '-';
    tar.copy(content, offset, position, position + length);
  }
  return createHash('sha256').update(content).digest('hex').slice(0, 12);
}

export function sumOf(lines: readonly string[]): string {
  return createHash('sha256')
    .update(lines.map((l) => `${l}\n`).join(''))
    .digest('hex')
    .slice(0, 16);
}
