/** Which extended attributes of a layer reach its tree, and which would harm whoever mounts it. */
import { LaminaError } from '../errors.js';
import { XATTR_VALUE_MAX } from '../erofs/layout.js';
import { S_IFDIR, S_IFMT, S_IFREG } from '../erofs/tree.js';
import { printable, type Notes } from '../tar/notes.js';

/** Bytes; limits.h XATTR_NAME_MAX and XATTR_LIST_MAX. */
const NAME_MAX = 255;
const LIST_MAX = 65536;

/** Security modules label files by their own policy; labels of the machine that built the image mean nothing here. */
const HOST_LABELS = /^security\.(?:selinux|ima|evm|apparmor|SMACK.*)$/;

/** The attributes of one entry that are kept; undefined for none. `mode` has the type bits. Throws METADATA_INVALID. */
export function keptXattrs(
  xattrs: ReadonlyMap<string, Buffer>,
  mode: number,
  path: string,
  notes: Notes,
): Map<string, Buffer> | undefined {
  if (xattrs.size === 0) return undefined;
  const kept = new Map<string, Buffer>();
  let list = 0;
  for (const [name, value] of xattrs) {
    const reason = whyDropped(name, mode & S_IFMT);
    if (reason !== undefined) {
      notes.add(reason, path);
      continue;
    }
    list += name.length + 1;
    if (name.length > NAME_MAX || value.length > XATTR_VALUE_MAX || list > LIST_MAX || name.includes('\0')) {
      throw new LaminaError(
        'METADATA_INVALID',
        `The extended attributes of ${printable(path)} are larger than Linux allows`,
        {
          details: { xattr: name.slice(0, 100), bytes: value.length },
        },
      );
    }
    kept.set(name, value);
  }
  return kept.size === 0 ? undefined : kept;
}

/** trusted.overlay.* and user.overlay.* would be obeyed by an overlayfs that has our mount as its lower directory. */
function whyDropped(name: string, type: number): string | undefined {
  if (name.startsWith('trusted.')) return 'a trusted.* attribute is dropped';
  if (name.startsWith('user.overlay.')) return 'a user.overlay.* attribute is dropped';
  if (HOST_LABELS.test(name)) return "a label of the build machine's security module is dropped";
  if (name.startsWith('user.') && name.length > 5) {
    return type === S_IFREG || type === S_IFDIR
      ? undefined
      : 'a user.* attribute on neither file nor directory is dropped';
  }
  if (name.startsWith('security.') && name.length > 9) return undefined;
  if (name === 'system.posix_acl_access' || name === 'system.posix_acl_default') return undefined;
  return 'an attribute outside of the known namespaces is dropped';
}
