/**
 * JSON from elsewhere: bytes whose digest has been checked where there is one, and which nobody has looked into. Size and
 * shape are capped before JSON.parse sees them, and no error quotes them: the file may be one that the user cannot read.
 */
import { z } from 'zod';
import { LaminaError, type ErrorCode } from '../errors.js';
import { tooLarge } from './limits.js';

/** Levels of objects and arrays; the documents of the specification have 6. */
const DEPTH_LIMIT = 64;
/** Values in one document: each that the schema refuses costs a kilobyte. The largest indexes and configs have some 10,000. */
const VALUES_LIMIT = 200_000;

/** What a document is called in messages ("the config") and the code for when it is not well formed. */
export interface DocumentKind {
  readonly what: string;
  readonly code: ErrorCode;
  /** Bytes. */
  readonly limit: number;
}

/** Throws LIMIT_EXCEEDED, or the kind's code when the bytes are not UTF-8, not JSON or not what `schema` says. */
export function parseJson<T>(bytes: Uint8Array, schema: z.ZodType<T>, { what, code, limit }: DocumentKind): T {
  if (bytes.length > limit) throw tooLarge(what, bytes.length, limit);
  const { depth, values } = measure(bytes);
  if (depth > DEPTH_LIMIT) {
    throw new LaminaError('LIMIT_EXCEEDED', `${what} is nested deeper than ${DEPTH_LIMIT} levels`);
  }
  if (values > VALUES_LIMIT) {
    throw new LaminaError('LIMIT_EXCEEDED', `${what} has more than ${VALUES_LIMIT} values`);
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    throw new LaminaError(code, `${what} is not JSON`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue === undefined || issue.path.length === 0 ? '' : ` at ${issue.path.join('.').slice(0, 200)}`;
  throw new LaminaError(code, `${what} is not well formed${where}: ${issue?.message ?? ''}`);
}

/** The deepest nesting and the number of values, as far as brackets and commas outside strings tell. */
function measure(bytes: Uint8Array): { depth: number; values: number } {
  let depth = 0;
  let deepest = 0;
  let values = 1;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const b = bytes[i];
    if (inString) {
      if (b === 0x5c) i++;
      else if (b === 0x22) inString = false;
    } else if (b === 0x22) {
      inString = true;
    } else if (b === 0x7b || b === 0x5b) {
      depth++;
      values++;
      if (depth > deepest) deepest = depth;
    } else if (b === 0x7d || b === 0x5d) {
      depth--;
    } else if (b === 0x2c) {
      values++;
    }
  }
  return { depth: deepest, values };
}

/** An optional property, for which null means absent too (image-spec config.md). */
export function optional<T extends z.ZodType>(schema: T): z.ZodType<z.output<T> | undefined> {
  return schema.nullish().transform((value) => value ?? undefined);
}

export const stringMap = z.record(z.string(), z.string());
