/** Chooses where restart points stand, so that the choice depends on the stream alone and not on how it was cut. */
import type { RestartPoint } from './types.js';

/** Members and frames can be tiny (eStargz, zstd:chunked have one or more per file): bytes of output between points. */
const MEMBER_DISTANCE = 64 * 1024;

const NO_WINDOW = new Uint8Array(0);

export interface PointOptions {
  /** Least bytes of output between a point and one inside the same gzip member. */
  readonly spacing: number;
  /** Least bytes of output between a point and one at the start of a member; 64 KiB, or the spacing where that is less. */
  readonly memberSpacing?: number;
  /** Called for each point, ascending; the first is at output 0 (when there is any output). */
  readonly onPoint: (point: RestartPoint) => void;
}

export class PointCollector {
  readonly #spacing: number;
  readonly #memberSpacing: number;
  readonly #onPoint: (point: RestartPoint) => void;
  /** Where the last point is; -1 before the first. */
  #last = -1;

  constructor({ spacing, memberSpacing = Math.min(MEMBER_DISTANCE, spacing), onPoint }: PointOptions) {
    this.#spacing = spacing;
    this.#memberSpacing = memberSpacing;
    this.#onPoint = onPoint;
  }

  /** A member or frame starts. */
  member(input: number, output: number): void {
    if (this.#last >= 0 && output - this.#last < this.#memberSpacing) return;
    this.#add({ input, bits: 0, output, kind: 'member', window: NO_WINDOW });
  }

  /**
   * Bytes of output after which ends of blocks matter; 0 when they do now. One byte less than the spacing: a decoder
   * that has filled its output may or may not have seen the end of block that follows, depending on its input.
   */
  quiet(output: number): number {
    return Math.max(0, Math.max(this.#last, 0) + this.#spacing - 1 - output);
  }

  wantsBlock(output: number): boolean {
    return output - Math.max(this.#last, 0) >= this.#spacing;
  }

  block(input: number, bits: number, output: number, window: Uint8Array): void {
    this.#add({ input, bits, output, kind: 'block', window });
  }

  #add(point: RestartPoint): void {
    this.#last = point.output;
    this.#onPoint(point);
  }
}
