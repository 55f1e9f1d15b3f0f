/** All cases, in the order of their ids' letters: T, Z, W, P, M, U. */
import type { Case } from './case.js';
import { compressionCases } from './compression.js';
import { hostileCases } from './hostile.js';
import { metadataCases } from './metadata.js';
import { pathCases } from './paths.js';
import { tarCases } from './tar.js';
import { unionCases } from './union.js';

export const cases: readonly Case[] = [
  ...tarCases,
  ...compressionCases,
  ...unionCases,
  ...pathCases,
  ...metadataCases,
  ...hostileCases,
];
