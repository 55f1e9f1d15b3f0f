/**
 * Everything that reads bytes of strangers, as functions of these bytes. A target returns its answer as text whose first
 * word names the kind of answer, or throws a LaminaError; anything else that it throws is a find.
 */
import { createHash } from 'node:crypto';
import { unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { temporaryPrefix } from '../../scripts/leftovers.js';
import { LaminaError } from '../../src/errors.js';
import { decodeChunks } from '../../src/layer/chunks.js';
import { LayerMap } from '../../src/layer/map.js';
import { PaxRecords } from '../../src/tar/pax.js';
import { parsePaxMap, paxSparseVersion } from '../../src/tar/sparse.js';
import { compressionTargets } from './compression-targets.js';
import { documentTargets } from './document-targets.js';
import { erofsTargets } from './erofs-targets.js';
import { registryTargets } from './registry-targets.js';
import { sociTargets } from './soci-targets.js';
import { tarTargets } from './tar-targets.js';
import { sum, words } from './words.js';

export interface Target {
  /** Of its corpus too. */
  readonly name: string;
  readonly run: (bytes: Buffer) => string;
  /** Words and magic numbers of the format. */
  readonly dictionary: readonly Uint8Array[];
  /** Makes checksums right again, so that what they protect is looked at: a new input from one that was mutated. */
  readonly repair?: (bytes: Buffer) => Buffer;
  /** Bytes of an input. */
  readonly most?: number;
  /** The input goes through a file, so there is nothing around it. */
  readonly once?: boolean;
  /** Inputs in a test run: some two seconds of them. */
  readonly runs: number;
}

const paxKeys = ['path', 'size', 'uid', 'mtime', 'GNU.sparse.map', 'GNU.sparse.realsize', 'GNU.sparse.name'];

const pax: Target = {
  name: 'pax',
  runs: 15_000,
  dictionary: words(
    '18 path=some/name\n',
    '10 uid=77\n',
    '28 mtime=1700000000.123456\n',
    ' SCHILY.xattr.user.a=',
    'GNU.sparse.offset=0\n',
    'GNU.sparse.numbytes=',
    'GNU.sparse.map=0,1,2',
    '=',
    '\n',
    '\0',
  ),
  run(bytes) {
    const records = new PaxRecords(bytes, 512);
    const values = paxKeys.map((key) => records.get(key));
    values.push(String(records.integer('size', 0)), JSON.stringify(records.time('mtime', 0)));
    const version = paxSparseVersion(records);
    if (version === '0.x') values.push(parsePaxMap(records, 0).join());
    return `records-${records.xattrs.size} ${JSON.stringify([values, [...records.xattrs]])}`;
  },
};

/** With the SHA-256 of what is before in the last 32 bytes. */
function sealed(bytes: Buffer): Buffer {
  const body = bytes.subarray(0, Math.max(bytes.length - 32, 0));
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

/** A map is read from a file; this one has no name any more when it is returned. */
function openMap(bytes: Buffer): LayerMap {
  const path = join(tmpdir(), `${temporaryPrefix('fuzz')}map`);
  writeFileSync(path, bytes);
  try {
    const opened = LayerMap.open(path);
    if (opened === undefined) throw new Error(`${path} is gone`);
    return opened;
  } finally {
    unlinkSync(path);
  }
}

const map: Target = {
  name: 'map',
  runs: 12_000,
  dictionary: words('LAMMAP01', 'sha256:', 'sha512:', 'blake3:', '[]', '["note"]'),
  repair: sealed,
  run(bytes) {
    const decoded = openMap(bytes);
    const orderly = decoded.isOrderly({ output: 1e7, input: 1e7 });
    const answers: string[] = [JSON.stringify(decoded.facts), String(orderly)];
    for (let i = 0; i < Math.min(decoded.count, 50); i++) {
      answers.push(`${decoded.output(i)} ${decoded.find(decoded.output(i))}`);
      try {
        const { input, bits, kind, window } = decoded.point(i);
        answers.push(`${input} ${bits} ${kind} ${sum(window)}`);
      } catch (e) {
        if (!(e instanceof LaminaError)) throw e;
        answers.push(e.code);
      }
    }
    decoded.close();
    return `map-${Math.min(decoded.count, 3)} ${sum(answers.join('\n'))}`;
  },
};

const chunks: Target = {
  name: 'chunks',
  runs: 12_000,
  dictionary: words('LAMCHNK1'),
  repair: sealed,
  run(bytes) {
    const decoded = decodeChunks(bytes, 'chunks');
    if (decoded.digests.length !== Math.ceil(decoded.addressSpace / 65_536) * 32)
      throw new Error('digests are missing');
    return `chunks-${Math.min(decoded.copies.length, 3)} ${sum(JSON.stringify(decoded))}`;
  },
};

/** By name; see each for what it covers. */
export const targets: readonly Target[] = [
  ...tarTargets,
  pax,
  ...compressionTargets,
  ...erofsTargets,
  map,
  chunks,
  ...documentTargets,
  ...registryTargets,
  ...sociTargets,
];
