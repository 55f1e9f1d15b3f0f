/** One input from others: bytes flipped, set, copied, cut out, put in, and pieces of two inputs joined. */
import type { Random } from './random.js';

/** Values at which readers of numbers go wrong. */
const BYTES = [0, 1, 7, 8, 0x0a, 0x20, 0x2f, 0x30, 0x37, 0x39, 0x40, 0x7f, 0x80, 0xc0, 0xfe, 0xff] as const;
const WORDS = [0, 1, 2, 511, 512, 513, 4095, 4096, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff];

export interface MutateOptions {
  /** What the format has words and magic numbers for. */
  readonly dictionary: readonly Uint8Array[];
  /** Bytes. */
  readonly most: number;
}

type Mutation = (bytes: Buffer, random: Random, options: MutateOptions, corpus: readonly Buffer[]) => Buffer;

/** Somewhere in the bytes; a third of the time at the start, where headers are. */
function place(bytes: Buffer, random: Random): number {
  const within = random.chance(33) ? Math.min(bytes.length, 64) : bytes.length;
  return within === 0 ? 0 : random.below(within);
}

/** Small mostly, and at times anything. */
function size(most: number, random: Random): number {
  return most === 0 ? 0 : 1 + random.below(random.chance(70) ? Math.min(most, 16) : most);
}

function put(bytes: Buffer, at: number, piece: Uint8Array): Buffer {
  piece = piece.subarray(0, bytes.length - at);
  bytes.set(piece, at);
  return bytes;
}

function insert(bytes: Buffer, at: number, piece: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
}

function word(random: Random): Buffer {
  const piece = Buffer.alloc(random.pick([2, 4, 8]));
  const value = random.pick(WORDS) + (random.chance(30) ? random.below(3) - 1 : 0);
  const low = Math.max(value, 0) % 2 ** (8 * Math.min(piece.length, 4));
  if (piece.length === 2) piece.writeUInt16LE(low);
  else piece.writeUInt32LE(low);
  return random.chance(25) ? piece.reverse() : piece;
}

/** Octal and decimal digits, as tar and JSON have them. */
function digits(random: Random): Buffer {
  const value = random.pick(WORDS) + random.below(3);
  return Buffer.from(random.chance(50) ? value.toString(8).padStart(11, '0') : String(value));
}

const mutations: readonly Mutation[] = [
  (bytes, random) => {
    const at = place(bytes, random);
    if (at < bytes.length) bytes[at]! ^= 1 << random.below(8);
    return bytes;
  },
  (bytes, random) => put(bytes, place(bytes, random), Uint8Array.of(random.pick(BYTES))),
  (bytes, random) => put(bytes, place(bytes, random), Uint8Array.of(random.below(256))),
  (bytes, random) => put(bytes, place(bytes, random), word(random)),
  (bytes, random) => put(bytes, place(bytes, random), digits(random)),
  (bytes, random, { dictionary }) => {
    if (dictionary.length === 0) return bytes;
    const at = place(bytes, random);
    const piece = random.pick(dictionary);
    return random.chance(50) ? put(bytes, at, piece) : insert(bytes, at, piece);
  },
  (bytes, random) => {
    const from = place(bytes, random);
    const piece = Buffer.from(bytes.subarray(from, from + size(bytes.length - from, random)));
    const at = place(bytes, random);
    return random.chance(50) ? put(bytes, at, piece) : insert(bytes, at, piece);
  },
  (bytes, random) => {
    const from = place(bytes, random);
    return Buffer.concat([bytes.subarray(0, from), bytes.subarray(from + size(bytes.length - from, random))]);
  },
  (bytes, random) => bytes.subarray(0, place(bytes, random)),
  (bytes, random) => insert(bytes, place(bytes, random), Buffer.alloc(size(600, random), random.pick(BYTES))),
  (bytes, random, _options, corpus) => {
    const other = random.pick(corpus);
    const from = place(other, random);
    const piece = other.subarray(from, from + size(other.length - from, random));
    const at = place(bytes, random);
    return random.chance(50) ? put(bytes, at, piece) : insert(bytes, at, piece);
  },
  (bytes, random, _options, corpus) => {
    const other = random.pick(corpus);
    return Buffer.concat([bytes.subarray(0, place(bytes, random)), other.subarray(place(other, random))]);
  },
  (bytes, random) => {
    // What is in whole blocks of 512 bytes stays so.
    const blocks = Math.floor(bytes.length / 512);
    if (blocks === 0) return bytes;
    const from = random.below(blocks) * 512;
    const piece = Buffer.from(bytes.subarray(from, from + 512 * (1 + random.below(3))));
    const at = random.below(blocks) * 512;
    return random.chance(50) ? put(bytes, at, piece) : insert(bytes, at, piece);
  },
];

/** A new input; the corpus (not empty) stays as it is. */
export function mutate(corpus: readonly Buffer[], random: Random, options: MutateOptions): Buffer {
  let bytes: Buffer = Buffer.from(random.pick(corpus));
  for (let i = 1 << random.below(5); i > 0; i--) {
    bytes = random.pick(mutations)(bytes, random, options, corpus);
    if (bytes.length > options.most) bytes = bytes.subarray(0, options.most);
  }
  return Buffer.from(bytes);
}
