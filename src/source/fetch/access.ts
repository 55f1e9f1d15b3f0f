/** How a registry is reached for one image: plain data that survives a thread, a socket and a restart. No secrets. */
import { isDeepStrictEqual } from 'node:util';

/**
 * When the registry is asked what a reference means: each time; where it was not asked before; or never. Podman's words,
 * and Docker's.
 */
export const pullPolicies = ['always', 'missing', 'never'] as const;
export type PullPolicy = (typeof pullPolicies)[number];

export interface RegistryAccess {
  /** As it is written in references, with the port. */
  readonly host: string;
  /** "library/alpine" */
  readonly repository: string;
  /** `--tls-verify`; absent: TLS unless the registry is on this machine. */
  readonly tlsVerify?: boolean | undefined;
  /** Nothing is asked of the network: what the store lacks is not there. */
  readonly offline?: boolean | undefined;
  /** Where credentials are looked for, each time that they are needed. */
  readonly places: {
    readonly authFile?: string | undefined;
    /** Of the environment, what names such places. */
    readonly env: Readonly<Record<string, string>>;
    readonly uid: number;
  };
  /** Names credentials that the user has typed. They are kept in memory only. */
  readonly credentials?: string | undefined;
}

/** "HOST/NAME": whose word it is what stands there. */
export function repositoryOf({ host, repository }: Pick<RegistryAccess, 'host' | 'repository'>): string {
  return `${host}/${repository}`;
}

/** Whether what one is told by a registry is an answer for the other, too. */
export function isSameAccess(a: RegistryAccess, b: RegistryAccess): boolean {
  return isDeepStrictEqual(a, b);
}

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
