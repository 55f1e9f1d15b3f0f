/** Tests that need what not every machine has. */
import type { Test } from 'tap';
import { machineLimits, type MachineLimit } from './machine-limits.js';

/**
 * True when the test cannot run here and has been marked so; the caller returns. Call it before the first assertion:
 *
 *     if (skipUnless(t, isRoot, 'mounting needs root')) return;
 *
 * Under LAMINA_CI=1 the test fails instead, unless `limit` names an entry of machine-limits.ts.
 */
export function skipUnless(t: Test, condition: boolean, reason: string, limit?: MachineLimit): boolean {
  if (condition) return false;
  if (limit !== undefined) t.plan(0, `[${limit}] ${reason}: ${machineLimits[limit]}`);
  else if (process.env['LAMINA_CI'] === '1') t.fail(`must not be skipped here: ${reason}`);
  else t.plan(0, reason);
  return true;
}

export const isRoot = process.geteuid?.() === 0;
