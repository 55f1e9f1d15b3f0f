import t from 'tap';
import type { ErrorCode } from '../../src/errors.js';
import { parseConfig } from '../../src/oci/config.js';
import { parseIndex } from '../../src/oci/index-document.js';
import { parseManifest } from '../../src/oci/manifest.js';
import { fullName } from '../../src/oci/name.js';

interface Expected extends Record<string, unknown> {
  code: ErrorCode;
  message?: RegExp;
}

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const hex = 'ab'.repeat(32);
const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: `sha256:${hex}`, size: 2 };
const layer = (mediaType: string) => ({ mediaType, digest: `sha256:${'cd'.repeat(32)}`, size: 3 });
const bytes = (document: unknown) => Buffer.from(JSON.stringify(document));
const base = { schemaVersion: 2, config, layers: [] };

t.test('parseConfig', async (t) => {
  t.test('takes every field verbatim', async (t) => {
    const parsed = parseConfig(
      bytes({
        os: 'linux',
        architecture: 'arm64',
        variant: 'v8',
        'os.version': '1',
        'os.features': ['f'],
        author: 'A',
        created: '2020-01-02T03:04:05.6Z',
        rootfs: { type: 'layers', diff_ids: [`sha256:${hex}`, `sha512:${hex}${hex}`, `blake3:${hex}`] },
        config: {
          User: 'a:b',
          Env: ['A=1', 'A=2', 'broken', '=x', ' B = c '],
          Entrypoint: ['/e'],
          Cmd: ['c', ''],
          WorkingDir: 'rel',
          Labels: { a: 'b', constructor: 'c' },
          Volumes: { '/v': {} },
          ExposedPorts: { '80/tcp': {} },
          StopSignal: 'SIGINT',
          Healthcheck: { Test: [] },
        },
        history: [{ created_by: 'x', empty_layer: true }, {}],
        extra: { deep: [1] },
      }),
    );
    t.match(parsed, {
      os: 'linux',
      architecture: 'arm64',
      variant: 'v8',
      osVersion: '1',
      osFeatures: ['f'],
      author: 'A',
      created: '2020-01-02T03:04:05.6Z',
      user: 'a:b',
      env: ['A=1', 'A=2', 'broken', '=x', ' B = c '],
      entrypoint: ['/e'],
      cmd: ['c', ''],
      workingDir: 'rel',
      labels: { a: 'b', constructor: 'c' },
      volumes: ['/v'],
      exposedPorts: ['80/tcp'],
      stopSignal: 'SIGINT',
    });
    t.strictSame(parsed.diffIds, [`sha256:${hex}`, `sha512:${hex}${hex}`, `blake3:${hex}`]);
    t.strictSame(
      parsed.history.map((entry) => [entry.createdBy, entry.emptyLayer]),
      [
        ['x', true],
        [undefined, false],
      ],
    );
  });

  t.test('null is absent', async (t) => {
    const nulls = parseConfig(
      bytes({
        os: null,
        architecture: null,
        variant: null,
        author: null,
        rootfs: { type: 'layers', diff_ids: null },
        config: { User: null, Env: null, Entrypoint: null, Cmd: null, Labels: null, Volumes: null, StopSignal: null },
        history: null,
      }),
    );
    const absent = parseConfig(bytes({ rootfs: { type: 'layers' } }));
    t.strictSame(nulls, absent);
    t.match(absent, {
      os: '',
      user: '',
      env: [],
      entrypoint: [],
      cmd: [],
      labels: {},
      volumes: [],
      diffIds: [],
      history: [],
    });
    t.equal(absent.stopSignal, undefined);
  });

  t.test('a command may be one string, as Docker took it', async (t) => {
    t.strictSame(parseConfig(bytes({ rootfs: { type: 'layers' }, config: { Cmd: 'run me' } })).cmd, ['run me']);
  });

  t.test('what is not well formed', async (t) => {
    const table: [string, unknown, Expected][] = [
      ['no rootfs', {}, { code: 'CONFIG_INVALID', message: /rootfs/ }],
      [
        'another rootfs.type',
        { rootfs: { type: 'x', diff_ids: [] } },
        { code: 'CONFIG_INVALID', message: /rootfs\.type/ },
      ],
      ['a diffID that is no digest', { rootfs: { type: 'layers', diff_ids: ['x'] } }, { code: 'DIGEST_INVALID' }],
      [
        'an upper-case digest',
        { rootfs: { type: 'layers', diff_ids: [`sha256:${'AB'.repeat(32)}`] } },
        { code: 'DIGEST_INVALID' },
      ],
      ['an unknown algorithm', { rootfs: { type: 'layers', diff_ids: ['md5:ab'] } }, { code: 'DIGEST_UNSUPPORTED' }],
      [
        'Env that is no list',
        { rootfs: { type: 'layers' }, config: { Env: {} } },
        { code: 'CONFIG_INVALID', message: /config\.Env/ },
      ],
      ['a list', [], { code: 'CONFIG_INVALID' }],
      ['null', null, { code: 'CONFIG_INVALID' }],
    ];
    for (const [name, document, expected] of table) t.throws(() => parseConfig(bytes(document)), expected, name);
  });

  t.test('every cut of a config is an error', async (t) => {
    const whole = bytes({
      os: 'l',
      rootfs: { type: 'layers', diff_ids: [`sha256:${hex}`] },
      config: { Env: ['a=\\"\u00e9'] },
    });
    t.ok(parseConfig(whole));
    for (let i = 0; i < whole.length; i++)
      t.throws(() => parseConfig(whole.subarray(0, i)), { code: 'CONFIG_INVALID' });
  });
});

t.test('JSON from elsewhere is capped, and never quoted', async (t) => {
  const nested = (levels: number) =>
    Buffer.from(`{"rootfs":{"type":"layers"},"x":${'['.repeat(levels)}${']'.repeat(levels)}}`);
  t.ok(parseConfig(nested(63)));
  t.throws(() => parseConfig(nested(64)), { code: 'LIMIT_EXCEEDED', message: /nested/ });
  t.throws(() => parseConfig(nested(1_000_000)), { code: 'LIMIT_EXCEEDED' });
  const many = Buffer.from(`[${'0,'.repeat(300_000)}0]`);
  t.throws(() => parseConfig(many), { code: 'LIMIT_EXCEEDED', message: /values/ }, 'before the schema refuses each');
  t.ok(
    parseConfig(bytes({ rootfs: { type: 'layers' }, x: '['.repeat(100) + '\\"' + '{'.repeat(100) })),
    'brackets in strings',
  );
  t.throws(() => parseConfig(Buffer.alloc(8 * 1024 * 1024 + 1, ' ')), { code: 'LIMIT_EXCEEDED', message: /bytes/ });
  t.throws(() => parseManifest(Buffer.alloc(4 * 1024 * 1024 + 1, ' '), OCI_MANIFEST), { code: 'LIMIT_EXCEEDED' });
  t.throws(() => parseIndex(Buffer.alloc(4 * 1024 * 1024 + 1, ' '), OCI_INDEX), { code: 'LIMIT_EXCEEDED' });
  t.throws(
    () => parseConfig(Buffer.from('{"rootfs":{"type":"layers"},"x":"\xff"}', 'latin1')),
    { code: 'CONFIG_INVALID' },
    'not UTF-8',
  );
  t.throws(
    () => parseConfig(Buffer.from('\ufeff{"rootfs":{"type":"layers"}}')),
    { code: 'CONFIG_INVALID' },
    'byte order mark',
  );
  try {
    parseConfig(Buffer.from('root:x:0:0:secret'));
    t.fail('must throw');
  } catch (e) {
    t.notMatch(String(e), /root|secret/);
  }
});

t.test('parseManifest', async (t) => {
  t.test('takes every type of layer, and unknown fields', async (t) => {
    const types = [
      'application/vnd.oci.image.layer.v1.tar',
      'application/vnd.oci.image.layer.v1.tar+gzip',
      'application/vnd.oci.image.layer.v1.tar+zstd',
      'application/vnd.oci.image.layer.nondistributable.v1.tar',
      'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
      'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd',
      'application/vnd.docker.image.rootfs.diff.tar',
      'application/vnd.docker.image.rootfs.diff.tar.gzip',
      'application/vnd.docker.image.rootfs.diff.tar.zstd',
      'application/vnd.docker.image.rootfs.foreign.diff.tar',
      'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    ];
    const document = {
      ...base,
      mediaType: OCI_MANIFEST,
      layers: types.map((type) => ({ ...layer(type), urls: ['https://x'] })),
      subject: config,
      annotations: { a: 'b' },
      extra: null,
    };
    const manifest = parseManifest(bytes(document), OCI_MANIFEST);
    t.strictSame(
      manifest.layers.map((l) => l.mediaType),
      types,
    );
    t.strictSame(manifest.annotations, { a: 'b' });
    t.strictSame(parseManifest(bytes({ config, layers: null, annotations: null }), OCI_MANIFEST).layers, []);
  });

  t.test('refuses', async (t) => {
    const empty = { mediaType: 'application/vnd.oci.empty.v1+json', digest: `sha256:${hex}`, size: 2, data: 'e30=' };
    const table: [string, object, Expected][] = [
      [
        'one digest with two sizes',
        { ...base, layers: [{ ...layer('application/vnd.oci.image.layer.v1.tar'), digest: config.digest }] },
        { code: 'MANIFEST_INVALID', message: /has 2 and 3 bytes/ },
      ],
      [
        'an artifact',
        { ...base, artifactType: 'application/x', config: empty },
        { code: 'NOT_AN_IMAGE', message: /application\/x/ },
      ],
      [
        'an unknown config',
        { ...base, config: { ...config, mediaType: 'application/helm' } },
        { code: 'NOT_AN_IMAGE', message: /helm/ },
      ],
      [
        'a layer that is none',
        { ...base, layers: [layer('application/wasm')] },
        { code: 'NOT_AN_IMAGE', message: /layer 1 of 1/ },
      ],
      ['the empty descriptor as a layer', { ...base, layers: [empty] }, { code: 'NOT_AN_IMAGE' }],
      [
        'an encrypted layer',
        { ...base, layers: [layer('application/vnd.oci.image.layer.v1.tar+gzip+encrypted')] },
        { code: 'NOT_AN_IMAGE', message: /encrypted/ },
      ],
      [
        'schema 1',
        { schemaVersion: 1, fsLayers: [], history: [] },
        { code: 'NOT_AN_IMAGE', message: /schema 1/, hint: /skopeo/ },
      ],
      ['another schemaVersion', { ...base, schemaVersion: 3 }, { code: 'MANIFEST_INVALID' }],
      ['another mediaType than its descriptor', { ...base, mediaType: OCI_INDEX }, { code: 'MANIFEST_INVALID' }],
      [
        'a manifest that is also an index',
        { ...base, manifests: [] },
        { code: 'MANIFEST_INVALID', message: /manifests/ },
      ],
      ['no config', { schemaVersion: 2, layers: [] }, { code: 'MANIFEST_INVALID', message: /config/ }],
      [
        'a negative size',
        { ...base, config: { ...config, size: -1 } },
        { code: 'MANIFEST_INVALID', message: /config\.size/ },
      ],
      ['a fractional size', { ...base, config: { ...config, size: 1.5 } }, { code: 'MANIFEST_INVALID' }],
      ['a size beyond 2^53', { ...base, config: { ...config, size: 2 ** 60 } }, { code: 'MANIFEST_INVALID' }],
      ['annotations that are no strings', { ...base, annotations: { a: 1 } }, { code: 'MANIFEST_INVALID' }],
    ];
    for (const [name, document, expected] of table)
      t.throws(() => parseManifest(bytes(document), OCI_MANIFEST), expected, name);
  });
});

t.test('parseIndex', async (t) => {
  const entry = { mediaType: OCI_MANIFEST, digest: `sha256:${hex}`, size: 1 };
  const document = {
    schemaVersion: 2,
    manifests: [
      entry,
      { ...entry, platform: { os: 'Linux', architecture: 'aarch64', variant: 'v8', 'os.features': null } },
      { ...entry, platform: {}, digest: 'md5:whatever' },
      { mediaType: 'application/unknown', digest: 'not even a digest', size: 0 },
    ],
  };
  const entries = parseIndex(bytes(document), OCI_INDEX);
  t.strictSame(
    entries.map(({ platform }) => platform),
    [undefined, { os: 'linux', architecture: 'arm64' }, undefined, undefined],
    'entries that are never followed may be strange',
  );
  t.strictSame(parseIndex(bytes({ manifests: [] }), undefined), []);
  t.throws(() => parseIndex(bytes({ schemaVersion: 2 }), undefined), { code: 'MANIFEST_INVALID' });
  t.throws(() => parseIndex(bytes({ manifests: [], layers: [] }), undefined), { code: 'MANIFEST_INVALID' });
  t.throws(() => parseIndex(bytes({ manifests: [], config }), undefined), { code: 'MANIFEST_INVALID' });
  t.throws(() => parseIndex(bytes({ manifests: [], mediaType: OCI_MANIFEST }), OCI_INDEX), {
    code: 'MANIFEST_INVALID',
  });
  t.throws(() => parseIndex(bytes({ manifests: [{}] }), OCI_INDEX), {
    code: 'MANIFEST_INVALID',
    message: /manifests\.0/,
  });
});

t.test('fullName writes names as Docker does', async (t) => {
  const table: [string, string | undefined][] = [
    ['alpine', 'docker.io/library/alpine:latest'],
    ['alpine:3', 'docker.io/library/alpine:3'],
    ['docker.io/alpine', 'docker.io/library/alpine:latest'],
    ['index.docker.io/library/alpine:3', 'docker.io/library/alpine:3'],
    ['a/b', 'docker.io/a/b:latest'],
    ['localhost/b', 'localhost/b:latest'],
    ['localhost:5000/a/b:t', 'localhost:5000/a/b:t'],
    ['host:5000/b', 'host:5000/b:latest'],
    ['quay.io/a/b@sha256:ab', 'quay.io/a/b@sha256:ab'],
    ['quay.io/a/b:t@sha256:ab', 'quay.io/a/b:t'],
    ['Alpine', undefined],
    ['a//b', undefined],
    ['a:', undefined],
    ['', undefined],
    ['-a', undefined],
    ['a b', undefined],
    ['x'.repeat(600), undefined],
  ];
  for (const [text, expected] of table) t.equal(fullName(text), expected, text);
});
