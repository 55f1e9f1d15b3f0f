import t from 'tap';
import { parseRegistryName } from '../../src/source/registry/name.js';
import { codeOf } from '../support/failure.js';

const D = `sha256:${'a'.repeat(64)}`;

/** Text, and the host, repository, tag and digest that github.com/distribution/reference finds in it. */
const names: readonly (readonly [string, string, string, string | undefined, string | undefined])[] = [
  ['alpine', 'docker.io', 'library/alpine', 'latest', undefined],
  ['docker://alpine:3.20', 'docker.io', 'library/alpine', '3.20', undefined],
  ['user/app', 'docker.io', 'user/app', 'latest', undefined],
  ['docker.io/alpine', 'docker.io', 'library/alpine', 'latest', undefined],
  ['docker.io/library/alpine', 'docker.io', 'library/alpine', 'latest', undefined],
  ['index.docker.io/alpine', 'docker.io', 'library/alpine', 'latest', undefined],
  ['registry-1.docker.io/library/alpine', 'docker.io', 'library/alpine', 'latest', undefined],
  ['localhost/app', 'localhost', 'app', 'latest', undefined],
  ['localhost:5000/app', 'localhost:5000', 'app', 'latest', undefined],
  ['docker://localhost:5000/a/b/c:v1', 'localhost:5000', 'a/b/c', 'v1', undefined],
  ['127.0.0.1:5000/app:latest', '127.0.0.1:5000', 'app', 'latest', undefined],
  ['[::1]:5000/app', '[::1]:5000', 'app', 'latest', undefined],
  ['docker://[2001:db8::1]/app:v2', '[2001:db8::1]', 'app', 'v2', undefined],
  ['quay.io/ns/app@' + D, 'quay.io', 'ns/app', undefined, D],
  ['quay.io/ns/app:v1@' + D, 'quay.io', 'ns/app', 'v1', D],
  ['Registry/app', 'Registry', 'app', 'latest', undefined],
  ['a__b/c-d.e---f', 'docker.io', 'a__b/c-d.e---f', 'latest', undefined],
  ['app:5000', 'docker.io', 'library/app', '5000', undefined],
  ['example.com/app:UPPER_tag.1-x', 'example.com', 'app', 'UPPER_tag.1-x', undefined],
];

t.test('parseRegistryName finds host, repository, tag and digest as Docker does', async (t) => {
  for (const [text, host, repository, tag, digest] of names) {
    const name = parseRegistryName(text);
    t.strictSame([name.host, name.repository, name.tag, name.digest], [host, repository, tag, digest], text);
    t.strictSame(parseRegistryName(name.text), name, `${text} in full`);
  }
  t.equal(parseRegistryName('alpine').text, 'docker://docker.io/library/alpine:latest');
});

t.test('parseRegistryName refuses what is no name', async (t) => {
  const wrong = [
    '',
    'docker://',
    'docker:///app',
    'UPPER',
    'quay.io/Upper/app',
    'quay.io/',
    'quay.io//app',
    'quay.io/app:',
    'quay.io/app:-x',
    `quay.io/app:${'x'.repeat(129)}`,
    'quay.io/a..b',
    'quay.io/a/../b',
    'quay.io/_a',
    'quay.io:99999/app',
    'quay.io:0/app',
    'quay.io:x/app',
    '-quay.io/app',
    'user@quay.io/app',
    'quay.io/app?x=y',
    'quay.io/app#x',
    '[::1/app',
    '[::1%eth0]/app',
    `quay.io/${'a'.repeat(250)}`,
    'https://quay.io/app',
  ];
  for (const text of wrong) {
    t.match(
      codeOf(() => parseRegistryName(text)),
      /^(REFERENCE|DIGEST)_INVALID$/,
      JSON.stringify(text),
    );
  }
  t.equal(
    codeOf(() => parseRegistryName('app@sha256:abc')),
    'DIGEST_INVALID',
  );
  t.equal(
    codeOf(() => parseRegistryName(`app@md5:${'a'.repeat(32)}`)),
    'DIGEST_UNSUPPORTED',
  );
});
