import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import type { ErrorCode } from '../../src/errors.js';
import { parseFullReference, parseReference } from '../../src/source/sniff.js';
import { LayoutBuilder, members, sha256, tarOf } from './builders.js';

interface Expected extends Record<string, unknown> {
  code: ErrorCode;
  message?: RegExp;
  hint?: RegExp;
}

const digest = sha256('x');

t.test('parseReference with a prefix, where nothing exists', async (t) => {
  const table: [string, object][] = [
    ['oci:/n/d', { kind: 'oci', path: '/n/d', text: 'oci:/n/d' }],
    ['oci:d:tag', { kind: 'oci', path: '/cwd/d', tag: 'tag', text: 'oci:/cwd/d:tag' }],
    ['oci:./d/../e:a/b:c', { kind: 'oci', path: '/cwd/e', tag: 'a/b:c', text: 'oci:/cwd/e:a/b:c' }],
    [`oci:d@${digest}`, { kind: 'oci', path: '/cwd/d', digest, text: `oci:/cwd/d@${digest}` }],
    [`oci:d:t@${digest}`, { kind: 'oci', path: '/cwd/d', tag: 't', digest }],
    ['oci:me@host/d:t', { kind: 'oci', path: '/cwd/me@host/d', tag: 't' }],
    ['oci:d:t@u', { kind: 'oci', path: '/cwd/d', tag: 't@u' }],
    ['oci-archive:f.tar:t', { kind: 'oci-archive', path: '/cwd/f.tar', tag: 't', text: 'oci-archive:/cwd/f.tar:t' }],
    ['docker-archive:f.tar', { kind: 'docker-archive', path: '/cwd/f.tar', text: 'docker-archive:/cwd/f.tar' }],
    ['docker-archive:f.tar:h:5/a:t', { kind: 'docker-archive', path: '/cwd/f.tar', tag: 'h:5/a:t' }],
    [
      'docker-archive:f.tar:@3',
      { kind: 'docker-archive', path: '/cwd/f.tar', index: 3, text: 'docker-archive:/cwd/f.tar:@3' },
    ],
    ['oci-archive:f.tar:@3', { kind: 'oci-archive', path: '/cwd/f.tar', tag: '@3' }],
  ];
  for (const [text, expected] of table) {
    const parsed = parseReference(text, '/cwd');
    t.match(parsed, expected, text);
    for (const key of ['tag', 'digest', 'index']) t.equal(key in parsed, key in expected, `${text}: ${key}`);
    t.strictSame(parseReference(parsed.text, '/elsewhere'), parsed, 'the full form means the same anywhere');
  }
});

t.test('parseReference prefers the longest path that exists', async (t) => {
  const cwd = t.testdir({ a: {}, 'a:b': {}, 'a:b:c@d': {}, [`e@${digest}`]: {} });
  const table: [string, string, object][] = [
    ['oci:a', 'a', {}],
    ['oci:a:x', 'a', { tag: 'x' }],
    ['oci:a:b', 'a:b', {}],
    ['oci:a:b:x', 'a:b', { tag: 'x' }],
    ['oci:a:b:c@d', 'a:b:c@d', {}],
    ['oci:a:b:c@d:e:f', 'a:b:c@d', { tag: 'e:f' }],
    [`oci:e@${digest}`, `e@${digest}`, {}],
    [`oci:a@${digest}`, 'a', { digest }],
  ];
  for (const [text, path, expected] of table)
    t.match(parseReference(text, cwd), { path: join(cwd, path), ...expected }, text);
});

t.test('parseReference finds out what a path without a prefix is', async (t) => {
  const cwd = t.testdir({ plain: {}, file: 'text' });
  const b = new LayoutBuilder();
  b.add(b.image(), 'latest');
  b.write(join(cwd, 'layout:1'));
  const tar = await tarOf(members(b.finish()));
  writeFileSync(join(cwd, 'oci.tar'), tar);
  writeFileSync(join(cwd, 'oci.tar.gz'), gzipSync(tar));
  writeFileSync(join(cwd, 'docker.tar'), await tarOf([{ name: './manifest.json', body: '[]' }]));
  const aci = await tarOf([
    { name: 'manifest', body: '{}' },
    { name: 'rootfs/', type: 'directory' },
  ]);
  for (const name of ['x.aci', 'aci.tar']) writeFileSync(join(cwd, name), aci);
  writeFileSync(join(cwd, 'gzip.aci'), gzipSync(aci));
  writeFileSync(join(cwd, 'other.tar'), await tarOf([{ name: 'etc/passwd', body: '' }]));
  mkdirSync(join(cwd, 'alpine'));
  execFileSync('mkfifo', [join(cwd, 'fifo')]);

  const good: [string, string][] = [
    ['layout:1', `oci:${cwd}/layout:1`],
    ['./layout:1:latest', `oci:${cwd}/layout:1:latest`],
    [`${cwd}/layout:1@${digest}`, `oci:${cwd}/layout:1@${digest}`],
    ['oci.tar', `oci-archive:${cwd}/oci.tar`],
    ['oci.tar:latest', `oci-archive:${cwd}/oci.tar:latest`],
    ['./docker.tar:a/b:c', `docker-archive:${cwd}/docker.tar:a/b:c`],
    ['docker.tar:@1', `docker-archive:${cwd}/docker.tar:@1`],
    ['x.aci', `aci:${cwd}/x.aci`],
    ['./gzip.aci', `aci:${cwd}/gzip.aci`],
    ['aci.tar', `aci:${cwd}/aci.tar`],
  ];
  for (const [text, full] of good) t.equal(parseReference(text, cwd).text, full, text);

  const bad: [string, Expected][] = [
    ['plain', { code: 'NOT_AN_IMAGE', message: /no oci-layout/ }],
    ['alpine:latest', { code: 'NOT_AN_IMAGE' }],
    ['other.tar', { code: 'NOT_AN_IMAGE', message: /not of an image/ }],
    ['file', { code: 'ARCHIVE_INVALID', message: /not a tar/ }],
    ['fifo', { code: 'ARCHIVE_INVALID' }],
    ['oci.tar.gz', { code: 'ARCHIVE_INVALID', message: /compressed with gzip/, hint: /gunzip/ }],
    ['./nothing', { code: 'IMAGE_NOT_FOUND', exitCode: 4 }],
    ['/nothing:x', { code: 'IMAGE_NOT_FOUND' }],
    ['oci.tar@sha256:abc', { code: 'REFERENCE_INVALID', message: /neither|is not :TAG or @DIGEST/ }],
  ];
  for (const [text, expected] of bad) {
    t.throws(() => parseReference(text, cwd), expected, text);
    t.throws(() => parseReference(text, cwd), { message: /^Cannot / }, text);
  }
});

t.test('parseReference refuses what is no image that it can read', async (t) => {
  const cwd = t.testdir({ d: {} });
  const table: [string, Expected][] = [
    ['', { code: 'REFERENCE_INVALID', exitCode: 2 }],
    ['oci:', { code: 'REFERENCE_INVALID', message: /no path/ }],
    ['oci:a\0b', { code: 'REFERENCE_INVALID', message: /control/ }],
    ['x'.repeat(9000), { code: 'REFERENCE_INVALID' }],
    ['oci:d:', { code: 'REFERENCE_INVALID', message: /":" after the path d/, hint: /oci:DIR/ }],
    ['oci:d@sha256:abc', { code: 'REFERENCE_INVALID' }],
    [`oci:d@sha384:${'a'.repeat(96)}`, { code: 'DIGEST_UNSUPPORTED' }],
    [`oci:d@sha256:${'A'.repeat(64)}`, { code: 'DIGEST_INVALID' }],
    ['docker-archive:d:@x', { code: 'REFERENCE_INVALID', message: /:REF or :@N/ }],
    [`docker-archive:d@${digest}`, { code: 'REFERENCE_INVALID' }],
    ['docker://Alpine', { code: 'REFERENCE_INVALID', message: /lower case/ }],
    ['docker://', { code: 'REFERENCE_INVALID', hint: /docker:\/\/HOST/ }],
    [
      'alpine:3.19',
      {
        code: 'REFERENCE_INVALID',
        message: /no such path/,
        hint: /docker:\/\/docker\.io\/library\/alpine:3\.19/,
      },
    ],
    ['a b', { code: 'REFERENCE_INVALID', message: /neither a path/ }],
    ['aci:d:tag', { code: 'REFERENCE_INVALID', message: /one image/, hint: /aci:FILE/ }],
    ['aci:', { code: 'REFERENCE_INVALID', message: /no path/ }],
    ['containers-storage:x', { code: 'REFERENCE_INVALID', hint: /skopeo copy containers-storage:x/ }],
  ];
  for (const [text, expected] of table) t.throws(() => parseReference(text, cwd), expected, text.slice(0, 100));
});

t.test('parseReference takes aci: for a name only where it is no path', async (t) => {
  const cwd = t.testdir({ 'example.com': { here: {}, 'x.aci': 'x' } });
  const names: [string, string, [string, string][]][] = [
    ['aci:example.com/app', 'example.com/app', []],
    ['aci:example.com/a/b:1.0', 'example.com/a/b', [['version', '1.0']]],
    [
      'aci:localhost/app:1,os=linux,arch=amd64',
      'localhost/app',
      [
        ['version', '1'],
        ['os', 'linux'],
        ['arch', 'amd64'],
      ],
    ],
  ];
  for (const [text, name, labels] of names) {
    const parsed = parseReference(text, cwd);
    t.match(parsed, { kind: 'appc', name, text });
    t.strictSame(parsed.kind === 'appc' && [...parsed.labels], labels);
    t.strictSame(parseReference(parsed.text, '/elsewhere'), parsed);
  }
  const files = [
    'example.com/here',
    './example.com/app',
    'other.com/app.aci',
    'app',
    'app.aci',
    'example.com',
    'A.com/b',
  ];
  for (const rest of [...files, '/n/example.com/app', '../example.com/app', 'example/app'])
    t.match(parseReference(`aci:${rest}`, cwd), { kind: 'aci', path: resolve(cwd, rest) }, rest);
  const bad = ['aci:example.com/here:1', 'aci:example.com/app:', 'aci:example.com/app,os', 'aci:example.com/a..b'];
  for (const text of bad) t.throws(() => parseReference(text, cwd), { code: 'REFERENCE_INVALID' }, text);
  t.match(parseFullReference('aci:etc/passwd'), { kind: 'aci', path: '/etc/passwd' });
  t.match(parseFullReference(`aci:${cwd}/example.com/here`), { kind: 'aci' });
  t.match(parseFullReference('aci:example.com/app:1'), { kind: 'appc', name: 'example.com/app' });
});

t.test('parseReference reads names of registries with a prefix only', async (t) => {
  const cwd = t.testdir({ alpine: {} });
  t.match(parseReference('docker://alpine', cwd), {
    kind: 'docker',
    host: 'docker.io',
    repository: 'library/alpine',
    tag: 'latest',
    text: 'docker://docker.io/library/alpine:latest',
  });
  t.match(parseReference(`docker://127.0.0.1:5000/a/b@${digest}`, cwd), { host: '127.0.0.1:5000', digest });
});
