/** How a registry is reached for one image: plain data that survives a thread, a socket and a restart. No secrets. */
import { z } from 'zod';

export const registryAccess = z.strictObject({
  /** As it is written in references, with the port. */
  host: z.string(),
  /** "library/alpine" */
  repository: z.string(),
  /** `--tls-verify`; absent: TLS unless the registry is on this machine. */
  tlsVerify: z.boolean().optional(),
  /** Nothing is asked of the network: what the store lacks is not there. */
  offline: z.boolean().optional(),
  /** Where credentials are looked for, each time that they are needed. */
  places: z.strictObject({
    authFile: z.string().optional(),
    /** Of the environment, what names such places. */
    env: z.record(z.string(), z.string()),
    uid: z.int(),
  }),
  /** Names credentials that the user has typed. They are kept in memory only. */
  credentials: z.string().optional(),
});
export type RegistryAccess = z.infer<typeof registryAccess>;

/** The variables that say where credentials are (containers-auth.json(5), docker login, docker-credential-helpers). */
const PLACES = ['HOME', 'PATH', 'DOCKER_CONFIG', 'REGISTRY_AUTH_FILE', 'XDG_CONFIG_HOME', 'XDG_RUNTIME_DIR'];

/** `authFile`: `--authfile`, absolute. */
export function placesOf(
  env: NodeJS.ProcessEnv,
  { authFile, uid }: { readonly authFile?: string | undefined; readonly uid: number },
): RegistryAccess['places'] {
  const places: Record<string, string> = {};
  for (const name of PLACES) if (env[name] !== undefined) places[name] = env[name];
  return { ...(authFile === undefined ? {} : { authFile }), env: places, uid };
}
