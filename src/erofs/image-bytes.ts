/**
 * The bytes of an EROFS image behind checks: where things are, and that they lie within the bytes. What the writer writes
 * is understood, not all of EROFS. Nothing here allocates but the constructor and the errors.
 */
import {
  BLOCK,
  BLOCK_BITS,
  CHUNK_BITS_MASK,
  CHUNK_INDEX,
  CHUNK_INDEXES,
  DEVICE_BLOCKS,
  DEVICE_SLOT,
  INCOMPAT,
  INODE_SIZE,
  INODE_SLOT,
  MAGIC,
  ROOT_NID,
  SUPER_AT,
  SUPER_SIZE,
  VOLUME_PATTERN,
  VOLUME_SIZE,
  XATTR_ENTRY,
  XATTR_HEADER,
  erofsInvalid,
  fileTypes,
  format,
  getU64,
  ino,
  roundUp,
  sb,
  viewOf,
} from './layout.js';
import { S_IFDIR, S_IFMT, S_IFREG } from './tree.js';

/** Bytes of a chunk by its format's bits (2 ** bits is a call of Math.pow, which shows in every read). */
const chunkBytes = Float64Array.from({ length: CHUNK_BITS_MASK + 1 }, (_, bits) => BLOCK * 2 ** bits);

/** Inodes are named here by where they are in the bytes (`at`), which {@link inode} gives. */
export class ImageBytes {
  readonly bytes: Buffer;
  readonly view: DataView;
  readonly hasXattrs: boolean;
  readonly hasAcls: boolean;
  readonly inodeCount: number;
  /** Units of 512 bytes: the image and its devices, as the kernel's statfs counts. */
  readonly totalBlocks: number;
  readonly deviceCount: number;
  readonly #length: number;
  /** Where nid 0 would be. */
  readonly #meta: number;
  readonly #deviceTable: number;

  /** `bytes` is a whole image. Throws EROFS_INVALID. */
  constructor(bytes: Buffer) {
    if (bytes.length < SUPER_AT + SUPER_SIZE) throw erofsInvalid('it is not an EROFS image');
    const view = viewOf(bytes);
    const u32 = (field: number): number => view.getUint32(SUPER_AT + field, true);
    if (u32(sb.magic) !== MAGIC) throw erofsInvalid('it is not an EROFS image');
    const volume = bytes.toString('latin1', SUPER_AT + sb.volumeName, SUPER_AT + sb.volumeName + VOLUME_SIZE);
    const flags = VOLUME_PATTERN.exec(volume);
    const ours =
      view.getUint8(SUPER_AT + sb.blkszbits) === BLOCK_BITS &&
      view.getUint16(SUPER_AT + sb.rootNid, true) === ROOT_NID &&
      u32(sb.featureIncompat) === INCOMPAT &&
      flags !== null;
    if (!ours) throw erofsInvalid('another program, or another version of Lamina, wrote it');
    if (u32(sb.blocks) * BLOCK !== bytes.length) {
      throw erofsInvalid(`it has ${bytes.length} bytes where its superblock says ${u32(sb.blocks) * BLOCK}`);
    }
    this.bytes = bytes;
    this.view = view;
    this.#length = bytes.length;
    this.#meta = u32(sb.metaBlkaddr) * BLOCK;
    this.#deviceTable = view.getUint16(SUPER_AT + sb.devtSlotoff, true) * DEVICE_SLOT;
    this.deviceCount = view.getUint16(SUPER_AT + sb.extraDevices, true);
    if (this.#deviceTable + this.deviceCount * DEVICE_SLOT > bytes.length) {
      throw erofsInvalid('its device table is cut off');
    }
    this.inodeCount = getU64(view, SUPER_AT + sb.inos);
    let blocks = u32(sb.blocks);
    for (let i = 1; i <= this.deviceCount; i++) blocks += this.deviceBlocks(i);
    this.totalBlocks = blocks;
    this.hasXattrs = flags[1] !== '';
    this.hasAcls = flags[2] !== '';
    if (this.type(this.inode(ROOT_NID)) !== S_IFDIR) throw erofsInvalid('its root is not a directory', ROOT_NID);
  }

  deviceBlocks(device: number): number {
    return this.view.getUint32(this.#deviceTable + (device - 1) * DEVICE_SLOT + DEVICE_BLOCKS, true);
  }

  /** Where an inode is in the bytes. It lies within them, and its format and type are such as we write. */
  inode(node: number): number {
    const at = this.#meta + node * INODE_SLOT;
    if (!(node >= ROOT_NID && at + INODE_SIZE <= this.#length)) throw erofsInvalid('no such inode', node);
    const layout = this.view.getUint16(at + ino.format, true);
    const known = layout === format.plain || layout === format.inline || layout === format.chunked;
    if (!known || fileTypes[this.view.getUint16(at + ino.mode, true) >> 12] === 0) {
      throw erofsInvalid('no inode there', node);
    }
    return at;
  }

  type(at: number): number {
    return this.view.getUint16(at + ino.mode, true) & S_IFMT;
  }

  nidOf(at: number): number {
    return (at - this.#meta) / INODE_SLOT;
  }

  /** i_size, at most `most`. */
  sizeOf(at: number, most: number): number {
    const size = getU64(this.view, at + ino.size);
    if (size > most) throw erofsInvalid(`a size of ${size} bytes`, this.nidOf(at));
    return size;
  }

  /** Where the xattrs end and what follows them starts. */
  xattrEnd(at: number): number {
    const count = this.view.getUint16(at + ino.xattrCount, true);
    const end = count === 0 ? at + INODE_SIZE : at + INODE_SIZE + XATTR_HEADER + 4 * (count - 1);
    if (end > this.#length) throw erofsInvalid('xattrs beyond the end of the image', this.nidOf(at));
    return end;
  }

  firstXattr(at: number): number {
    return at + INODE_SIZE + XATTR_HEADER;
  }

  /** Where the xattr after the one at `entry` is; both lie before `end`. */
  nextXattr(entry: number, end: number): number {
    if (entry + XATTR_ENTRY > end) throw erofsInvalid('an xattr that is cut off');
    const next = entry + roundUp(XATTR_ENTRY + this.bytes[entry]! + this.view.getUint16(entry + 2, true), 4);
    if (next > end) throw erofsInvalid('an xattr that is cut off');
    return next;
  }

  /** The part of the name of the xattr at `entry` that follows its namespace, latin1. */
  xattrSuffix(entry: number): string {
    const start = entry + XATTR_ENTRY;
    return this.bytes.toString('latin1', start, start + this.bytes[entry]!);
  }

  xattrValue(entry: number): Buffer {
    const start = entry + XATTR_ENTRY + this.bytes[entry]!;
    return this.bytes.subarray(start, start + this.view.getUint16(entry + 2, true));
  }

  /** Where block `index` of a directory's or symlink's data of `size` bytes is. The block lies within the bytes. */
  block(at: number, size: number, index: number): number {
    const length = Math.min(BLOCK, size - index * BLOCK);
    const layout = this.view.getUint16(at + ino.format, true);
    let base: number;
    if (layout === format.inline && (index + 1) * BLOCK > size) {
      base = this.xattrEnd(at);
    } else if (layout !== format.chunked) {
      base = (this.view.getUint32(at + ino.union, true) + index) * BLOCK;
    } else {
      throw erofsInvalid('a directory or symlink in chunks', this.nidOf(at));
    }
    if (base + length > this.#length) throw erofsInvalid('data beyond the end of the image', this.nidOf(at));
    return base;
  }

  /** Bytes of a regular file's chunk. */
  chunkBytes(at: number): number {
    const chunks = this.view.getUint32(at + ino.union, true);
    const layout = this.view.getUint16(at + ino.format, true);
    if (this.type(at) !== S_IFREG || layout !== format.chunked || (chunks & ~CHUNK_BITS_MASK) !== CHUNK_INDEXES) {
      throw erofsInvalid('not a regular file in chunks', this.nidOf(at));
    }
    return chunkBytes[chunks & CHUNK_BITS_MASK]!;
  }

  /** Where the indexes of all chunks are; they lie within the bytes. */
  chunkTable(at: number, size: number, bytes: number): number {
    const table = roundUp(this.xattrEnd(at), CHUNK_INDEX);
    if (table + Math.ceil(size / bytes) * CHUNK_INDEX > this.#length) {
      throw erofsInvalid('chunk indexes beyond the end of the image', this.nidOf(at));
    }
    return table;
  }
}
