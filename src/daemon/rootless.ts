/** What is different when the daemon is an ordinary user's. */
import { LaminaError } from '../errors.js';
import { userAllowOther } from '../mount/fusermount.js';
import { isOrdinaryUser, ownIds } from '../mount/subordinate-ids.js';
import type { MountRequest } from './protocol.js';

export interface AllowedRequest {
  readonly request: MountRequest;
  readonly warnings: readonly string[];
}

/**
 * What of a request this daemon's user may have. Root has what he asks for. An ordinary user gets his ids: the image's
 * root is he himself, its other users are his subordinate ones, as containers of his would have it.
 * Throws PERMISSION_DENIED for what only root can mount.
 */
export function allowedRequest(request: MountRequest): AllowedRequest {
  if (!isOrdinaryUser()) return { request, warnings: [] };
  if (request.writable !== undefined) {
    throw new LaminaError('PERMISSION_DENIED', 'Cannot mount writable: an overlay outside of containers needs root', {
      hint: '`lamina run` has a writable root; `lamina extract` makes files that are yours.',
    });
  }
  if (request.subdir !== undefined) {
    throw new LaminaError('PERMISSION_DENIED', 'Cannot mount a directory of an image: bind mounts need root', {
      hint: 'Mount all of it, and use the directory inside.',
    });
  }
  const warnings: string[] = [];
  if (!userAllowOther())
    warnings.push('only you can look into the mount: /etc/fuse.conf does not have user_allow_other');
  const { map, subordinate } = ownIds();
  if (request.idMap !== undefined) return { request, warnings };
  if (!subordinate) warnings.push(NO_SUBORDINATE_IDS);
  return { request: { ...request, idMap: map }, warnings };
}

const NO_SUBORDINATE_IDS =
  'you have no subordinate ids: what belongs to others than root in the image is shown as 65534 ' +
  '(as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER)';
