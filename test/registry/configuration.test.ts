/** Mirrors, TLS and blocked names, from the files of containerd, podman and Docker. */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingMessage } from 'node:http';
import type { ServerOptions } from 'node:https';
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { parseDigest } from '../../src/digest/index.js';
import { LaminaError } from '../../src/errors.js';
import { RegistryClient, type RegistryOptions } from '../../src/source/registry/client.js';
import { ConfiguredEndpoints } from '../../src/source/registry/configuration.js';
import { FixedCredentials, parseCredentials } from '../../src/source/registry/credentials.js';
import { commandExists } from '../support/commands.js';
import { codeOf, codeOfRejection, failure } from '../support/failure.js';
import { digest, makeLayout } from '../support/images.js';
import { makeCertificates, push, serve, startRegistry, type FakeServer } from '../support/registry.js';
import { skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

const TYPE = 'application/vnd.oci.image.manifest.v1+json';
const manifest = Buffer.from('{"schemaVersion":2,"config":{},"layers":[]}');
const blob = Buffer.from('a blob');

/** Files below a directory that stands for "/". */
function makeRoot(t: Test, files: Readonly<Record<string, string>>): string {
  const root = tempDir(t);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  return root;
}

/** What a registry's host and repository become: "SCHEMES HOST PREFIX/REPOSITORY CAPABILITIES", and what else is so. */
function endpoints(root: string, host: string, repository: string | undefined, tlsVerify?: boolean): string[] {
  const env = { HOME: join(root, 'home') };
  return new ConfiguredEndpoints({ env, root, tlsVerify }).endpoints(host, repository).map((e) => {
    const facts = [
      e.mirror ? 'mirror' : '',
      e.tls.verify ? '' : 'unverified',
      e.namespace === undefined ? '' : `ns=${e.namespace}`,
      e.tls.ca.length === 0 ? '' : `ca=${e.tls.ca.map((file) => file.replace(root, '')).join()}`,
      e.tls.client.length === 0
        ? ''
        : `client=${e.tls.client.map(({ cert, key }) => `${cert}+${key}`.replaceAll(root, '')).join()}`,
      Object.keys(e.headers).length === 0 ? '' : JSON.stringify(e.headers),
    ];
    const where = `${e.schemes.join('|')} ${e.host} ${e.prefix}/${e.repository ?? ''}`;
    return [where, e.capabilities.join(), ...facts].filter((s) => s !== '').join(' ');
  });
}

t.test('without any file', async (t) => {
  const root = makeRoot(t, {});
  const all = 'pull,resolve,push';
  t.strictSame(endpoints(root, 'docker.io', 'library/a'), [`https registry-1.docker.io /v2/library/a ${all}`]);
  t.strictSame(endpoints(root, 'quay.io', 'a'), [`https quay.io /v2/a ${all}`]);
  t.strictSame(endpoints(root, 'quay.io', 'a', false), [`https|http quay.io /v2/a ${all} unverified`]);
  for (const host of ['localhost', 'localhost:5000', '127.0.0.1:5000', '127.1.2.3', '[::1]:5000']) {
    t.strictSame(endpoints(root, host, 'a'), [`https|http ${host} /v2/a ${all} unverified`]);
    t.strictSame(endpoints(root, host, 'a', true), [`https ${host} /v2/a ${all}`]);
  }
  for (const host of ['127.0.0.1.example.com', 'localhost.example.com', '[::2]:5000', '10.0.0.1']) {
    t.strictSame(endpoints(root, host, 'a'), [`https ${host} /v2/a ${all}`]);
  }
});

t.test('hosts.toml of containerd', async (t) => {
  const root = makeRoot(t, {
    'etc/containerd/certs.d/docker.io/hosts.toml': `
server = "https://registry-1.docker.io"
[host."https://mirror.example:8443"]
  capabilities = ["pull", "resolve"]
  ca = "mirror.crt"
  client = [["/c.cert", "/c.key"], ["one.pem", ""]]
  [host."https://mirror.example:8443".header]
    X-Token = "abc"
    X-Many = ["a", "b"]
[host."http://plain.example/some/path"]
  capabilities = ["pull"]
[host."odd.example/api/v2/proxy"]
  override_path = true
  skip_verify = true
`,
    'etc/containerd/certs.d/quay.io/hosts.toml': 'ca = ["/a.crt", "b.crt"]\nskip_verify = true',
    'etc/containerd/certs.d/_default/hosts.toml': '[host."https://cache.example"]\n',
    'etc/containerd/certs.d/reg.example_5000_/hosts.toml': 'server = "https://elsewhere.example/v2"',
    'etc/containerd/certs.d/broken.example/hosts.toml': 'server = "https://x\n[host',
    'etc/containerd/certs.d/wrong.example/hosts.toml': '[host."https://m"]\ncapabilities = "pull"',
    'etc/containerd/certs.d/words.example/hosts.toml': `
[host."https://m"]
  capabilities = ["Pull", "RESOLVE", "referrers", "fly"]
[host."https://n"]
  capabilities = []
`,
  });
  t.strictSame(endpoints(root, 'docker.io', 'library/a'), [
    'https mirror.example:8443 /v2/library/a pull,resolve mirror ns=docker.io ca=/etc/containerd/certs.d/docker.io/mirror.crt ' +
      'client=/c.cert+/c.key,/etc/containerd/certs.d/docker.io/one.pem+/etc/containerd/certs.d/docker.io/one.pem ' +
      '{"x-token":"abc","x-many":"a, b"}',
    'http plain.example /some/path/v2/library/a pull mirror ns=docker.io',
    'https odd.example /api/v2/proxy/library/a pull,resolve,push mirror unverified ns=docker.io',
    'https registry-1.docker.io /v2/library/a pull,resolve,push',
  ]);
  t.strictSame(endpoints(root, 'quay.io', 'a'), [
    'https quay.io /v2/a pull,resolve,push unverified ca=/a.crt,/etc/containerd/certs.d/quay.io/b.crt',
  ]);
  t.strictSame(endpoints(root, 'other.example', 'a'), [
    'https cache.example /v2/a pull,resolve,push mirror ns=other.example',
    'https other.example /v2/a pull,resolve,push',
  ]);
  t.strictSame(endpoints(root, 'reg.example:5000', 'a'), [
    'https elsewhere.example /v2/a pull,resolve,push ns=reg.example:5000',
  ]);
  t.strictSame(endpoints(root, 'words.example', 'a'), [
    'https m /v2/a pull,resolve mirror ns=words.example',
    'https n /v2/a pull,resolve,push mirror ns=words.example',
    'https words.example /v2/a pull,resolve,push',
  ]);
  for (const host of ['broken.example', 'wrong.example']) {
    t.equal(
      codeOf(() => endpoints(root, host, 'a')),
      'CONFIG_INVALID',
      host,
    );
  }
});

t.test('registries.conf of podman', async (t) => {
  const root = makeRoot(t, {
    'etc/containers/registries.conf': `
unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example/hub"
[[registry.mirror]]
location = "other.example:5000"
insecure = true
pull-from-mirror = "digest-only"
[[registry]]
location = "quay.io/secret"
blocked = true
[[registry]]
prefix = "quay.io/moved"
location = "new.example/there"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m.example"
[[registry]]
prefix = "*.wild.example"
insecure = true
[[registry]]
location = "overridden.example"
insecure = true
`,
    'etc/containers/registries.conf.d/10.conf': '[[registry]]\nlocation = "overridden.example"\nblocked = true',
    'etc/containers/registries.conf.d/20.conf':
      '[[registry]]\nprefix = "overridden.example"\nlocation = "final.example"',
    'etc/containers/registries.conf.d/notes.txt': 'not TOML',
    'home/.config/containers/registries.conf.d/30.conf': '[[registry]]\nlocation = "mine.example"\ninsecure = true',
  });
  t.strictSame(endpoints(root, 'docker.io', 'library/a'), [
    'https mirror.example /v2/hub/library/a pull,resolve mirror',
    'https|http other.example:5000 /v2/library/a pull mirror unverified',
    'https registry-1.docker.io /v2/library/a pull,resolve,push',
  ]);
  t.strictSame(endpoints(root, 'quay.io', 'moved/a/b'), [
    'https m.example /v2/a/b pull mirror',
    'https new.example /v2/there/a/b pull,resolve,push',
  ]);
  t.strictSame(
    endpoints(root, 'quay.io', 'movedtoo'),
    ['https quay.io /v2/movedtoo pull,resolve,push'],
    'whole components',
  );
  t.strictSame(endpoints(root, 'a.wild.example:5000', 'x'), [
    'https|http a.wild.example:5000 /v2/x pull,resolve,push unverified',
  ]);
  t.strictSame(endpoints(root, 'a.wild.example', 'x', true), ['https a.wild.example /v2/x pull,resolve,push']);
  t.strictSame(endpoints(root, 'overridden.example', 'x'), ['https final.example /v2/x pull,resolve,push']);
  t.strictSame(endpoints(root, 'mine.example', 'x'), ['https|http mine.example /v2/x pull,resolve,push unverified']);
  t.equal(
    codeOf(() => endpoints(root, 'quay.io', 'secret/a')),
    'REGISTRY_DENIED',
  );

  const both = makeRoot(t, {
    'etc/containers/registries.conf': '[[registry]]\nlocation = "a.example"\ninsecure = true',
    'etc/containerd/certs.d/a.example/hosts.toml': 'server = "https://b.example"',
    'etc/containerd/certs.d/_default/hosts.toml': 'server = "https://c.example"',
  });
  t.match(endpoints(both, 'a.example', 'x'), [/^https b\.example/], 'a file for the very host comes first');
  writeFileSync(join(both, 'etc/containers/registries.conf'), 'registry = 7');
  t.equal(
    codeOf(() => endpoints(both, 'd.example', 'x')),
    'CONFIG_INVALID',
  );
});

t.test('directories of certificates', async (t) => {
  const root = makeRoot(t, {
    'etc/docker/certs.d/a.example:5000/ca.crt': '',
    'etc/docker/certs.d/a.example:5000/me.cert': '',
    'etc/docker/certs.d/a.example:5000/me.key': '',
    'etc/containers/certs.d/b.example/x.crt': '',
    'etc/docker/certs.d/b.example/y.crt': '',
    'etc/containers/certs.d/localhost:5000/ca.crt': '',
    'etc/docker/certs.d/c.example/me.cert': '',
  });
  t.strictSame(endpoints(root, 'a.example:5000', 'x'), [
    'https a.example:5000 /v2/x pull,resolve,push ca=/etc/docker/certs.d/a.example:5000/ca.crt ' +
      'client=/etc/docker/certs.d/a.example:5000/me.cert+/etc/docker/certs.d/a.example:5000/me.key',
  ]);
  t.match(endpoints(root, 'b.example', 'x'), [/ ca=\/etc\/containers\/certs\.d\/b\.example\/x\.crt$/]);
  t.match(endpoints(root, 'localhost:5000', 'x'), [/^https localhost:5000 .* ca=/], 'then it must have TLS');
  t.equal(
    codeOf(() => endpoints(root, 'c.example', 'x')),
    'CONFIG_INVALID',
  );
});

/** A registry that has one manifest and one blob, or answers `status` to everything. */
function simple(t: Test, status = 200, tls?: ServerOptions): Promise<FakeServer> {
  return serve(
    t,
    ({ url }, response) => {
      const body = url.includes('/blobs/') ? blob : manifest;
      response.writeHead(status, { 'content-type': TYPE, 'content-length': String(body.length) }).end(body);
    },
    tls,
  );
}

function open(
  t: Test,
  host: string,
  root: string,
  options: Partial<RegistryOptions> = {},
  tlsVerify?: boolean,
): RegistryClient {
  const source = new ConfiguredEndpoints({ env: {}, root, tlsVerify });
  const client = new RegistryClient({
    host,
    endpoints: source,
    env: {},
    retry: { attempts: 2, baseMs: 1 },
    ...options,
  });
  t.teardown(() => client.close());
  return client;
}

t.test('mirrors are asked first, and passed over when they fail', async (t) => {
  const upstream = await simple(t);
  const good = await simple(t);
  const lacking = await simple(t, 404);
  const broken = await simple(t, 503);
  const dead = await simple(t);
  await dead.close();
  const wrong = await serve(t, (_request, response) => response.writeHead(200, { 'content-type': TYPE }).end('{}'));
  const hosts = (...mirrors: FakeServer[]): string =>
    [
      `server = "${upstream.origin}"`,
      ...mirrors.map(({ origin }) => `[host."${origin}"]\ncapabilities = ["pull"]`),
    ].join('\n');
  const rootOf = (...mirrors: FakeServer[]): string =>
    makeRoot(t, { 'etc/containerd/certs.d/reg.example/hosts.toml': hosts(...mirrors) });
  const reference = digest(manifest);

  const first = open(t, 'reg.example', rootOf(good));
  t.equal((await first.manifest('app', reference)).digest, reference);
  t.match(good.seen, [{ url: `/v2/app/manifests/${reference}?ns=reg.example` }], 'for whom is said');
  t.equal(upstream.seen.length, 0);
  t.equal((await first.manifest('app', 'tag')).digest, reference);
  t.match(upstream.seen, [{ url: '/v2/app/manifests/tag' }], 'a mirror that may not resolve is not asked for a tag');

  for (const mirror of [lacking, broken, dead, wrong]) {
    upstream.seen.length = 0;
    const client = open(t, 'reg.example', rootOf(mirror));
    t.equal((await client.manifest('app', reference)).digest, reference, mirror.host);
    t.equal(upstream.seen.length, 1);
    t.equal((await client.manifest('app', reference)).digest, reference);
  }
  t.equal(lacking.seen.length, 2);
  const many = open(t, 'reg.example', rootOf(dead, broken, good));
  t.equal((await many.blobSize('app', reference as never)) ?? 0, blob.length);

  const secret = open(t, 'reg.example', rootOf(good), {
    credentials: new FixedCredentials('reg.example', parseCredentials('me:secret')),
  });
  await secret.manifest('app', reference);
  t.notOk(
    good.seen.some(({ headers }) => 'authorization' in headers),
    'a mirror is not told who we are',
  );

  const asking = await serve(t, (_request, response) =>
    response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end(),
  );
  const moved = makeRoot(t, { 'etc/containerd/certs.d/reg.example/hosts.toml': `server = "${asking.origin}"` });
  const typed = open(t, 'reg.example', moved, {
    credentials: new FixedCredentials('reg.example', parseCredentials('me:secret')),
  });
  const unknown = await failure(typed.manifest('app', 'latest'));
  t.match(unknown.hint, `lamina login ${asking.host}`, 'under its own name its credentials are looked for');
  t.notOk(
    asking.seen.some(({ headers }) => 'authorization' in headers),
    'what was typed for a host is for that host',
  );

  await upstream.close();
  const last = await failure(open(t, 'reg.example', rootOf(lacking)).manifest('app', reference));
  t.match(
    last,
    { code: 'REGISTRY_UNREACHABLE', details: { host: upstream.host } },
    'what the registry itself says counts',
  );
});

/** As of a request that was given up because nothing came. */
const silence = new LaminaError('REGISTRY_UNREACHABLE', 'nothing comes', { details: { transient: true } });

t.test('a mirror that hangs is passed over once a request to it was given up', async (t) => {
  let mode: 'serves' | 'hangs' | 'stops' = 'serves';
  const upstream = await simple(t);
  const mirror = await serve(t, (_request, response) => {
    if (mode === 'hangs') return;
    response.writeHead(200, { 'content-type': TYPE, 'content-length': String(blob.length) });
    if (mode === 'stops') response.write(blob.subarray(0, 2));
    else response.end(blob);
  });
  const root = makeRoot(t, {
    'etc/containerd/certs.d/reg.example/hosts.toml': `server = "${upstream.origin}"\n[host."${mirror.origin}"]\n`,
  });
  const reference = parseDigest(digest(blob));
  const read = async (client: RegistryClient, signal?: AbortSignal): Promise<void> => {
    const { stream } = await client.blob('app', reference, { signal, retry: { attempts: 1 } });
    for await (const bytes of stream) t.ok(bytes.length > 0);
  };
  for (mode of ['hangs', 'stops'] as const) {
    const client = open(t, 'reg.example', root);
    for (const reason of [new Error('nobody wants it any more'), silence]) {
      const before = mirror.seen.length;
      const controller = new AbortController();
      const reading = read(client, controller.signal);
      while (mirror.seen.length === before) await sleep(5);
      controller.abort(reason);
      await t.rejects(reading, { message: reason.message });
      t.equal(upstream.seen.length, 0);
    }
    const before = mirror.seen.length;
    await read(client);
    t.equal(upstream.seen.length, 1, mode);
    t.equal(mirror.seen.length, before);
    upstream.seen.length = 0;
  }
});

t.test('a mirror that hangs before it is known whether it has TLS', async (t) => {
  const upstream = await simple(t);
  let connections = 0;
  const hanging = createTcpServer((socket) => {
    connections++;
    t.teardown(() => socket.destroy());
  });
  await new Promise<void>((resolve) => hanging.listen(0, '127.0.0.1', resolve));
  t.teardown(() => hanging.close());
  const { port } = hanging.address() as AddressInfo;
  const root = makeRoot(t, {
    'etc/containers/registries.conf': `[[registry]]
prefix = "reg.example"
location = "${upstream.host}"
[[registry.mirror]]
location = "127.0.0.1:${port}"`,
  });
  const client = open(t, 'reg.example', root);
  const controller = new AbortController();
  const reading = client.manifest('app', 'latest', { signal: controller.signal });
  while (connections === 0) await sleep(5);
  controller.abort(silence);
  await t.rejects(reading, { message: 'nothing comes' });
  t.equal((await client.manifest('app', 'latest')).digest, digest(manifest));
});

t.test('a blob is pushed where the registry lacks it, though a mirror has it', async (t) => {
  const mirror = await simple(t);
  const upstream = await serve(t, ({ method, url }, response) => {
    const status = { HEAD: 404, POST: 202, PUT: 201 }[method] ?? 200;
    response.writeHead(status, method === 'POST' ? { location: `${url}1` } : {}).end();
  });
  const root = makeRoot(t, {
    'etc/containers/registries.conf': `[[registry]]
location = "${upstream.host}"
[[registry.mirror]]
location = "${mirror.host}"`,
  });
  const pushed = { digest: parseDigest(digest(blob)), size: blob.length, bytes: () => blob };
  t.equal(await open(t, upstream.host, root).pushBlob('app', pushed), true);
  t.equal(upstream.seen.at(-1)?.body, blob.toString());
  t.strictSame(mirror.seen, []);
});

t.test('TLS that fails once, and TLS that comes later, are used when they are there', async (t) => {
  if (skipUnless(t, commandExists('openssl'), 'needs openssl')) return;
  const { cert, key } = makeCertificates(tempDir(t));
  const tls = await simple(t, 200, { cert: readFileSync(cert), key: readFileSync(key) });
  const serving = await simple(t);
  // As servers with TLS answer.
  const refusing = await simple(t, 400);
  const sockets = new Set<Socket>();
  let cuts = 1;
  let plain = false;
  const front = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('data', (bytes) => {
      const hello = bytes[0] === 0x16;
      if (hello && !plain && cuts-- > 0) {
        socket.destroy();
        return;
      }
      const { host } = plain ? serving : hello ? tls : refusing;
      const up = connect(Number(host.split(':')[1]), '127.0.0.1');
      up.on('error', () => socket.destroy());
      up.write(bytes);
      socket.pipe(up).pipe(socket);
    });
  });
  await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(front.address() as AddressInfo).port}`;
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    front.close();
  });
  const root = makeRoot(t, {});
  t.equal((await open(t, host, root).manifest('app', 'latest')).digest, digest(manifest), 'at the second attempt');
  cuts = 1;
  const patient = open(t, host, root, { retry: { attempts: 1 } });
  t.match(await failure(patient.manifest('app', 'latest')), {
    code: 'REGISTRY_UNREACHABLE',
    details: { transient: true },
  });
  t.equal((await patient.manifest('app', 'latest')).digest, digest(manifest));

  plain = true;
  const client = open(t, host, root);
  t.equal((await client.manifest('app', 'latest')).digest, digest(manifest), 'without TLS');
  plain = false;
  for (const socket of sockets) socket.destroy();
  t.equal(await codeOfRejection(client.manifest('app', 'latest')), 'REGISTRY_PROTOCOL');
  t.equal((await client.manifest('app', 'latest')).digest, digest(manifest), 'with TLS from now on');
});

t.test('TLS: a CA of our own, none, a wrong one, a client certificate', async (t) => {
  const tools = ['openssl', 'docker-registry', 'skopeo'];
  if (skipUnless(t, tools.every(commandExists), `needs ${tools.join(', ')}`)) return;
  const certificates = makeCertificates(tempDir(t));
  const other = makeCertificates(tempDir(t));
  const { host } = await startRegistry(t, { tls: certificates });
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content: 'x' }] }] });
  push(image.reference, host, 'app');
  const read = async (root: string, tlsVerify?: boolean): Promise<string> => {
    const client = open(t, host, root, {}, tlsVerify);
    return client.manifest('app', 'latest').then(
      ({ digest }) => digest,
      (e: unknown) => (e as { code: string }).code,
    );
  };
  const none = makeRoot(t, {});
  const withCa = (ca: string): string => {
    const root = makeRoot(t, { [`etc/containers/certs.d/${host}/ca.crt`]: '' });
    copyFileSync(ca, join(root, `etc/containers/certs.d/${host}/ca.crt`));
    return root;
  };
  t.equal(await read(none), image.manifest.digest, 'on this machine any certificate will do');
  t.equal(await read(none, true), 'REGISTRY_UNREACHABLE', 'unless it is asked for');
  t.equal(await read(none, false), image.manifest.digest);
  t.equal(await read(withCa(certificates.ca)), image.manifest.digest);
  t.equal(await read(withCa(certificates.ca), true), image.manifest.digest);
  t.equal(await read(withCa(other.ca)), 'REGISTRY_UNREACHABLE', 'signed by another CA');
  const absent = makeRoot(t, { [`etc/containerd/certs.d/${host}/hosts.toml`]: 'ca = "absent.crt"' });
  t.equal(await read(absent), 'CONFIG_INVALID');
  const error = await failure(open(t, host, none, {}, true).manifest('app', 'latest'));
  t.match(error, { message: /its certificate is not trusted/, details: { transient: false } });
  t.match(error.hint, `/etc/containers/certs.d/${host}/ca.crt`);

  const [ca, cert, key] = [certificates.ca, certificates.cert, certificates.key].map((file) => readFileSync(file));
  const strict = await simple(t, 200, { ca, cert, key, requestCert: true, rejectUnauthorized: true });
  const known = makeRoot(t, {});
  const directory = join(known, 'etc/containers/certs.d', strict.host);
  mkdirSync(directory, { recursive: true });
  copyFileSync(certificates.ca, join(directory, 'ca.crt'));
  t.equal(await codeOfRejection(open(t, strict.host, known).manifest('app', 'latest')), 'REGISTRY_UNREACHABLE');
  copyFileSync(certificates.cert, join(directory, 'client.cert'));
  copyFileSync(certificates.key, join(directory, 'client.key'));
  t.equal(
    (await open(t, strict.host, known).manifest('app', 'latest')).digest,
    digest(manifest),
    'a client certificate',
  );

  const plain = await simple(t);
  const leak = await serve(
    t,
    (_request, response) => response.writeHead(307, { location: `${plain.origin}/x` }).end(),
    { cert, key },
  );
  const trusting = makeRoot(t, { [`etc/containerd/certs.d/${leak.host}/hosts.toml`]: `ca = "${certificates.ca}"` });
  t.equal(
    await codeOfRejection(open(t, leak.host, trusting).manifest('app', 'latest')),
    'REGISTRY_PROTOCOL',
    'away from TLS',
  );
  t.equal(plain.seen.length, 0);
  const refused = await failure(open(t, plain.host, none, {}, true).manifest('app', 'latest'));
  t.equal(refused.code, 'REGISTRY_UNREACHABLE', 'no TLS where it is wanted');
  t.equal(plain.seen.length, 0);
});

/** An HTTP proxy that notes what it is asked for. */
async function startProxy(t: Test): Promise<{ origin: string; asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method ?? ''} ${request.url ?? ''} ${request.headers['proxy-authorization'] ?? ''}`.trim());
    const url = new URL(request.url ?? '');
    const up = httpRequest(
      { host: '127.0.0.1', port: url.port, path: url.pathname, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    up.on('error', () => response.destroy());
    request.pipe(up);
  });
  server.on('connect', (request: IncomingMessage, socket: Duplex) => {
    asked.push(`CONNECT ${request.url ?? ''}`);
    const up = connect(Number(request.url?.split(':').at(-1)), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      up.pipe(socket).pipe(up);
    });
    up.on('error', () => socket.destroy());
    socket.on('error', () => up.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return { origin: `http://me:pass@127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

t.test('proxies from the environment', async (t) => {
  if (skipUnless(t, commandExists('openssl'), 'needs openssl')) return;
  const proxy = await startProxy(t);
  const plain = await simple(t);
  const port = plain.host.split(':')[1] ?? '';
  const conf = (location: string): string => makeRoot(t, { 'etc/containers/registries.conf': location });
  const insecure = conf(`[[registry]]\nlocation = "reg.example:${port}"\ninsecure = true`);
  const viaHttp = open(t, `reg.example:${port}`, insecure, { env: { HTTP_PROXY: proxy.origin } });
  t.equal((await viaHttp.manifest('app', 'latest')).digest, digest(manifest));
  const basic = `Basic ${Buffer.from('me:pass').toString('base64')}`;
  t.ok(
    proxy.asked.includes(`GET http://reg.example:${port}/v2/app/manifests/latest ${basic}`),
    'plain HTTP without CONNECT',
  );

  const { cert, key } = makeCertificates(tempDir(t));
  const secure = await simple(t, 200, { cert: readFileSync(cert), key: readFileSync(key) });
  const securePort = secure.host.split(':')[1] ?? '';
  proxy.asked.length = 0;
  const skip = conf(`[[registry]]\nlocation = "reg.example:${securePort}"\ninsecure = true`);
  const viaTls = open(t, `reg.example:${securePort}`, skip, { env: { https_proxy: proxy.origin } });
  t.equal((await viaTls.manifest('app', 'latest')).digest, digest(manifest));
  t.strictSame([...new Set(proxy.asked)], [`CONNECT reg.example:${securePort}`]);

  proxy.asked.length = 0;
  const local = open(t, plain.host, makeRoot(t, {}), { env: { HTTP_PROXY: proxy.origin, HTTPS_PROXY: proxy.origin } });
  t.equal((await local.manifest('app', 'latest')).digest, digest(manifest));
  const env = { HTTP_PROXY: proxy.origin, HTTPS_PROXY: proxy.origin, NO_PROXY: 'reg.invalid' };
  const except = open(t, 'reg.invalid', makeRoot(t, {}), { env });
  t.equal(await codeOfRejection(except.manifest('app', 'latest')), 'REGISTRY_UNREACHABLE');
  t.strictSame(proxy.asked, [], 'neither for this machine nor for what NO_PROXY names');
});
