/** Checks of what comes from a client or from a record and is defined elsewhere, without a schema. */
import { z } from 'zod';
import type { IdMap } from '../mount/id-map.js';
import type { RegistryAccess } from '../source/fetch/access.js';

const id = z.int().min(0).max(0xffff_fffe);
const ranges = z.array(z.object({ container: id, host: id, size: z.int().min(1).max(0xffff_ffff) })).readonly();

export const idMapSchema = z.object({ uid: ranges, gid: ranges }) satisfies z.ZodType<IdMap>;

export const registryAccess = z.strictObject({
  host: z.string(),
  repository: z.string(),
  tlsVerify: z.boolean().optional(),
  offline: z.boolean().optional(),
  places: z.strictObject({
    authFile: z.string().optional(),
    env: z.record(z.string(), z.string()),
    uid: z.int(),
  }),
  credentials: z.string().optional(),
}) satisfies z.ZodType<RegistryAccess>;
