/** From a stack that fails to a small one that fails the same way. */
import type { Stack, StackEntry } from './stack.js';

/** Tries of one shrinking; each costs an image. */
const TRIES = 400;

/**
 * Drops layers, then runs of entries from halves down to single ones, then attributes, as long as `fails` holds. The
 * result does not depend on anything but its input and the answers.
 */
export async function shrink(stack: Stack, fails: (stack: Stack) => Promise<boolean>): Promise<Stack> {
  let best = stack;
  let tries = 0;
  const keeps = async (layers: Stack['layers']): Promise<boolean> => {
    if (++tries > TRIES || layers.length === 0) return false;
    const candidate = { ...best, layers };
    if (!(await fails(candidate))) return false;
    best = candidate;
    return true;
  };
  for (let size = Infinity; best !== stack || size === Infinity;) {
    for (let i = best.layers.length - 1; i >= 0; i--) await keeps(best.layers.toSpliced(i, 1));
    for (let i = best.layers.length - 1; i >= 0; i--) await shrinkLayer(i);
    const now = measure(best);
    if (now >= size) break;
    size = now;
  }
  await simplify();
  return best;

  async function shrinkLayer(i: number): Promise<void> {
    const entries = (): readonly StackEntry[] => best.layers[i] ?? [];
    for (let run = Math.ceil(entries().length / 2); run >= 1; run = run === 1 ? 0 : Math.ceil(run / 2)) {
      for (let at = entries().length - run; at > -run; at -= run) {
        const from = Math.max(at, 0);
        await keeps(best.layers.with(i, entries().toSpliced(from, at - from + run)));
      }
    }
  }

  /** Optional attributes that do not matter go, all of one entry at once first. */
  async function simplify(): Promise<void> {
    for (let i = 0; i < best.layers.length; i++) {
      for (let j = 0; j < (best.layers[i]?.length ?? 0); j++) {
        const entry = (): StackEntry => best.layers[i]?.[j] ?? { type: 'file', name: '' };
        const without = (...drop: string[]): Stack['layers'] => {
          const kept = Object.entries(entry()).filter(([name]) => !drop.includes(name));
          const smaller = { type: entry().type, name: entry().name, ...Object.fromEntries(kept) };
          return best.layers.with(i, (best.layers[i] ?? []).with(j, smaller));
        };
        const optional = Object.keys(entry()).filter((name) => !['type', 'name', 'link', 'device'].includes(name));
        if (optional.length === 0 || (await keeps(without(...optional)))) continue;
        for (const name of optional) await keeps(without(name));
      }
    }
  }
}

function measure({ layers }: Stack): number {
  return layers.reduce((sum, entries) => sum + 1 + entries.length, 0);
}
