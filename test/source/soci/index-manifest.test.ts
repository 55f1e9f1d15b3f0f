import t from 'tap';
import { parseDigest } from '../../../src/digest/index.js';
import { parseIndex } from '../../../src/oci/index-document.js';
import {
  encodeSociIndex,
  namedSociIndex,
  parseSociIndex,
  sociIndexEntry,
  sociReferrer,
} from '../../../src/source/soci/index-manifest.js';
import { codeOf } from '../../compress/support.js';

const digest = (digit: string): ReturnType<typeof parseDigest> => parseDigest(`sha256:${digit.repeat(64)}`);
const image = digest('1');
const manifestType = 'application/vnd.oci.image.manifest.v1+json';
const layerType = 'application/vnd.oci.image.layer.v1.tar+gzip';

/** As Go's encoding/json writes what soci_index.go fills in: fields in the order of image-spec's structs, keys of maps sorted. */
const layers =
  `[{"mediaType":"application/octet-stream","digest":"${digest('a')}","size":243720,"annotations":` +
  `{"com.amazon.soci.image-layer-digest":"${digest('2')}","com.amazon.soci.image-layer-mediaType":"${layerType}",` +
  `"com.amazon.soci.span-size":"4194304"}}]`;
const config = (version: string): string =>
  `{"mediaType":"application/vnd.amazon.soci.index.${version}+json",` +
  '"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}';
const subject = `{"mediaType":"${manifestType}","digest":"${image}","size":1234}`;
const tool = '{"com.amazon.soci.build-tool-identifier":"AWS SOCI CLI v0.2"}';
const v1 = `{"schemaVersion":2,"mediaType":"${manifestType}","config":${config('v1')},"layers":${layers},"subject":${subject},"annotations":${tool}}`;
const v2 = `{"schemaVersion":2,"mediaType":"${manifestType}","config":${config('v2')},"layers":${layers},"annotations":${tool}}`;

t.test('encodeSociIndex: the bytes of both versions', async (t) => {
  const index = {
    ztocs: [
      {
        layer: { mediaType: layerType, digest: digest('2') },
        ztoc: { digest: digest('a'), size: 243_720 },
        spanSize: 4_194_304,
      },
    ],
    tool: 'AWS SOCI CLI v0.2',
  };
  t.equal(encodeSociIndex(index).toString(), v2);
  const of = { mediaType: manifestType, digest: image, size: 1234 };
  t.equal(encodeSociIndex({ ...index, subject: of }).toString(), v1);
});

t.test('parseSociIndex: ztocs by layer, of both versions', async (t) => {
  for (const [version, document] of Object.entries({ v1, v2 })) {
    const index = parseSociIndex(Buffer.from(document), image);
    t.equal(index.version, version);
    t.strictSame([...index.ztocs.keys()], [digest('2')]);
    t.match(index.ztocs.get(digest('2')), { digest: digest('a'), size: 243_720 });
  }
  const prefetch =
    `{"mediaType":"application/vnd.amazon.soci.prefetch.v1+json","digest":"${digest('b')}","size":3,"annotations":` +
    `{"com.amazon.soci.image-layer-digest":"${digest('2')}"}}`;
  const both = v2.replace('"layers":[', `"layers":[${prefetch},`);
  t.equal(parseSociIndex(Buffer.from(both), image).ztocs.size, 1, 'lists for prefetching are passed over');
});

t.test('parseSociIndex refuses what is no index, or for another image', async (t) => {
  const code = (document: string): string => codeOf(() => parseSociIndex(Buffer.from(document), image));
  t.equal(code(v1), 'none');
  for (let end = 0; end < v1.length; end++) t.equal(code(v1.slice(0, end)), 'SOCI_INVALID');
  t.equal(code(v1.replaceAll(image, digest('3'))), 'SOCI_INVALID', 'another subject');
  t.equal(code(v1.replace(`"subject":${subject},`, '')), 'SOCI_INVALID', 'no subject');
  t.equal(code(v2.replace('"annotations":{"com.amazon.soci.build', `"subject":${subject},$&`)), 'none');
  t.equal(code(v2.replace('index.v2', 'index.v3')), 'SOCI_INVALID');
  t.equal(code(v2.replace('"schemaVersion":2', '"schemaVersion":1')), 'SOCI_INVALID');
  t.equal(code(v2.replace('manifest.v1', 'index.v1')), 'SOCI_INVALID');
  t.equal(code(v2.replace(digest('2'), 'sha256:2')), 'DIGEST_INVALID');
  t.equal(code(v2.replace(digest('a'), 'md5:aa')), 'DIGEST_UNSUPPORTED');
  t.equal(code(v2.replace(`"layers":${layers}`, `"layers":${layers.slice(0, -1)},${layers.slice(1)}`)), 'SOCI_INVALID');
  t.equal(
    code(v2.replace('"annotations":{"com.amazon.soci.build', `"x":"${'x'.repeat(2 ** 22)}",$&`)),
    'LIMIT_EXCEEDED',
  );
});

t.test('an index is found by an annotation, beside the image, or among the referrers', async (t) => {
  t.equal(namedSociIndex({ 'com.amazon.soci.index-digest': digest('c') }), digest('c'));
  t.equal(namedSociIndex({}), undefined);
  t.equal(
    codeOf(() => namedSociIndex({ 'com.amazon.soci.index-digest': 'no' })),
    'DIGEST_INVALID',
  );
  const entry = (artifactType: string, content: string, of = ''): object => ({
    ...{ mediaType: manifestType, digest: digest(content), size: 5, artifactType },
    ...(of === '' ? {} : { annotations: { 'com.amazon.soci.image-manifest-digest': of } }),
  });
  const type1 = 'application/vnd.amazon.soci.index.v1+json';
  const type2 = type1.replace('v1', 'v2');
  const manifests = [
    entry('application/vnd.example', '4', image),
    entry(type2, '5', digest('9')),
    entry(type1, '6', image),
    entry(type2, '7', image),
    entry(type1, '8'),
  ];
  const entries = parseIndex(Buffer.from(JSON.stringify({ schemaVersion: 2, manifests })), undefined);
  t.equal(sociIndexEntry(entries, image)?.digest, digest('7'));
  t.equal(sociIndexEntry(entries, digest('d')), undefined);
  t.equal(sociReferrer(entries)?.digest, digest('6'));
  t.equal(sociReferrer([]), undefined);
});
