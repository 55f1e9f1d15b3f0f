/** Checks of what comes from a client or from a record and is defined elsewhere, without a schema. */
import { z } from 'zod';
import type { RuntimeOptions } from '../bundle/runtime-config.js';
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

const absolute = z.string().startsWith('/').max(4095);

const strings = z.array(z.string()).readonly();

export const runtimeOptions = z.strictObject({
  readonlyRootfs: z.boolean(),
  terminal: z.boolean(),
  args: strings.optional(),
  fallback: strings.optional(),
  env: strings.optional(),
  volumes: z
    .array(z.strictObject({ source: absolute, destination: absolute, readonly: z.boolean() }))
    .readonly()
    .optional(),
  hostname: z.string().optional(),
  workdir: z.string().optional(),
  user: z.string().optional(),
  rootless: z.strictObject({ map: idMapSchema, namespace: z.enum(['new', 'inside']) }).optional(),
}) satisfies z.ZodType<RuntimeOptions>;
