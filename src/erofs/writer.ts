/**
 * Writes a tree as a metadata-only EROFS image (drawn in layout.ts). The bytes are a function of the tree and of the
 * devices' sizes alone, and the root has nid 1: nids are the node ids of our FUSE server.
 */
import { constants } from 'node:buffer';
import { LaminaError } from '../errors.js';
import { planChunks, writeChunks } from './chunk-index.js';
import { directorySize, writeDirectory } from './directory.js';
import {
  BLOCK,
  BLOCK_BITS,
  CHUNK_INDEX,
  CHUNK_INDEXES,
  COMPAT_MTIME,
  DEVICE_BLOCKS,
  DEVICE_SLOT,
  DEVICES_MAX,
  INCOMPAT,
  INODE_SIZE,
  MAGIC,
  ROOT_NID,
  SUPER_AT,
  SUPER_SIZE,
  VOLUME,
  fileTypes,
  format,
  ino,
  roundUp,
  sb,
  setU64,
  viewOf,
  volumeFlag,
} from './layout.js';
import { TreePlan } from './tree-plan.js';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Inode } from './tree.js';
import { writeXattrArea, xattrCount } from './xattr-area.js';

export interface EncodeOptions {
  /** Bytes of each device's address space, the base layer (device 1) first. */
  readonly devices: readonly number[];
}

/** Blocks are counted in 32 bits, and the last number is taken: it says that a chunk is a hole. */
const BYTES_MAX = 0xffffffff * BLOCK;

/**
 * The image of `root`, in parts to be written one after the other.
 * Throws METADATA_INVALID for what EROFS cannot express, LIMIT_EXCEEDED for what is too large for it.
 */
export function encodeTree(root: Inode, { devices }: EncodeOptions): Buffer[] {
  if (devices.length > DEVICES_MAX) throw tooLarge('layers', devices.length, DEVICES_MAX);
  for (const bytes of devices) if (bytes > BYTES_MAX) throw tooLarge('bytes of a layer', bytes, BYTES_MAX);
  return new TreeWriter(new TreePlan(root, devices)).write();
}

class TreeWriter {
  readonly #plan: TreePlan;
  readonly #header: Buffer;
  readonly #inodes: Buffer;
  readonly #data: Buffer;
  readonly #inodeView: DataView;
  readonly #dataView: DataView;
  /** The data area's first block. */
  readonly #dataBlock: number;

  constructor(plan: TreePlan) {
    const header = roundUp(SUPER_AT + SUPER_SIZE + DEVICE_SLOT * plan.devices.length, BLOCK);
    const data = plan.dataBlocks * BLOCK;
    // The reader maps an image as one Buffer.
    const most = Math.min(constants.MAX_LENGTH, BYTES_MAX);
    const total = header + plan.inodeBytes + data;
    if (total > most) throw tooLarge('bytes of metadata', total, most);
    this.#plan = plan;
    this.#header = Buffer.alloc(header);
    this.#inodes = Buffer.alloc(plan.inodeBytes);
    this.#data = Buffer.alloc(data);
    this.#inodeView = viewOf(this.#inodes);
    this.#dataView = viewOf(this.#data);
    this.#dataBlock = (header + plan.inodeBytes) / BLOCK;
  }

  write(): Buffer[] {
    this.#writeHeader();
    for (let i = 0; i < this.#plan.inodes.length; i++) this.#writeInode(i);
    return [this.#header, this.#inodes, this.#data];
  }

  #writeHeader(): void {
    const { devices, inodes, hasXattrs, hasAcls } = this.#plan;
    const view = viewOf(this.#header);
    const blocks = (this.#header.length + this.#inodes.length + this.#data.length) / BLOCK;
    view.setUint32(SUPER_AT + sb.magic, MAGIC, true);
    view.setUint32(SUPER_AT + sb.featureCompat, COMPAT_MTIME, true);
    view.setUint8(SUPER_AT + sb.blkszbits, BLOCK_BITS);
    view.setUint16(SUPER_AT + sb.rootNid, ROOT_NID, true);
    setU64(view, SUPER_AT + sb.inos, inodes.length);
    view.setUint32(SUPER_AT + sb.blocks, blocks, true);
    view.setUint32(SUPER_AT + sb.metaBlkaddr, this.#header.length / BLOCK, true);
    const flags = (hasXattrs ? volumeFlag.xattrs : '') + (hasAcls ? volumeFlag.acls : '');
    this.#header.write(VOLUME + flags, SUPER_AT + sb.volumeName, 'latin1');
    view.setUint32(SUPER_AT + sb.featureIncompat, INCOMPAT, true);
    view.setUint16(SUPER_AT + sb.extraDevices, devices.length, true);
    view.setUint16(SUPER_AT + sb.devtSlotoff, (SUPER_AT + SUPER_SIZE) / DEVICE_SLOT, true);
    for (const [i, bytes] of devices.entries()) {
      view.setUint32(SUPER_AT + SUPER_SIZE + DEVICE_SLOT * i + DEVICE_BLOCKS, Math.ceil(bytes / BLOCK), true);
    }
  }

  #writeInode(i: number): void {
    const plan = this.#plan;
    const view = this.#inodeView;
    const at = plan.at[i]!;
    const inode = plan.inodes[i]!;
    view.setUint16(at + ino.format, plan.format[i]!, true);
    view.setUint16(at + ino.xattrCount, xattrCount(plan.xattrSize[i]!), true);
    view.setUint16(at + ino.mode, inode.mode, true);
    view.setUint32(at + ino.ino, inode.order, true);
    view.setUint32(at + ino.uid, inode.uid, true);
    view.setUint32(at + ino.gid, inode.gid, true);
    setU64(view, at + ino.mtime, inode.mtime);
    view.setUint32(at + ino.mtimeNsec, inode.mtimeNsec, true);
    view.setUint32(at + ino.nlink, plan.nlinks[i]!, true);
    if (plan.xattrSize[i]! > 0) writeXattrArea(inode.xattrs!, this.#inodes, at + INODE_SIZE);
    switch (inode.mode & S_IFMT) {
      case S_IFDIR:
        this.#writeDirectory(i);
        break;
      case S_IFLNK:
        this.#writeSymlink(i, inode.target!);
        break;
      case S_IFREG:
        if (inode.size > 0) this.#writeFile(i, inode);
        break;
      case S_IFCHR:
      case S_IFBLK:
        view.setUint32(at + ino.union, inode.rdev, true);
        break;
    }
  }

  /** Where what follows inode and xattrs starts. */
  #bodyAt(i: number): number {
    return this.#plan.at[i]! + INODE_SIZE + this.#plan.xattrSize[i]!;
  }

  #writeDirectory(i: number): void {
    const { names, leadsTo, inodes, from, to, block } = this.#plan;
    const size = directorySize(names, from[i]!, to[i]!);
    const inlineBlock = this.#setFlat(i, size);
    writeDirectory(
      names,
      from[i]!,
      to[i]!,
      (name) => this.#plan.nid(leadsTo[name]!),
      (name) => fileTypes[(inodes[leadsTo[name]!]!.mode & S_IFMT) >> 12]!,
      (b) =>
        b === inlineBlock
          ? { bytes: this.#inodes, view: this.#inodeView, at: this.#bodyAt(i) }
          : { bytes: this.#data, view: this.#dataView, at: (block[i]! + b) * BLOCK },
    );
  }

  #writeSymlink(i: number, target: string): void {
    const inlineBlock = this.#setFlat(i, target.length);
    const outside = inlineBlock < 0 ? target.length : inlineBlock * BLOCK;
    this.#data.write(target.slice(0, outside), this.#plan.block[i]! * BLOCK, 'latin1');
    this.#inodes.write(target.slice(outside), this.#bodyAt(i), 'latin1');
  }

  /** Size and start of directory and symlink data; gives the number of its block that is inline, or -1. */
  #setFlat(i: number, size: number): number {
    const at = this.#plan.at[i]!;
    setU64(this.#inodeView, at + ino.size, size);
    this.#inodeView.setUint32(at + ino.union, this.#dataBlock + this.#plan.block[i]!, true);
    return this.#plan.format[i] === format.inline ? Math.floor(size / BLOCK) : -1;
  }

  #writeFile(i: number, inode: Inode): void {
    const at = this.#plan.at[i]!;
    const chunks = planChunks(inode.size, inode.extents, this.#plan.devices, () => this.#plan.about(i));
    setU64(this.#inodeView, at + ino.size, inode.size);
    setU64(this.#inodeView, at + ino.holes, chunks.holes);
    this.#inodeView.setUint32(at + ino.union, chunks.bits | CHUNK_INDEXES, true);
    writeChunks(chunks, inode.extents, this.#inodeView, roundUp(this.#bodyAt(i), CHUNK_INDEX));
  }
}

function tooLarge(what: string, got: number, most: number): LaminaError {
  return new LaminaError('LIMIT_EXCEEDED', `Cannot write the tree: ${got} ${what} (at most ${most})`);
}
