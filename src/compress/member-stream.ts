/**
 * A stream of members (gzip) or frames (zstd) one after the other:
 *
 *     magic -> member -> magic -> member -> .. -> tail
 *                ^ a restart inside a member begins here
 */
import { LaminaError } from '../errors.js';
import type { Codec } from './codec.js';
import type { PointCollector } from './points.js';
import { Tail } from './tail.js';
import type { RestartPoint, StreamDecoder } from './types.js';

export type Sink = (output: Uint8Array) => void;

export class MemberStream implements StreamDecoder {
  readonly #codec: Codec;
  readonly #collector: PointCollector | undefined;
  readonly #head: Uint8Array;
  readonly #tail = new Tail();
  #headLength = 0;
  #state: 'magic' | 'member' | 'tail' = 'magic';
  /** Whether a member has been seen: what follows the last may be anything, what stands first may not. */
  #started = false;
  /** Bytes of the compressed stream given to the codec. */
  #input = 0;
  #output = 0;

  /** Without a collector no restart points are noted. */
  constructor(codec: Codec, collector?: PointCollector) {
    this.#codec = codec;
    this.#collector = collector;
    this.#head = new Uint8Array(codec.magicLength);
  }

  get diagnostics(): readonly string[] {
    return this.#tail.diagnostics(this.#codec.unit);
  }

  /** Bytes of output so far; {@link start} sets it to 0. */
  get output(): number {
    return this.#output;
  }

  /** Whether the last member has ended and something else was seen after it. */
  get finished(): boolean {
    return this.#state === 'tail';
  }

  /** Starts anew at `point`. */
  start(point: RestartPoint, previous: number): void {
    this.#input = point.input;
    this.#output = 0;
    this.#headLength = 0;
    this.#tail.clear();
    this.#started = point.kind === 'block';
    this.#state = this.#started ? 'member' : 'magic';
    if (this.#started) this.#codec.resume(point, previous);
  }

  /** As {@link StreamDecoder.push}; stops once there are `limit` bytes of output in all. */
  push(input: Uint8Array, sink: Sink, limit = Infinity): void {
    let at = 0;
    while (at < input.length && this.#output < limit) {
      switch (this.#state) {
        case 'magic':
          at = this.#matchMagic(input, at, sink, limit);
          break;
        case 'member':
          at = this.#decode(input, at, sink, limit);
          break;
        case 'tail':
          this.#tail.push(input.subarray(at));
          return;
      }
    }
  }

  end(): void {
    if (this.#state === 'tail') return;
    const partial = this.#headLength > 0 && this.#codec.isMagic(this.#head, 0, this.#headLength);
    if (this.#state === 'member' || !this.#started || partial) {
      const where = this.#input + this.#headLength;
      throw new LaminaError(
        'COMPRESSION_TRUNCATED',
        `The compressed data ends inside a ${this.#codec.unit}, at byte ${where}`,
        { hint: 'The download or copy of this layer is not complete.', details: { offset: where } },
      );
    }
    this.#tail.push(this.#head.subarray(0, this.#headLength));
    this.#state = 'tail';
  }

  close(): void {
    this.#codec.close();
  }

  /** Bytes of native memory in use. */
  get memory(): number {
    return this.#codec.memory;
  }

  /** Returns where in `input` to go on: the magic itself is not used up unless it came in pieces. */
  #matchMagic(input: Uint8Array, at: number, sink: Sink, limit: number): number {
    const { magicLength } = this.#codec;
    if (this.#headLength === 0 && input.length - at >= magicLength) {
      if (this.#codec.isMagic(input, at, magicLength)) this.#begin(input, at);
      else this.#endOfMembers();
      return at;
    }
    const taken = Math.min(magicLength - this.#headLength, input.length - at);
    this.#head.set(input.subarray(at, at + taken), this.#headLength);
    this.#headLength += taken;
    if (this.#headLength < magicLength) return at + taken;
    this.#headLength = 0;
    if (this.#codec.isMagic(this.#head, 0, magicLength)) {
      this.#begin(this.#head, 0);
      this.#decode(this.#head, 0, sink, limit);
    } else {
      this.#endOfMembers();
      this.#tail.push(this.#head);
    }
    return at + taken;
  }

  #begin(bytes: Uint8Array, at: number): void {
    if (this.#codec.holdsData(bytes, at)) this.#collector?.member(this.#input, this.#output);
    this.#codec.begin();
    this.#started = true;
    this.#state = 'member';
  }

  #endOfMembers(): void {
    if (!this.#started) throw this.#corrupt(`no ${this.#codec.unit} starts here`);
    this.#state = 'tail';
  }

  /** Decodes until the input is used up, the member ends or the limit is reached; returns where `input` goes on. */
  #decode(input: Uint8Array, from: number, sink: Sink, limit: number): number {
    const codec = this.#codec;
    const collector = this.#collector;
    let at = from;
    for (;;) {
      const quiet = collector === undefined ? Infinity : collector.quiet(this.#output);
      const stopAtBlock = quiet === 0;
      const room = Math.min(codec.output.length, limit - this.#output, stopAtBlock ? Infinity : quiet);
      if (room === 0) return at;
      const result = codec.step(input, at, room, stopAtBlock);
      const { produced } = codec;
      at += codec.consumed;
      this.#input += codec.consumed;
      this.#output += produced;
      if (produced > 0) sink(codec.output.subarray(0, produced));
      switch (result) {
        case 'block':
          if (collector?.wantsBlock(this.#output) === true) {
            collector.block(this.#input, codec.unusedBits, this.#output, codec.window());
          }
          break;
        case 'end':
          this.#state = 'magic';
          return at;
        case 'failed':
          throw this.#failure();
        case 'more':
          if (at === input.length && produced < room) return at;
      }
    }
  }

  #failure(): LaminaError {
    const { code, reason, hint } = this.#codec.failure;
    if (code === 'COMPRESSION_CORRUPT') return this.#corrupt(reason);
    return new LaminaError(code, `Cannot decompress the ${this.#codec.unit} at byte ${this.#input}: ${reason}`, {
      hint,
      details: { offset: this.#input },
    });
  }

  #corrupt(reason: string): LaminaError {
    return new LaminaError(
      'COMPRESSION_CORRUPT',
      `Cannot decompress the layer at byte ${this.#input} of its compressed data: ${reason}`,
      { hint: 'The blob is damaged; fetch or copy it again.', details: { offset: this.#input } },
    );
  }
}
