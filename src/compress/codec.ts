/** What differs between gzip and zstd: how one member or frame is recognised and decoded, step by step. */
import type { ErrorCode } from '../errors.js';
import type { RestartPoint } from './types.js';

/**
 * "more": go on; "end": the member is complete and its checksum right; "block": stopped between two blocks;
 * "failed": see {@link Codec.failure}.
 */
export type StepResult = 'more' | 'end' | 'block' | 'failed';

export interface Failure {
  readonly code: ErrorCode;
  /** The decoder's words. */
  readonly reason: string;
  readonly hint?: string;
}

export interface Codec {
  /** "gzip member", "zstd frame". */
  readonly unit: string;
  /** Bytes by which a start is recognised. */
  readonly magicLength: number;
  /** Whether the `length` bytes of `bytes` at `at` are a magic, or, when shorter, the beginning of one. */
  isMagic(bytes: Uint8Array, at: number, length: number): boolean;
  /** Whether the member whose whole magic stands at `at` has output; a skippable frame has none. */
  holdsData(bytes: Uint8Array, at: number): boolean;

  /** Prepares for a member whose magic comes next. */
  begin(): void;
  /** Prepares for the blocks after `point`; `previous` is the byte at `point.input - 1` (0 when no bits of it count). */
  resume(point: RestartPoint, previous: number): void;

  /** Where {@link step} puts output, from its start. */
  readonly output: Buffer;
  /** Bytes of input used by the last {@link step}. */
  readonly consumed: number;
  /** Bytes of output made by the last {@link step}. */
  readonly produced: number;
  /** Decodes `input` from `from` on, at most `room` bytes of output. */
  step(input: Uint8Array, from: number, room: number, stopAtBlock: boolean): StepResult;
  readonly failure: Failure;

  /** After "block": how many high bits of the last byte used belong to what follows. */
  readonly unusedBits: number;
  /** After "block": a copy of the output that what follows can refer to. */
  window(): Uint8Array;

  /** Bytes of native memory. */
  readonly memory: number;
  close(): void;
}
