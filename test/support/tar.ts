/**
 * Tar streams for tests, made without Lamina's own code: tar-stream for what it can write, and raw blocks for what
 * no well-behaved writer would.
 */
import { pack as createPack, type Header } from 'tar-stream';

/** A tar-stream entry. Its mtime is 0 and its mode 0644, 0755 or 0777 by type unless given. */
export interface Entry extends Partial<Omit<Header, 'name'>> {
  readonly name: string;
  readonly content?: string | Uint8Array;
}

/** An entry, or bytes that stand in the stream as they are (whole blocks of 512, to be a valid tar). */
export type TarPart = Entry | Uint8Array;

export const BLOCK = 512;
/** End of archive: two blocks of zeros. */
export const END = Buffer.alloc(2 * BLOCK);

/** The parts one after the other, then the end of archive, unless `end` is false. */
export async function makeTar(parts: readonly TarPart[], { end = true } = {}): Promise<Buffer> {
  const bytes: Uint8Array[] = [];
  let run: Entry[] = [];
  const flush = async (): Promise<void> => {
    if (run.length > 0) bytes.push(await pack(run));
    run = [];
  };
  for (const part of parts) {
    if (!(part instanceof Uint8Array)) {
      run.push(part);
      continue;
    }
    await flush();
    bytes.push(part);
  }
  await flush();
  if (end) bytes.push(END);
  return Buffer.concat(bytes);
}

async function pack(entries: readonly Entry[]): Promise<Buffer> {
  const stream = createPack();
  const bytes: Buffer[] = [];
  const done = (async (): Promise<void> => {
    for await (const chunk of stream) bytes.push(chunk as Buffer);
  })();
  for (const { content = '', ...header } of entries) {
    const mode = header.type === 'directory' ? 0o755 : header.type === 'symlink' ? 0o777 : 0o644;
    stream.entry({ mode, mtime: new Date(0), ...header }, Buffer.from(content));
  }
  stream.finalize();
  await done;
  return Buffer.concat(bytes).subarray(0, -END.length);
}

/** Fields of a raw header; numbers are written in octal, bytes and latin1 strings as they are. */
export interface RawHeader {
  readonly name?: string | Uint8Array;
  readonly mode?: number | Uint8Array;
  readonly uid?: number | Uint8Array;
  readonly gid?: number | Uint8Array;
  readonly size?: number | Uint8Array;
  readonly mtime?: number | Uint8Array;
  /** One character: "0" file, "1" hard link, "2" symlink, "3" chr, "4" blk, "5" dir, "6" fifo, "L", "K", "x", "g". */
  readonly type?: string;
  readonly linkname?: string | Uint8Array;
  /** Eight bytes; "ustar\0" and "00" unless given. GNU: "ustar  \0". */
  readonly magic?: string;
  readonly devmajor?: number | Uint8Array;
  readonly devminor?: number | Uint8Array;
  readonly prefix?: string | Uint8Array;
  /** Instead of the right one. */
  readonly checksum?: number | Uint8Array;
  /** Bytes put over the finished header at an offset, before its checksum is computed. */
  readonly patch?: readonly (readonly [offset: number, bytes: Uint8Array])[];
}

/** One header block of 512 bytes. */
export function rawHeader(header: RawHeader): Buffer {
  const block = Buffer.alloc(BLOCK);
  const put = (at: number, width: number, value: string | number | Uint8Array): void => {
    block.set(fieldBytes(value, width), at);
  };
  put(0, 100, header.name ?? 'file');
  put(100, 8, header.mode ?? 0o644);
  put(108, 8, header.uid ?? 0);
  put(116, 8, header.gid ?? 0);
  put(124, 12, header.size ?? 0);
  put(136, 12, header.mtime ?? 0);
  put(156, 1, header.type ?? '0');
  put(157, 100, header.linkname ?? '');
  put(257, 8, header.magic ?? 'ustar\x0000');
  put(329, 8, header.devmajor ?? 0);
  put(337, 8, header.devminor ?? 0);
  put(345, 155, header.prefix ?? '');
  for (const [offset, bytes] of header.patch ?? []) block.set(bytes, offset);
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  const checksum = header.checksum ?? sum;
  put(148, 8, typeof checksum === 'number' ? `${checksum.toString(8).padStart(6, '0')}\0 ` : checksum);
  return block;
}

function fieldBytes(value: string | number | Uint8Array, width: number): Uint8Array {
  const text = typeof value === 'number' ? `${value.toString(8).padStart(width - 1, '0')}\0` : value;
  const bytes = typeof text === 'string' ? Buffer.from(text, 'latin1') : text;
  if (bytes.length > width) throw new RangeError(`${bytes.length} bytes do not fit into a field of ${width}`);
  return bytes;
}

/** A GNU base-256 number for a field of `width` bytes. */
export function base256(value: bigint, width: number): Buffer {
  const bytes = Buffer.alloc(width);
  let rest = value;
  for (let i = width - 1; i >= 0; i--) {
    bytes.writeUInt8(Number(rest & 0xffn), i);
    rest >>= 8n;
  }
  bytes.writeUInt8((bytes.readUInt8(0) & 0x7f) | 0x80, 0);
  return bytes;
}

/** A header and its content, padded to whole blocks; `size` is the content's unless the header has one. */
export function rawEntry(header: RawHeader, content: string | Uint8Array = ''): Buffer {
  const bytes = Buffer.from(content);
  return Buffer.concat([rawHeader({ size: bytes.length, ...header }), padded(bytes)]);
}

/** Bytes and zeros up to a whole block. */
export function padded(bytes: Uint8Array): Buffer {
  const whole = Buffer.alloc(Math.ceil(bytes.length / BLOCK) * BLOCK);
  whole.set(bytes);
  return whole;
}

/** One PAX record, "LENGTH KEY=VALUE\n" (pax(1)); strings are UTF-8. */
export function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** A PAX header for the entry that follows ("x"), or for all that follow ("g"). */
export function paxEntry(records: Readonly<Record<string, string | Uint8Array>>, type: 'x' | 'g' = 'x'): Buffer {
  const content = Buffer.concat(Object.entries(records).map(([key, value]) => paxRecord(key, value)));
  return rawEntry({ name: 'PaxHeaders/file', type }, content);
}

/** A GNU long name ("L") or long link target ("K") for the entry that follows. */
export function gnuLong(type: 'L' | 'K', text: string | Uint8Array): Buffer {
  const bytes = typeof text === 'string' ? Buffer.from(text, 'latin1') : Buffer.from(text);
  return rawEntry({ name: '././@LongLink', type, magic: 'ustar  \0' }, Buffer.concat([bytes, Buffer.alloc(1)]));
}
