/**
 * Flatbuffers as far as ztocs use them: tables, strings, vectors of these and of bytes (flatbuffers.dev, "Internals").
 *
 *     root: u32 to the root table
 *     table: i32 back to its vtable, then its fields
 *     vtable: u16 its bytes, u16 bytes of the table, u16 per field: where in the table it is, 0 for absent
 *     string, vector: u32 length, then the elements; references are u32, forward from where they stand
 *
 * The bytes are a stranger's. References may all lead to the same place, so a small file can claim to hold any amount:
 * whatever is read is counted, and what a file says in all is bounded by what it has.
 */
import { sociInvalid } from './errors.js';

/** Of a file whose equal strings are written once. Builders of ztocs write each anew. */
const SHARING = 4;

/** A table; 0 is none. */
type TableAt = number & { readonly brand: 'TableAt' };

export class FlatReader {
  readonly #bytes: Buffer;
  readonly #what: string;
  #left: number;

  /** `what` is for messages: "the ztoc". */
  constructor(bytes: Buffer, what: string) {
    this.#bytes = bytes;
    this.#what = what;
    this.#left = SHARING * bytes.length;
  }

  root(): TableAt {
    return this.#table(0);
  }

  /** The table that a field refers to. */
  table(table: TableAt, slot: number): TableAt | undefined {
    const at = this.#field(table, slot, 4);
    return at === 0 ? undefined : this.#table(at);
  }

  /** "" where it is absent. Bytes as latin1. */
  text(table: TableAt, slot: number): string {
    const at = this.#field(table, slot, 4);
    return at === 0 ? '' : this.#text(at);
  }

  /** A view; empty where it is absent. */
  byteVector(table: TableAt, slot: number): Buffer {
    const at = this.#field(table, slot, 4);
    if (at === 0) return this.#bytes.subarray(0, 0);
    const { start, count } = this.#vector(at, 1);
    return this.#bytes.subarray(start, start + count);
  }

  texts(table: TableAt, slot: number): string[] {
    return this.#each(table, slot, (at) => this.#text(at));
  }

  tables<T>(table: TableAt, slot: number, read: (table: TableAt) => T): T[] {
    return this.#each(table, slot, (at) => read(this.#table(at)));
  }

  /** An i64 that a double holds. */
  long(table: TableAt, slot: number): number {
    const at = this.#field(table, slot, 8);
    if (at === 0) return 0;
    const value = this.#bytes.readInt32LE(at + 4) * 0x1_0000_0000 + this.#bytes.readUInt32LE(at);
    if (!Number.isSafeInteger(value)) throw this.#invalid(`a number at byte ${at} is too large`);
    return value;
  }

  int(table: TableAt, slot: number): number {
    const at = this.#field(table, slot, 4);
    return at === 0 ? 0 : this.#bytes.readInt32LE(at);
  }

  uint(table: TableAt, slot: number): number {
    const at = this.#field(table, slot, 4);
    return at === 0 ? 0 : this.#bytes.readUInt32LE(at);
  }

  byte(table: TableAt, slot: number, absent: number): number {
    const at = this.#field(table, slot, 1);
    return at === 0 ? absent : this.#bytes.readInt8(at);
  }

  #each<T>(table: TableAt, slot: number, read: (at: number) => T): T[] {
    const field = this.#field(table, slot, 4);
    if (field === 0) return [];
    const { start, count } = this.#vector(field, 4);
    const all: T[] = [];
    for (let i = 0; i < count; i++) all.push(read(start + 4 * i));
    return all;
  }

  #table(from: number): TableAt {
    const at = this.#follow(from);
    this.#need(at, 4);
    const vtable = at - this.#bytes.readInt32LE(at);
    this.#need(vtable, 4);
    const size = this.#bytes.readUInt16LE(vtable + 2);
    this.#need(vtable, this.#bytes.readUInt16LE(vtable));
    this.#need(at, size);
    this.#count(size);
    return at as TableAt;
  }

  /** Where `size` bytes of a field are; 0 where it is absent. */
  #field(table: TableAt, slot: number, size: number): number {
    const vtable = table - this.#bytes.readInt32LE(table);
    const entry = 4 + 2 * slot;
    if (entry + 2 > this.#bytes.readUInt16LE(vtable)) return 0;
    const offset = this.#bytes.readUInt16LE(vtable + entry);
    if (offset === 0) return 0;
    if (offset < 4 || offset + size > this.#bytes.readUInt16LE(vtable + 2)) {
      throw this.#invalid(`a field of the table at byte ${table} is outside of it`);
    }
    return table + offset;
  }

  #text(from: number): string {
    const { start, count } = this.#vector(from, 1);
    return this.#bytes.toString('latin1', start, start + count);
  }

  #vector(from: number, element: number): { start: number; count: number } {
    const at = this.#follow(from);
    this.#need(at, 4);
    const count = this.#bytes.readUInt32LE(at);
    this.#need(at + 4, count * element);
    this.#count(4 + count * element);
    return { start: at + 4, count };
  }

  #follow(from: number): number {
    this.#need(from, 4);
    return from + this.#bytes.readUInt32LE(from);
  }

  #need(at: number, length: number): void {
    if (at >= 0 && at + length <= this.#bytes.length) return;
    throw this.#invalid(`it leads to byte ${at}, and has ${this.#bytes.length}`);
  }

  #count(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < 0) throw this.#invalid('it says the same bytes over and over');
  }

  #invalid(why: string): Error {
    return sociInvalid(this.#what, why);
  }
}

/** What has been written; 0 is nothing. Bytes from the end. */
export type Written = number & { readonly brand: 'Written' };

/** A table's field: what it has, and what an absent one means. */
export type Field =
  | { readonly slot: number; readonly type: 'reference'; readonly value: Written }
  | { readonly slot: number; readonly type: 'i64'; readonly value: number }
  | { readonly slot: number; readonly type: 'i32' | 'u32'; readonly value: number }
  | { readonly slot: number; readonly type: 'i8'; readonly value: number; readonly absent: number };

const sizes = { reference: 4, i64: 8, i32: 4, u32: 4, i8: 1 } as const;

/**
 * Builds from the end to the start, as the format's own builders do: given the same calls the bytes are the same, so a
 * ztoc's digest does not tell who made it.
 */
export class FlatWriter {
  #bytes = Buffer.alloc(64 * 1024);
  /** Where what is written starts. */
  #head = this.#bytes.length;
  #alignment = 1;
  readonly #vtables: number[] = [];

  /** Bytes as latin1. */
  text(text: string): Written {
    const bytes = Buffer.from(text, 'latin1');
    this.#prepare(4, bytes.length + 1);
    this.#head -= bytes.length + 1;
    this.#bytes.set(bytes, this.#head);
    this.#bytes[this.#head + bytes.length] = 0;
    return this.#length(bytes.length);
  }

  byteVector(bytes: Uint8Array): Written {
    this.#prepare(4, bytes.length);
    this.#head -= bytes.length;
    this.#bytes.set(bytes, this.#head);
    return this.#length(bytes.length);
  }

  vector(elements: readonly Written[]): Written {
    this.#prepare(4, 4 * elements.length);
    for (let i = elements.length - 1; i >= 0; i--) this.#reference(elements[i]!);
    return this.#length(elements.length);
  }

  /** Fields are written in their order here, from the table's end. */
  table(slots: number, fields: readonly Field[]): Written {
    const end = this.#offset;
    const places = new Array<number>(slots).fill(0);
    for (const field of fields) {
      if (field.value === (field.type === 'i8' ? field.absent : 0)) continue;
      this.#prepare(sizes[field.type], 0);
      this.#put(field);
      places[field.slot] = this.#offset;
    }
    this.#prepare(4, 0);
    this.#head -= 4;
    const table = this.#offset;
    while (places.at(-1) === 0) places.pop();
    const entries = [4 + 2 * places.length, table - end, ...places.map((place) => (place === 0 ? 0 : table - place))];
    const vtable = this.#vtables.findLast((known) => this.#isVtable(known, entries)) ?? this.#vtable(entries);
    this.#bytes.writeInt32LE(vtable - table, this.#bytes.length - table);
    return table as Written;
  }

  finish(root: Written): Buffer {
    this.#prepare(this.#alignment, 4);
    this.#reference(root);
    return this.#bytes.subarray(this.#head);
  }

  get #offset(): number {
    return this.#bytes.length - this.#head;
  }

  #put(field: Field): void {
    switch (field.type) {
      case 'reference':
        this.#reference(field.value);
        return;
      case 'i64':
        this.#head -= 8;
        this.#bytes.writeBigInt64LE(BigInt(field.value), this.#head);
        return;
      case 'i32':
        this.#head -= 4;
        this.#bytes.writeInt32LE(field.value, this.#head);
        return;
      case 'u32':
        this.#head -= 4;
        this.#bytes.writeUInt32LE(field.value, this.#head);
        return;
      case 'i8':
        this.#head -= 1;
        this.#bytes.writeInt8(field.value, this.#head);
    }
  }

  #reference(to: Written): void {
    this.#prepare(4, 0);
    this.#head -= 4;
    this.#bytes.writeUInt32LE(this.#offset - to, this.#head);
  }

  #length(count: number): Written {
    this.#head -= 4;
    this.#bytes.writeUInt32LE(count, this.#head);
    return this.#offset as Written;
  }

  #isVtable(known: number, entries: readonly number[]): boolean {
    const at = this.#bytes.length - known;
    return entries.every((entry, i) => this.#bytes.readUInt16LE(at + 2 * i) === entry);
  }

  #vtable(entries: readonly number[]): number {
    this.#prepare(2, 2 * entries.length);
    this.#head -= 2 * entries.length;
    entries.forEach((entry, i) => this.#bytes.writeUInt16LE(entry, this.#head + 2 * i));
    this.#vtables.push(this.#offset);
    return this.#offset;
  }

  /** Room for `more` bytes and then a value of `size`, which will be aligned; zeros in between. */
  #prepare(size: number, more: number): void {
    this.#alignment = Math.max(this.#alignment, size);
    const padding = -(this.#offset + more) & (size - 1);
    const wanted = padding + more + size + 4;
    if (this.#head < wanted) this.#grow(wanted);
    this.#head -= padding;
  }

  #grow(wanted: number): void {
    const used = this.#bytes.subarray(this.#head);
    const larger = Buffer.alloc(2 * this.#bytes.length + wanted);
    this.#head = larger.length - used.length;
    larger.set(used, this.#head);
    this.#bytes = larger;
  }
}
