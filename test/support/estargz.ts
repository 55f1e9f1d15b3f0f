/**
 * eStargz layers, made without Lamina's own code (stargz-snapshotter, docs/estargz.md): a gzip member for each run of headers
 * and for each chunk of content, a table of contents as the last entry of the tar, a footer that says where that is.
 */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { BLOCK, END, makeTar, type Entry } from './tar.js';

export interface Estargz {
  readonly blob: Buffer;
  /** The uncompressed tar, its table included. */
  readonly tar: Buffer;
  /** Of the layer's descriptor. */
  readonly annotations: Readonly<Record<string, string>>;
  /** With `external`: a layer of the image that has the tables. */
  readonly table: { readonly tar: Buffer; readonly blob: Buffer };
  /** Byte of the blob where the table begins, or would. */
  readonly tocAt: number;
  readonly toc: { readonly version: 1; readonly entries: readonly Record<string, unknown>[] };
}

export interface EstargzOptions {
  /** Bytes of a chunk of a file. Default 4 MiB. */
  readonly chunkSize?: number;
  /** The table is to be in another image. */
  readonly external?: boolean;
  /** Changes the table before it is written. */
  readonly edit?: (entries: Record<string, unknown>[]) => void;
}

const types = { file: 'reg', directory: 'dir', symlink: 'symlink', link: 'hardlink' } as const;

const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export async function makeEstargz(
  parts: readonly Entry[],
  { chunkSize = 4 * 1024 * 1024, external = false, edit }: EstargzOptions = {},
): Promise<Estargz> {
  const members: Buffer[] = [];
  const tar: Buffer[] = [];
  const entries: Record<string, unknown>[] = [];
  let offset = 0;
  let run: Buffer[] = [];
  const flush = (): void => {
    if (run.length === 0) return;
    const member = gzipSync(Buffer.concat(run));
    members.push(member);
    offset += member.length;
    run = [];
  };
  const put = (bytes: Buffer): void => {
    run.push(bytes);
    tar.push(bytes);
  };
  for (const part of parts) {
    const content = Buffer.from(part.content ?? '');
    const whole = await makeTar([part], { end: false });
    const padding = -content.length & (BLOCK - 1);
    put(whole.subarray(0, whole.length - content.length - padding));
    const entry = describe(part, content.length);
    entries.push(entry);
    if (content.length === 0) continue;
    entry['digest'] = sha256(content);
    for (let at = 0; at < content.length; at += chunkSize) {
      flush();
      const chunk = content.subarray(at, at + chunkSize);
      const facts = { offset, chunkDigest: sha256(chunk) };
      const size = chunk.length < content.length ? { chunkSize: chunk.length } : {};
      if (at === 0) Object.assign(entry, facts, size);
      else entries.push({ name: part.name, type: 'chunk', chunkOffset: at, ...facts, ...size });
      put(chunk);
    }
    put(Buffer.alloc(padding));
  }
  flush();
  edit?.(entries);
  const toc = { version: 1 as const, entries };
  const json = Buffer.from(JSON.stringify(toc, undefined, '\t'));
  const tocAt = offset;
  const table = await makeTar([{ name: 'stargz.index.json', content: json }], { end: false });
  if (!external) put(table);
  put(END);
  flush();
  return {
    blob: Buffer.concat([...members, external ? footer('STARGZEXTERNALTOC') : footer(`${hexadecimal(tocAt)}STARGZ`)]),
    table: { tar: Buffer.concat([table, END]), blob: gzipSync(Buffer.concat([table, END])) },
    tar: Buffer.concat(tar),
    annotations: { 'containerd.io/snapshot/stargz/toc.digest': sha256(json) },
    tocAt,
    toc,
  };
}

function describe(part: Entry, size: number): Record<string, unknown> {
  const { name, type = 'file', mode, uid = 0, gid = 0, mtime = new Date(0), linkname } = part;
  const standard = type === 'directory' ? 0o755 : type === 'symlink' ? 0o777 : 0o644;
  return {
    name,
    type: types[type as keyof typeof types],
    mode: mode ?? standard,
    uid,
    gid,
    modtime: mtime.toISOString().replace(/\.000Z$/, 'Z'),
    ...(size === 0 ? {} : { size }),
    ...(linkname === undefined ? {} : { linkName: linkname }),
  };
}

const hexadecimal = (offset: number): string => offset.toString(16).padStart(16, '0');

/** A gzip header with `mark` in an extra field, an empty deflate block, and what a gzip trailer has of nothing. */
function footer(mark: string): Buffer {
  return Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, mark.length + 4, 0, 0x53, 0x47, mark.length, 0]),
    Buffer.from(mark),
    Buffer.from([1, 0, 0, 0xff, 0xff]),
    Buffer.alloc(8),
  ]);
}
