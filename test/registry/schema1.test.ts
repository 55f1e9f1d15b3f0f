/** Manifests of Docker schema 1: one that skopeo makes and signs, and others by hand. */
import { execFileSync } from 'node:child_process';
import t from 'tap';
import { parseDigest } from '../../src/digest/index.js';
import { parseConfig } from '../../src/oci/config.js';
import { RegistryClient } from '../../src/source/registry/client.js';
import { convertSchema1, signedPayload, withDiffIds } from '../../src/source/registry/schema1.js';
import { commandExists } from '../support/commands.js';
import { codeOf } from '../support/failure.js';
import { digest, makeLayout } from '../support/images.js';
import { push, startRegistry } from '../support/registry.js';
import { skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

t.test('convertSchema1 reads what skopeo has signed and pushed', async (t) => {
  if (skipUnless(t, commandExists('docker-registry') && commandExists('skopeo'), 'needs docker-registry and skopeo'))
    return;
  const { host } = await startRegistry(t, { schema1: true });
  const created = '2020-01-02T03:04:05Z';
  const history = [
    { created, created_by: 'ADD a' },
    { created, created_by: 'ENV A=b', empty_layer: true },
    { created, created_by: 'ADD b' },
  ];
  const image = await makeLayout(tempDir(t), {
    layers: [{ entries: [{ name: 'a', content: 'x' }] }, { entries: [{ name: 'b', content: 'y' }] }],
    config: { Cmd: ['sh'], Env: ['A=b'], User: 'me' },
    document: { created, author: 'somebody', history },
  });
  push(image.reference, host, 'old:one', ['--format', 'v2s1']);
  const client = new RegistryClient({ host });
  t.teardown(() => client.close());
  const manifest = await client.manifest('old', 'one');
  t.equal(manifest.mediaType, 'application/vnd.docker.distribution.manifest.v1+prettyjws');
  const inspected = execFileSync('skopeo', ['inspect', '--tls-verify=false', `docker://${host}/old:one`], {
    encoding: 'utf8',
  });
  const { Digest, Layers } = JSON.parse(inspected) as { Digest: string; Layers: string[] };
  t.equal(manifest.digest, Digest, 'the digest is of what is signed');
  t.not(manifest.digest, digest(manifest.bytes));
  t.equal((await client.manifest('old', Digest)).digest, Digest);

  const converted = convertSchema1(manifest.bytes);
  t.strictSame(
    converted.layers,
    image.layers.map(({ descriptor }) => descriptor.digest),
  );
  t.strictSame(converted.layers, Layers.slice(0, 1).concat(Layers.slice(-1)), 'without the empty one in between');
  const config = parseConfig(
    withDiffIds(
      converted,
      image.layers.map(({ diffId }) => parseDigest(diffId)),
    ),
  );
  t.match(config, {
    os: 'linux',
    cmd: ['sh'],
    env: ['A=b'],
    user: 'me',
    author: 'somebody',
    created,
    // containers/image does not keep the command of the newest.
    history: [{ createdBy: 'ADD a' }, { createdBy: 'ENV A=b', emptyLayer: true }, { emptyLayer: false }],
    diffIds: image.layers.map(({ diffId }) => diffId),
  });
});

const id = (n: number): string => String(n).repeat(64);
const sum = (n: number): string => `sha256:${id(n)}`;

interface V1 {
  readonly layer: number;
  readonly v1: Record<string, unknown>;
}

/** The newest first. */
function manifestOf(entries: readonly V1[], extra: object = {}): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 1,
      name: 'a',
      tag: 'b',
      architecture: 'amd64',
      fsLayers: entries.map(({ layer }) => ({ blobSum: sum(layer) })),
      history: entries.map(({ v1 }) => ({ v1Compatibility: JSON.stringify(v1) })),
      ...extra,
    }),
  );
}

const base = { layer: 1, v1: { id: id(1), created: '2020-01-01T00:00:00Z', container_config: { Cmd: ['ADD', 'x'] } } };
const empty = { layer: 2, v1: { id: id(2), parent: id(1), throwaway: true, author: 'me', comment: 'why' } };
const top = {
  layer: 3,
  v1: { id: id(3), parent: id(2), os: 'linux', architecture: 'arm64', config: { Cmd: ['x'] }, Size: 5, parent_id: 'p' },
};

t.test('convertSchema1 puts the oldest first and leaves out what changed nothing', async (t) => {
  t.strictSame(convertSchema1(manifestOf([top, empty, base])), {
    layers: [sum(1), sum(3)],
    config: {
      os: 'linux',
      architecture: 'arm64',
      config: { Cmd: ['x'] },
      history: [
        { created: '2020-01-01T00:00:00Z', created_by: 'ADD x' },
        { author: 'me', comment: 'why', empty_layer: true },
        {},
      ],
    },
  });
  const twice = [{ ...base, layer: 9 }, { ...base, layer: 8 }, base];
  t.strictSame(convertSchema1(manifestOf(twice)).layers, [sum(1)], 'of one id several times in a row the oldest');
});

t.test('convertSchema1 refuses what is no chain', async (t) => {
  const wrong: [string, Buffer][] = [
    ['a parent that is not there', manifestOf([{ ...top, v1: { ...top.v1, parent: id(7) } }, empty, base])],
    ['a base with a parent', manifestOf([{ ...base, v1: { ...base.v1, parent: id(7) } }])],
    ['a circle', manifestOf([{ layer: 1, v1: { id: id(1), parent: id(2) } }, empty, base])],
    ['an id that is none', manifestOf([{ layer: 1, v1: { id: '../x' } }])],
    ['no id', manifestOf([{ layer: 1, v1: {} }])],
    ['more layers than history', manifestOf([base], { fsLayers: [{ blobSum: sum(1) }, { blobSum: sum(2) }] })],
    ['no layers', manifestOf([])],
    ['another version', manifestOf([base], { schemaVersion: 2 })],
    ['history that is no JSON', manifestOf([base], { history: [{ v1Compatibility: '{' }] })],
    ['nothing', Buffer.from('{}')],
  ];
  for (const [what, bytes] of wrong)
    t.equal(
      codeOf(() => convertSchema1(bytes)),
      'MANIFEST_INVALID',
      what,
    );
  const noDigest = manifestOf([base], { fsLayers: [{ blobSum: 'x' }] });
  t.equal(
    codeOf(() => convertSchema1(noDigest)),
    'DIGEST_INVALID',
  );
  t.equal(
    codeOf(() => withDiffIds(convertSchema1(manifestOf([base])), [])),
    'MANIFEST_INVALID',
  );
});

t.test('signedPayload is what was signed, and nothing else of a document is read', async (t) => {
  const payload = manifestOf([base]);
  const sign = (formatLength: number, formatTail: string): string =>
    Buffer.from(JSON.stringify({ formatLength, formatTail })).toString('base64url');
  const signed = (header: string, more = ''): Buffer =>
    Buffer.concat([payload.subarray(0, -1), Buffer.from(`${more},"signatures":[{"protected":"${header}"}]}`)]);
  const tail = Buffer.from('}').toString('base64url');
  const header = sign(payload.length - 1, tail);
  t.ok(Buffer.from(signedPayload(signed(header))).equals(payload));
  t.ok(Buffer.from(signedPayload(payload)).equals(payload), 'without signatures it is the document');
  // A second fsLayers behind what is signed: JSON.parse would take the last.
  const smuggled = signed(header, `,"fsLayers":[{"blobSum":"${sum(6)}"}]`);
  t.strictSame(convertSchema1(smuggled).layers, [sum(1)]);
  t.equal(
    codeOf(() => signedPayload(signed(sign(1e9, tail)))),
    'MANIFEST_INVALID',
  );
  t.equal(
    codeOf(() => signedPayload(signed('e30'))),
    'MANIFEST_INVALID',
  );
});
