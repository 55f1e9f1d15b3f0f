/**
 * Media types of the documents and blobs of an image: OCI's (image-spec media-types.md) and Docker's, which mean the same
 * (distribution manifest-v2-2.md).
 */

const manifests = new Set([
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
]);

const indexes = new Set([
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
]);

const configs = new Set(['application/vnd.oci.image.config.v1+json', 'application/vnd.docker.container.image.v1+json']);

/** Docker's first manifests, which name no diffIDs. */
const schema1 = new Set([
  'application/vnd.docker.distribution.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v1+prettyjws',
]);

/** A Docker layer: says nothing sure about its compression. */
export const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar';

const LAYER =
  /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs(?:\.foreign)?\.diff\.tar(?:\.gzip|\.zstd)?)$/;

export const isManifestType = (mediaType: string): boolean => manifests.has(mediaType);
export const isIndexType = (mediaType: string): boolean => indexes.has(mediaType);
export const isConfigType = (mediaType: string): boolean => configs.has(mediaType);
export const isSchema1Type = (mediaType: string): boolean => schema1.has(mediaType);
/** A tar, however compressed and whether or not it may be distributed. */
export const isLayerType = (mediaType: string): boolean => LAYER.test(mediaType);
/** A layer encrypted by ocicrypt. */
export const isEncryptedType = (mediaType: string): boolean => mediaType.endsWith('+encrypted');
