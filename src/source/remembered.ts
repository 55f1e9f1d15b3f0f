/** What a reference meant when it was last looked up: `refs/` of the store. */
import { readFileSync } from 'node:fs';
import type { z } from 'zod';
import { sha256 } from '../digest/index.js';
import type { Store } from '../store/store.js';

interface Meaning {
  readonly reference: string;
}

/** Undefined where it was not looked up. One that cannot be read is as good as none. */
export function recall<T extends Meaning>(store: Store, schema: z.ZodType<T>, reference: string): T | undefined {
  try {
    const found = schema.parse(JSON.parse(readFileSync(pathOf(store, reference), 'utf8')));
    return found.reference === reference ? found : undefined;
  } catch {
    return undefined;
  }
}

/** Throws what {@link Store.keep} throws. */
export function remember(store: Store, meaning: Meaning): void {
  store.keep(pathOf(store, meaning.reference), [Buffer.from(JSON.stringify(meaning))]);
}

function pathOf(store: Store, reference: string): string {
  return store.refPath(sha256(Buffer.from(reference)).toString('hex'));
}
