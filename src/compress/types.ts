/** Compression of a layer blob, by what its first bytes are, whatever its media type says. */
export type Compression = 'none' | 'gzip' | 'zstd';

/**
 * A place in a compressed stream from which decompression can start. `window` is the (at most 32,768) bytes of output
 * before the point that a deflate decoder needs; it is empty at the start of a gzip member or zstd frame.
 */
export interface RestartPoint {
  /** Bytes of compressed data before the point; when `bits` > 0 the byte before it is needed too. */
  readonly input: number;
  /** 0 to 7: how many high bits of the byte at `input - 1` belong to what follows. Deflate only. */
  readonly bits: number;
  /** Bytes of uncompressed data before the point. */
  readonly output: number;
  /** "member": a gzip header, zstd frame or (none) plain data follows; "block": a deflate block follows. */
  readonly kind: 'member' | 'block';
  readonly window: Uint8Array;
}

/**
 * Decompresses a whole stream once, front to back, and finds restart points on the way. All calls are synchronous.
 * Throws COMPRESSION_CORRUPT, COMPRESSION_TRUNCATED, LIMIT_EXCEEDED (a zstd window over 128 MiB); only `close` may
 * follow then.
 */
export interface StreamDecoder {
  /** Decodes `input`; `sink` gets each run of output, in a buffer that is reused after `sink` returns. */
  push(input: Uint8Array, sink: (output: Uint8Array) => void): void;
  /** Call after the last input. Throws COMPRESSION_TRUNCATED when a member or frame is not complete. */
  end(): void;
  /** Frees native memory; call it in every case. */
  close(): void;
  /** Notes for the user: "ignored 12 bytes after the last gzip member", .. */
  readonly diagnostics: readonly string[];
}

/** Compressed bytes at any place, for decoding from a restart point. Reads block. */
export interface ByteSource {
  /** Bytes. */
  readonly size: number;
  /** Fills `into` from `offset` on; returns the bytes read, fewer than asked only at the end. */
  read(offset: number, into: Uint8Array): number;
}
