/** What the user says about an image, before anything of the image is read. */
import { resolve } from 'node:path';
import type { ImageRequestInput } from '../daemon/protocol.js';
import { isRemote, parseSyntax, type Reference } from '../source/reference.js';
import type { Context } from './context.js';
import type { ImageOptions, TreeOptions } from './options.js';
import { registryRequest } from './registry-options.js';

/** The reference that IMAGE means. Says on stderr what was chosen where the user did not. */
export async function referenceOf(context: Context, text: string): Promise<Reference> {
  const { cwd } = context;
  const parsed = parseSyntax(text, cwd);
  // What reads archives is not loaded for nothing.
  const reference = parsed.kind === 'path' ? (await import('../source/sniff.js')).sniffed(parsed, text, cwd) : parsed;
  if (!text.startsWith(reference.text.slice(0, reference.text.indexOf(':') + 1)))
    context.out.note(`${text} is ${reference.text}`);
  return reference;
}

/** Directories, absolute: those of `--aci-path`, else of LAMINA_ACI_PATH, where colons are between them. */
export function aciPathOf({ cwd, env }: Context, { aciPath }: ImageOptions): string[] {
  const directories = aciPath ?? (env['LAMINA_ACI_PATH'] ?? '').split(':').filter((directory) => directory !== '');
  return directories.map((directory) => resolve(cwd, directory));
}

/** The same as the daemon takes it. */
export async function imageRequestOf(context: Context, text: string, options: TreeOptions): Promise<ImageRequestInput> {
  const { platform, compat } = options;
  const reference = await referenceOf(context, text);
  const aciPath = aciPathOf(context, options);
  return {
    reference: reference.text,
    ...(isRemote(reference) ? { registry: registryRequest(context, options) } : {}),
    ...(platform === undefined ? {} : { platform }),
    ...(aciPath.length === 0 ? {} : { aciPath }),
    ...(compat === undefined ? {} : { compat }),
  };
}
