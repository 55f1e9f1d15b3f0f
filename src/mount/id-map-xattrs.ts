/**
 * Ids inside extended attributes, as the kernel maps them in an idmapped mount: those of ACLs, and the root user for whom
 * a file's capabilities count (security/commoncap.c, cap_inode_getsecurity).
 */
import { mapId, OVERFLOW_ID, type IdMap } from './id-map.js';

const ACLS = ['system.posix_acl_access', 'system.posix_acl_default'];
/** linux/posix_acl_xattr.h: u32 version, then entries of u16 tag, u16 permissions, u32 id. */
const ACL_HEADER = 4;
const ACL_ENTRY = 8;
const ACL_USER = 0x02;
const ACL_GROUP = 0x08;

const CAPABILITY = 'security.capability';
/** linux/capability.h: u32 magic with the revision, the sets, and in revision 3 the u32 id of the root user. */
const REVISION_MASK = 0xff00_0000;
const REVISION_2 = 0x0200_0000;
const REVISION_3 = 0x0300_0000;
const SIZE_2 = 20;
const SIZE_3 = 24;

/** Undefined where nobody whom the map knows could use the attribute. */
export function mapXattr(map: IdMap, name: string, value: Uint8Array): Uint8Array | undefined {
  if (ACLS.includes(name)) return mapAcl(map, value);
  return name === CAPABILITY ? mapCapability(map, value) : value;
}

/** Entries for whom the map does not know are left out: there they are nobody's. */
function mapAcl({ uid, gid }: IdMap, value: Uint8Array): Uint8Array {
  const bytes = Buffer.from(value);
  const kept = [bytes.subarray(0, ACL_HEADER)];
  for (let at = ACL_HEADER; at + ACL_ENTRY <= bytes.length; at += ACL_ENTRY) {
    const tag = bytes.readUInt16LE(at);
    if (tag === ACL_USER || tag === ACL_GROUP) {
      const mapped = mapId(tag === ACL_USER ? uid : gid, bytes.readUInt32LE(at + 4));
      if (mapped === OVERFLOW_ID) continue;
      bytes.writeUInt32LE(mapped, at + 4);
    }
    kept.push(bytes.subarray(at, at + ACL_ENTRY));
  }
  return Buffer.concat(kept);
}

/**
 * Capabilities without an owner are those of root: they become those of the user that root is shown as, and count in
 * user namespaces that are his. Otherwise a program of the image would be privileged on the host.
 */
function mapCapability({ uid }: IdMap, value: Uint8Array): Uint8Array | undefined {
  const bytes = Buffer.from(value);
  if (bytes.length < SIZE_2) return value;
  const magic = bytes.readUInt32LE(0);
  const revision = (magic & REVISION_MASK) >>> 0;
  if (revision !== REVISION_2 && (revision !== REVISION_3 || bytes.length < SIZE_3)) return value;
  const root = mapId(uid, revision === REVISION_3 ? bytes.readUInt32LE(SIZE_2) : 0);
  if (root === OVERFLOW_ID) return undefined;
  const mapped = Buffer.alloc(root === 0 ? SIZE_2 : SIZE_3);
  bytes.copy(mapped, 0, 0, SIZE_2);
  mapped.writeUInt32LE(((magic & ~REVISION_MASK) | (root === 0 ? REVISION_2 : REVISION_3)) >>> 0, 0);
  if (root !== 0) mapped.writeUInt32LE(root, SIZE_2);
  return mapped;
}
