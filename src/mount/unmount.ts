import { errnoOf } from '../errors.js';
import { MNT_DETACH, UMOUNT_NOFOLLOW, umount2 } from '../native/mounts.js';
import { fusermountUnmount } from './fusermount.js';
import { isOrdinaryUser } from './subordinate-ids.js';

/** Unmounts what is on top at a place; `lazy`: what is busy is detached. As an ordinary user, his own FUSE mounts only. */
export async function unmount(target: string, lazy: boolean): Promise<void> {
  try {
    await umount2(target, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0));
  } catch (e) {
    if (errnoOf(e) !== 'EPERM' || !isOrdinaryUser()) throw e;
    await fusermountUnmount(target, lazy);
  }
}
