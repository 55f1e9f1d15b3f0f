/** appc discovery: the cases of the specification's own tests (appc/spec, discovery/discovery_test.go), over HTTP. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { discover, type Discovered } from '../../src/source/registry/ac-discovery.js';
import { isWanted, parseAppName } from '../../src/source/registry/app-name.js';
import { metaTags } from '../../src/source/registry/meta-tags.js';
import { Transport } from '../../src/source/registry/transport.js';
import { codeOf, codeOfRejection, failure } from '../support/failure.js';

const image = (template: string, prefix = 'example.com'): string =>
  `<meta name="ac-discovery" content="${prefix} ${template}">`;
const STORAGE = 'https://storage.example.com';
const MIRROR = 'https://mirror.storage.example.com';
const KEYS = '<meta name="ac-discovery-pubkeys" content="example.com https://example.com/pubkeys.gpg">';
const FULL = image(`${STORAGE}/{name}-{version}-{os}-{arch}.{ext}`);

const page = (...tags: string[]): string =>
  `<!DOCTYPE html>\n<html>\n<head>\n\t<title>My app</title>\n\t${tags.join('\n\t')}\n</head>\n<body><h1>My App</h1></body>\n</html>\n`;

const kinds = ['{version}-{os}-{arch}', '{version}-noarch', 'latest-{os}-{arch}', 'latest-noarch'];
/** Named as the files of the specification's tests are. */
const pages: Readonly<Record<string, string>> = {
  meta01: page(FULL, KEYS),
  meta02: page(FULL),
  meta03: page(KEYS),
  meta04: page(FULL.replace('storage', 'root'), KEYS),
  meta05: page(FULL, image(`${STORAGE}/{name}-{version}.{ext}`), KEYS),
  meta06: page(...kinds.flatMap((kind) => [STORAGE, MIRROR].map((at) => image(`${at}/{name}-${kind}.{ext}`))), KEYS),
  meta07: page(image(`${STORAGE}/myapp-{version}-{os}-{arch}.{ext}`, 'example.com/myapp'), KEYS),
};

/**
 * Asks for a name below example.com, whose pages a server on this machine has: it is taken for the proxy. `at`: pages by
 * path.
 */
async function ask(
  t: Test,
  name: string,
  at: Readonly<Record<string, string>>,
  insecure = true,
): Promise<{ found: Promise<Discovered>; asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    const body = at[new URL(request.url ?? '', 'http://x').pathname];
    if (body?.startsWith('to ') === true) response.writeHead(302, { location: body.slice(3) }).end();
    else response.writeHead(body === undefined ? 404 : 200, { 'content-type': 'text/html' }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const proxy = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const transport = new Transport({ env: { HTTP_PROXY: proxy, HTTPS_PROXY: proxy }, userAgent: 'test' });
  t.teardown(async () => {
    await transport.close();
    server.closeAllConnections();
    server.close();
  });
  return { found: discover(parseAppName(name), { transport, insecure }), asked };
}

const urls = (...names: string[]) => names.map((name) => ({ aci: `${name}.aci`, signature: `${name}.aci.asc` }));
const keys = ['https://example.com/pubkeys.gpg'];
const labels = ':1.0.0,os=linux,arch=amd64';
const plainly = (name: string): Discovered['images'] => urls(`${STORAGE}/example.com/${name}-1.0.0-linux-amd64`);

t.test('discover finds what the tests of the specification say', async (t) => {
  const cases: [string, string, Record<string, string>, Discovered['images'], string[]][] = [
    ['both kinds of tags', `myapp${labels}`, { '/myapp': 'meta01' }, plainly('myapp'), keys],
    ['of a part of the name', `myapp/foobar${labels}`, { '/': 'meta01' }, plainly('myapp/foobar'), keys],
    ['images above, keys below', `myapp${labels}`, { '/': 'meta02', '/myapp': 'meta03' }, plainly('myapp'), keys],
    ['keys above, images below', `myapp${labels}`, { '/': 'meta03', '/myapp': 'meta02' }, plainly('myapp'), keys],
    ['no keys', `myapp${labels}`, { '/': 'meta02' }, plainly('myapp'), []],
    ['the nearest images', `myapp${labels}`, { '/': 'meta04', '/myapp': 'meta02' }, plainly('myapp'), keys],
    ['labels missing', 'myapp:1.0.0', { '/myapp': 'meta05' }, urls(`${STORAGE}/example.com/myapp-1.0.0`), keys],
    ...[labels, ':1.0.0', ',os=linux,arch=amd64', ''].map((given, i): (typeof cases)[number] => {
      const kind = ['1.0.0-linux-amd64', '1.0.0-noarch', 'latest-linux-amd64', 'latest-noarch'][i] ?? '';
      const both = urls(`${STORAGE}/example.com/myapp-${kind}`, `${MIRROR}/example.com/myapp-${kind}`);
      return [`the best of many with "${given}"`, `myapp${given}`, { '/myapp': 'meta06' }, both, keys];
    }),
    [
      'a name in the template',
      `myapp${labels}`,
      { '/myapp': 'meta07' },
      urls(`${STORAGE}/myapp-1.0.0-linux-amd64`),
      keys,
    ],
  ];
  for (const [what, name, at, images, publicKeys] of cases) {
    const texts = Object.fromEntries(Object.entries(at).map(([path, file]) => [path, pages[file] ?? '']));
    const { found } = await ask(t, `example.com/${name}`, texts);
    t.strictSame(await found, { images, publicKeys }, what);
  }
});

t.test('discover says that there is nothing', async (t) => {
  const meta = (name: string): string => pages[name] ?? '';
  const nothing: [string, string, Record<string, string>][] = [
    ['no page on the way', `myapp/foobar/bazzer${labels}`, { '/path/out/of/myapp': meta('meta01') }],
    ['keys only', `myapp${labels}`, { '/': meta('meta03') }],
    ['no template can be filled in', 'myapp', { '/myapp': meta('meta05') }],
    ['another prefix', `other${labels}`, { '/other': meta('meta07') }],
    ['in a comment', `myapp${labels}`, { '/myapp': page(`<!-- ${FULL} -->`) }],
    ['another transport', `myapp${labels}`, { '/myapp': page(image('hdfs://x/{name}.{ext}')) }],
  ];
  for (const [what, name, at] of nothing) {
    const { found } = await ask(t, `example.com/${name}`, at);
    t.equal(await codeOfRejection(found), 'IMAGE_NOT_FOUND', what);
  }
  const { found } = await ask(t, `example.com/a/b${labels}`, {});
  t.strictSame((await failure(found)).details['tried'], [
    'example.com/a/b (404)',
    'example.com/a (404)',
    'example.com (404)',
  ]);
});

t.test('discover goes without TLS only where it is told to', async (t) => {
  const at = { '/myapp': pages['meta01'] ?? '' };
  const careful = await ask(t, `example.com/myapp${labels}`, at, false);
  t.equal(await codeOfRejection(careful.found), 'REGISTRY_UNREACHABLE');
  t.strictSame(careful.asked, []);
  const careless = await ask(t, `example.com/myapp${labels}`, at);
  await careless.found;
  t.strictSame(careless.asked, ['http://example.com/myapp?ac-discovery=1']);
  const moved = await ask(t, `example.com/myapp${labels}`, {
    '/myapp': 'to http://other.example/x',
    '/x': at['/myapp'],
  });
  t.strictSame((await moved.found).images, plainly('myapp'), 'redirects are followed');
  const circle = await ask(t, `example.com/myapp${labels}`, { '/myapp': 'to /myapp' });
  t.equal(await codeOfRejection(circle.found), 'REGISTRY_PROTOCOL');

  const server = createServer((_request, response) =>
    response.end(page(image('http://localhost:1/{name}.{ext}', 'localhost'))),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const transport = new Transport({ env: {}, userAgent: 'test' });
  t.teardown(() => transport.close());
  const { port } = server.address() as AddressInfo;
  const here = await discover(parseAppName('localhost/app'), { transport, port });
  t.strictSame(here.images, urls('http://localhost:1/localhost/app'), 'this machine needs no TLS');
});

t.test('parseAppName and isWanted', async (t) => {
  const app = parseAppName('example.com/app:1.0,os=linux');
  t.strictSame(
    [app.name, [...app.labels]],
    [
      'example.com/app',
      [
        ['version', '1.0'],
        ['os', 'linux'],
      ],
    ],
  );
  for (const text of ['', ':1', 'A', 'a:', 'a,b', 'a,name=x', 'a,os=x,os=y', 'a//b', 'a/../b', 'a,=x']) {
    t.equal(
      codeOf(() => parseAppName(text)),
      'REFERENCE_INVALID',
      text,
    );
  }
  const manifest = {
    name: 'example.com/app',
    labels: new Map([
      ['version', '1.0'],
      ['os', 'linux'],
      ['arch', 'amd64'],
    ]),
  };
  t.ok(isWanted(manifest, app));
  t.notOk(isWanted({ ...manifest, name: 'example.com/other' }, app));
  t.notOk(isWanted({ ...manifest, labels: new Map([['version', '1.0']]) }, app));
});

t.test('metaTags sees what a browser sees', async (t) => {
  const table: [string, Record<string, string>[]][] = [
    ['<meta name="a" content="b">', [{ name: 'a', content: 'b' }]],
    [`<META NAME='a' Content=b/c >`, [{ name: 'a', content: 'b/c' }]],
    ['<meta\n\tname = "a"\n/>', [{ name: 'a' }]],
    ['<meta content="x > y" name=a>', [{ content: 'x > y', name: 'a' }]],
    ['<meta name="a" name="b">', [{ name: 'a' }]],
    ['<meta name="a&amp;b&#x2f;&#47;&nope;&#0;">', [{ name: 'a&b//&nope;&#0;' }]],
    ['<meta charset>', [{ charset: '' }]],
    ['<!-- <meta name="a"> --><meta name="b">', [{ name: 'b' }]],
    ['<!--><meta name="b">', [{ name: 'b' }]],
    ['<script>"<meta name=a>"</script><meta name="b">', [{ name: 'b' }]],
    ['<title><meta name="a"></title><meta name="b">', [{ name: 'b' }]],
    ['<metadata name="a"><meta name="b">', [{ name: 'b' }]],
    ['a < b <meta name="b">', [{ name: 'b' }]],
    ['<p title="<meta name=a>"><meta name="b">', [{ name: 'b' }]],
    ['<!-- <meta name="a">', []],
    ['<meta name="a', [{}]],
  ];
  for (const [html, wanted] of table) {
    const got = metaTags(html).map((attributes) => Object.fromEntries(attributes));
    if (wanted.length === 1 && Object.keys(wanted[0] ?? {}).length === 0) t.equal(got.length, 1, html);
    else t.strictSame(got, wanted, html);
  }
  const before = performance.now();
  for (const hostile of ['<', '<a ', '<!--', '<meta ', '<meta a=', '="', '<script>', '</'])
    metaTags(hostile.repeat(100_000));
  t.ok(performance.now() - before < 10_000, 'hostile pages take no longer than their length');
});
