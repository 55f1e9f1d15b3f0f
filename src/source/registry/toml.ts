/** TOML files of the administrator. */
import { readFileSync } from 'node:fs';
import { parse } from 'smol-toml';
import type { z } from 'zod';
import { LaminaError, errnoOf, toLaminaError } from '../../errors.js';

/** Undefined where there is no file. Throws CONFIG_INVALID with the line, PERMISSION_DENIED, IO. */
export function readToml<T>(path: string, schema: z.ZodType<T>): T | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (e) {
    if (errnoOf(e) === 'ENOENT' || errnoOf(e) === 'ENOTDIR') return undefined;
    throw toLaminaError(e, 'Cannot read the configuration of registries');
  }
  let document: unknown;
  try {
    document = parse(text);
  } catch (e) {
    // The first line says what is wrong; those that follow quote the file, which may have secrets.
    const [why = ''] = e instanceof Error ? e.message.split('\n') : [];
    const line = e instanceof Error && 'line' in e && typeof e.line === 'number' ? `, line ${e.line}` : '';
    throw invalid(path, `${line}: ${why}`);
  }
  const result = schema.safeParse(document);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw invalid(path, `: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
}

function invalid(path: string, why: string): LaminaError {
  return new LaminaError('CONFIG_INVALID', `${path} is not well formed${why}`, {
    hint: 'Correct the file, or move it away.',
    details: { path },
  });
}
