export { digestBytes, digestFileName, parseDigest, type Digest } from './form.js';
export { createHasher, digestOf, sha256, type Hasher } from './hash.js';
