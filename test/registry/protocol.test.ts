/** What registries, CDNs and token servers answer, well and badly, by servers of the test's own. */
import type { ServerResponse } from 'node:http';
import { inspect } from 'node:util';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { parseDigest } from '../../src/digest/index.js';
import { LaminaError } from '../../src/errors.js';
import { parseChallenges } from '../../src/source/registry/challenge.js';
import { RegistryClient, type RegistryOptions } from '../../src/source/registry/client.js';
import { FixedCredentials, type Credentials } from '../../src/source/registry/credentials.js';
import { isTransient, parseRetryAfter } from '../../src/source/registry/failures.js';
import { Secret } from '../../src/source/registry/secret.js';
import { codeOfRejection, failure } from '../support/failure.js';
import { digest as digestOf } from '../support/images.js';
import { serve, type FakeServer, type Handler, type Seen } from '../support/registry.js';

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';

/** Without waits that a test would feel. */
const quick = { baseMs: 2, capMs: 10 };

function open(t: Test, host: string, options: Partial<RegistryOptions> = {}): RegistryClient {
  const client = new RegistryClient({ host, retry: quick, ...options });
  t.teardown(() => client.close());
  return client;
}

function answer(
  response: ServerResponse,
  status: number,
  headers: Record<string, string> = {},
  body: string | Buffer = '',
): void {
  response.writeHead(status, { 'content-length': String(Buffer.byteLength(body)), ...headers }).end(body);
}

function answerJson(
  response: ServerResponse,
  status: number,
  document: unknown,
  headers: Record<string, string> = {},
): void {
  answer(response, status, { 'content-type': 'application/json', ...headers }, JSON.stringify(document));
}

/** Requests other than the one by which the client finds out about TLS. */
function asked(server: FakeServer): Seen[] {
  return server.seen.filter(({ url }) => url !== '/v2/');
}

/** Answers the question for TLS itself. */
function registry(t: Test, handler: Handler): Promise<FakeServer> {
  return serve(t, (request, response, n) => {
    if (request.url === '/v2/') answer(response, 200);
    else handler(request, response, n - 1);
  });
}

const manifest = Buffer.from('{"schemaVersion":2,"config":{},"layers":[]}');
const manifestDigest = parseDigest(digestOf(manifest));
const blob = Buffer.from('0123456789'.repeat(10));
const blobDigest = parseDigest(digestOf(blob));

async function bytesOf(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const bytes of stream) parts.push(bytes);
  return Buffer.concat(parts).toString();
}

const alice: Credentials = { kind: 'password', username: 'alice', password: new Secret('wonderland') };
const aliceHeader = `Basic ${Buffer.from('alice:wonderland').toString('base64')}`;

t.test('parseChallenges reads one or several challenges', async (t) => {
  const table: [string, [string, Record<string, string>][]][] = [
    ['Basic realm="x"', [['basic', { realm: 'x' }]]],
    ['Basic realm=x', [['basic', { realm: 'x' }]]],
    ['basic', [['basic', {}]]],
    [
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
      [
        [
          'bearer',
          { realm: 'https://auth.docker.io/token', service: 'registry.docker.io', scope: 'repository:a/b:pull,push' },
        ],
      ],
    ],
    [
      'Bearer realm = "a\\"b" , Service=c, Basic realm="d"',
      [
        ['bearer', { realm: 'a"b', service: 'c' }],
        ['basic', { realm: 'd' }],
      ],
    ],
    [
      'Negotiate, Basic realm="a, b"',
      [
        ['negotiate', {}],
        ['basic', { realm: 'a, b' }],
      ],
    ],
    [
      'Negotiate YWJj==, Bearer realm="r"',
      [
        ['negotiate', {}],
        ['bearer', { realm: 'r' }],
      ],
    ],
    ['Bearer realm="r",error="invalid_token"', [['bearer', { realm: 'r', error: 'invalid_token' }]]],
    ['Bearer realm="a",realm="b"', [['bearer', { realm: 'a' }]]],
    ['', []],
    ['"', []],
    [', ,', []],
    ['Bearer realm="unclosed', [['bearer', {}]]],
  ];
  for (const [header, wanted] of table) {
    const got = parseChallenges(header).map(({ scheme, params }) => [scheme, Object.fromEntries(params)]);
    t.strictSame(got.slice(0, wanted.length), wanted, JSON.stringify(header));
  }
});

t.test('a Secret shows itself nowhere', async (t) => {
  const secret = new Secret('hunter2');
  const shown = [
    String(secret),
    JSON.stringify({ secret }),
    inspect({ secret }, { showHidden: true, depth: 9 }),
    `${inspect(secret)}`,
  ];
  for (const text of shown) t.notMatch(text, 'hunter2');
  t.equal(secret.reveal(), 'hunter2');
});

/** A registry that wants tokens of its own token server, which gives "token-1", "token-2" .. */
async function tokenRegistry(
  t: Test,
  { expires, valid = () => true }: { expires?: number; valid?: (token: string) => boolean },
): Promise<{ server: FakeServer; tokens: FakeServer }> {
  const tokens = await serve(t, (_request, response, n) =>
    answerJson(response, 200, { token: `token-${n}`, ...(expires === undefined ? {} : { expires_in: expires }) }),
  );
  const server = await registry(t, ({ headers }, response) => {
    const token = /^Bearer (token-\d+)$/.exec(headers.authorization ?? '')?.[1];
    if (token !== undefined && valid(token)) return answer(response, 200, { 'content-type': OCI_MANIFEST }, manifest);
    const challenge = `Bearer realm="${tokens.origin}/token?x=y",service="a service",scope="repository:app:pull"`;
    answerJson(
      response,
      401,
      { errors: [{ code: 'UNAUTHORIZED', message: 'who are you' }] },
      { 'www-authenticate': challenge },
    );
  });
  return { server, tokens };
}

t.test('a token is asked for once, with the scope and who we are', async (t) => {
  const { server, tokens } = await tokenRegistry(t, {});
  const client = open(t, server.host, { credentials: new FixedCredentials(server.host, alice) });
  await client.manifest('app', 'one');
  await Promise.all([client.manifest('app', 'two'), client.manifest('app', 'three')]);
  t.strictSame(
    tokens.seen.map(({ method, url, headers }) => [method, url, headers.authorization]),
    [['GET', '/token?x=y&service=a+service&scope=repository%3Aapp%3Apull&account=alice', aliceHeader]],
  );
  t.equal(asked(server).filter(({ headers }) => headers.authorization === undefined).length, 1, 'one 401 in all');
  t.notOk(
    server.seen.some(({ headers }) => headers.authorization?.startsWith('Basic')),
    'the password goes to the token server',
  );

  const anonymous = open(t, server.host);
  await anonymous.manifest('app', 'one');
  t.equal(tokens.seen[1]?.headers.authorization, undefined, 'without credentials a token is asked for all the same');
});

t.test('many at once ask for one token', async (t) => {
  const { server, tokens } = await tokenRegistry(t, {});
  const client = open(t, server.host);
  await client.manifest('app', 'first');
  await Promise.all(Array.from({ length: 8 }, (_, i) => client.manifest('other', `tag${i}`)));
  t.equal(tokens.seen.length, 2, 'one for each repository');
});

t.test('a token that expires is asked for anew, before it does, and after a 401', async (t) => {
  let valid = (_token: string): boolean => true;
  const { server, tokens } = await tokenRegistry(t, { expires: 3600, valid: (token) => valid(token) });
  const client = open(t, server.host);
  await client.manifest('app', 'one');
  valid = (token) => token !== 'token-1';
  await client.manifest('app', 'two');
  t.equal(tokens.seen.length, 2, 'the registry has forgotten the first');
  valid = () => false;
  const error = await failure(client.manifest('app', 'three'));
  t.match(error, { code: 'REGISTRY_AUTH', message: /UNAUTHORIZED: who are you/, details: { status: 401 } });
  t.equal(tokens.seen.length, 3, 'once for each request, not again and again');

  const short = await tokenRegistry(t, { expires: 0.001 });
  const other = open(t, short.server.host);
  await other.manifest('app', 'one');
  await other.manifest('app', 'two');
  t.equal(short.tokens.seen.length, 2, 'a token at its end is not used');
});

t.test('an identity token is exchanged by POST; a bearer token is used as it is', async (t) => {
  const { server, tokens } = await tokenRegistry(t, {});
  const identity: Credentials = { kind: 'identity', token: new Secret('the-identity') };
  await open(t, server.host, { credentials: new FixedCredentials(server.host, identity) }).manifest('app', 'one');
  t.match(tokens.seen[0], { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' } });
  t.strictSame(Object.fromEntries(new URLSearchParams(tokens.seen[0]?.body)), {
    service: 'a service',
    scope: 'repository:app:pull',
    grant_type: 'refresh_token',
    client_id: 'lamina',
    refresh_token: 'the-identity',
  });
  const bearer: Credentials = { kind: 'bearer', token: new Secret('token-77') };
  await open(t, server.host, { credentials: new FixedCredentials(server.host, bearer) }).manifest('app', 'one');
  t.equal(tokens.seen.length, 1);
});

t.test('a token server that refuses or answers nonsense', async (t) => {
  const answers: [number, unknown, string][] = [
    [401, { details: 'incorrect username or password' }, 'REGISTRY_AUTH'],
    [403, {}, 'REGISTRY_DENIED'],
    [200, {}, 'REGISTRY_PROTOCOL'],
    [200, { token: 'a\r\nb: c' }, 'REGISTRY_PROTOCOL'],
    [200, [], 'REGISTRY_PROTOCOL'],
    [302, {}, 'REGISTRY_PROTOCOL'],
  ];
  for (const [status, document, code] of answers) {
    const tokens = await serve(t, (_request, response) => answerJson(response, status, document, { location: '/x' }));
    const challenge = { 'www-authenticate': `Bearer realm="${tokens.origin}/t"` };
    const server = await registry(t, (_request, response) => answer(response, 401, challenge));
    const client = open(t, server.host, { credentials: new FixedCredentials(server.host, alice) });
    const error = await failure(client.manifest('app', 'one'));
    t.equal(error.code, code, `${status} ${JSON.stringify(document)}`);
    t.notMatch(`${error.stack ?? ''} ${inspect(error, { depth: 9 })}`, /wonderland|YWxpY2U6/);
    t.equal(tokens.seen.length, status === 302 ? 11 : 1, 'redirects in circles come to an end');
  }
  for (const realm of ['', 'nowhere', 'file:///etc/passwd']) {
    const server = await registry(t, (_request, response) =>
      answer(response, 401, { 'www-authenticate': `Bearer realm="${realm}"` }),
    );
    t.equal(await codeOfRejection(open(t, server.host).manifest('app', 'one')), 'REGISTRY_PROTOCOL', realm);
  }
});

t.test('a login, a logout and a new password count as soon as a token server refuses what was known', async (t) => {
  const headerOf = (password: string): string => `Basic ${Buffer.from(`alice:${password}`).toString('base64')}`;
  const passwordOf = (password: string): Credentials => ({ ...alice, password: new Secret(password) });
  for (const status of [400, 401, 403]) {
    let right = 'wonderland';
    let known: Credentials | undefined;
    let found = 0;
    const tokens = await serve(t, ({ headers }, response) => {
      if (headers.authorization !== headerOf(right)) return answer(response, status);
      answerJson(response, 200, { token: `token-of-${right}`, expires_in: 0.001 });
    });
    const server = await registry(t, ({ headers }, response) => {
      if (headers.authorization === `Bearer token-of-${right}`) {
        return answer(response, 200, { 'content-type': OCI_MANIFEST }, manifest);
      }
      answer(response, 401, { 'www-authenticate': `Bearer realm="${tokens.origin}/t"` });
    });
    const find = async (): Promise<Credentials | undefined> => (found++, known);
    const client = open(t, server.host, { credentials: { find } });
    const read = (): Promise<string> =>
      client.manifest('app', 'one').then(
        () => 'read',
        (e: unknown) => (e as { code: string }).code,
      );
    const refused = { 400: 'REGISTRY_PROTOCOL', 401: 'REGISTRY_AUTH', 403: 'REGISTRY_DENIED' }[status];
    t.equal(await read(), refused, 'nobody has logged in');
    known = passwordOf('wonderland');
    t.equal(await read(), 'read', `after a login (${status})`);
    t.equal(await read(), 'read');
    const before = found;
    t.equal(await read(), 'read');
    t.equal(found, before, 'what works is not looked for again');
    right = 'rabbit';
    t.equal(await read(), refused, 'another password is wanted');
    known = passwordOf('rabbit');
    t.equal(await read(), 'read', 'after another login');
    right = 'hatter';
    known = passwordOf('hatter');
    t.equal(await read(), 'read', 'a helper has a new one by the time that the old one is refused');
    known = undefined;
    right = 'queen';
    const asks = tokens.seen.length;
    t.equal(await read(), refused, 'after a logout');
    t.equal(tokens.seen.length, asks + 2, 'as who we were, and as nobody');
  }
});

t.test('many that wait for a token that is refused ask once', async (t) => {
  const tokens = await serve(t, (_request, response) => answer(response, 401));
  const server = await registry(t, (_request, response) =>
    answer(response, 401, { 'www-authenticate': `Bearer realm="${tokens.origin}/t",scope="one"` }),
  );
  const client = open(t, server.host, { credentials: new FixedCredentials(server.host, alice) });
  await client.manifest('app', 'first').catch(() => undefined);
  const asks = tokens.seen.length;
  const codes = await Promise.all(
    Array.from({ length: 8 }, (_, i) => codeOfRejection(client.manifest('app', `tag${i}`))),
  );
  t.strictSame([...new Set(codes)], ['REGISTRY_AUTH']);
  t.equal(tokens.seen.length, asks + 1);
});

t.test('a password is looked for anew when a registry answers 403 to the one that it was sent', async (t) => {
  const expired = { errors: [{ code: 'DENIED', message: 'Your authorization token has expired.' }] };
  let right = 'wonderland';
  let known = right;
  const server = await registry(t, ({ headers }, response) => {
    if (headers.authorization === undefined) return answer(response, 401, { 'www-authenticate': 'Basic realm="r"' });
    if (headers.authorization !== `Basic ${Buffer.from(`alice:${right}`).toString('base64')}`) {
      return answerJson(response, 403, expired);
    }
    answer(response, 200, { 'content-type': OCI_MANIFEST }, manifest);
  });
  const find = async (): Promise<Credentials> => ({ ...alice, password: new Secret(known) });
  const client = open(t, server.host, { credentials: { find } });
  t.equal((await client.manifest('app', 'one')).digest, manifestDigest);
  right = 'rabbit';
  const before = asked(server).length;
  t.match(await failure(client.manifest('app', 'one')), { code: 'REGISTRY_DENIED', message: /has expired/ });
  t.equal(asked(server).length, before + 1, 'the same is not sent twice');
  known = 'rabbit';
  t.equal((await client.manifest('app', 'one')).digest, manifestDigest);
});

t.test('a token after a login has the rights of whoever has logged in', async (t) => {
  const known: Credentials[] = [];
  const tokens = await serve(t, ({ headers }, response) =>
    answerJson(response, 200, { token: headers.authorization === aliceHeader ? 'alice' : 'nobody', expires_in: 3600 }),
  );
  const server = await registry(t, ({ headers }, response) => {
    if (headers.authorization === undefined) {
      return answer(response, 401, { 'www-authenticate': `Bearer realm="${tokens.origin}/t"` });
    }
    if (headers.authorization !== 'Bearer alice') return answer(response, 403);
    answer(response, 200, { 'content-type': OCI_MANIFEST }, manifest);
  });
  const client = open(t, server.host, { credentials: { find: async () => known[0] } });
  t.equal(await codeOfRejection(client.manifest('app', 'one')), 'REGISTRY_DENIED');
  known.push(alice);
  t.equal((await client.manifest('app', 'one')).digest, manifestDigest);
});

t.test('a token server that redirects', async (t) => {
  const other = await serve(t, (_request, response) => answerJson(response, 200, { access_token: 'elsewhere' }));
  const tokens = await serve(t, ({ url }, response) => {
    if (url.startsWith('/moved')) return answerJson(response, 200, { token: 'moved' });
    const location = url.includes('away') ? `${other.origin}/token` : `/moved${url}`;
    answer(response, 307, { location });
  });
  for (const [path, token] of Object.entries({ t: 'moved', away: 'elsewhere' })) {
    const server = await registry(t, ({ headers }, response) => {
      if (headers.authorization !== `Bearer ${token}`) {
        return answer(response, 401, { 'www-authenticate': `Bearer realm="${tokens.origin}/${path}"` });
      }
      answer(response, 200, { 'content-type': OCI_MANIFEST }, manifest);
    });
    const client = open(t, server.host, { credentials: new FixedCredentials(server.host, alice) });
    t.equal((await client.manifest('app', 'one')).digest, manifestDigest, path);
  }
  t.equal(tokens.seen[1]?.headers.authorization, aliceHeader, 'on the same host we stay who we are');
  t.equal(other.seen.length, 1);
  t.notOk('authorization' in (other.seen[0]?.headers ?? {}), 'another host does not get the password');

  const identity: Credentials = { kind: 'identity', token: new Secret('the-identity') };
  const server = await registry(t, (_request, response) =>
    answer(response, 401, { 'www-authenticate': `Bearer realm="${tokens.origin}/away"` }),
  );
  const client = open(t, server.host, { credentials: new FixedCredentials(server.host, identity) });
  t.equal(await codeOfRejection(client.manifest('app', 'one')), 'REGISTRY_PROTOCOL');
  t.equal(other.seen.length, 1, 'what is sent in a body goes nowhere else');
});

t.test('blobs from a CDN: no Authorization goes there, and its address is used until it expires', async (t) => {
  let expired = false;
  let signature = 0;
  const cdn = await serve(t, ({ url, headers }, response) => {
    if (url !== `/blob?signature=${signature}` || expired) return answer(response, 403, {}, 'Request has expired');
    const [, first = '0', last = '99'] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
    const end = last === '' ? 99 : Number(last);
    const range = { 'content-range': `bytes ${first}-${end}/100` };
    answer(response, 206, range, blob.subarray(Number(first), end + 1));
  });
  const server = await registry(t, ({ headers }, response) => {
    if (headers.authorization !== aliceHeader) return answer(response, 401, { 'www-authenticate': 'Basic realm="r"' });
    expired = false;
    answer(response, 307, { location: `${cdn.origin}/blob?signature=${++signature}` });
  });
  const client = open(t, server.host, { credentials: new FixedCredentials(server.host, alice) });
  const read = async (offset: number, length: number): Promise<string> => {
    const { stream, total, host, ...rest } = await client.blob('app', blobDigest, { offset, length });
    t.strictSame([rest.offset, rest.length, rest.partial, total, host], [offset, length, true, 100, cdn.host]);
    return bytesOf(stream);
  };
  t.equal(await read(3, 4), '3456');
  t.equal(await read(95, 5), '56789');
  t.equal(asked(server).length, 2, 'the 401 and the redirect: the second part comes from the CDN at once');
  expired = true;
  t.equal(await read(10, 2), '01');
  t.equal(asked(server).length, 3, 'the registry gave another address');
  t.notOk(
    cdn.seen.some(({ headers }) => 'authorization' in headers),
    'the CDN never saw who we are',
  );
});

t.test('the registry is asked again where the place that it redirected to fails, however it does', async (t) => {
  const ranged = ({ headers }: Seen, response: ServerResponse): void => {
    const [, first = '0', last = '99'] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '') ?? [];
    const range = { 'content-range': `bytes ${first}-${last}/100` };
    answer(response, 206, range, blob.subarray(Number(first), Number(last) + 1));
  };
  const good = await serve(t, ranged);
  const page = 'Log in, please.';
  const later: [string, Handler][] = [
    ['a page to log in', (_request, response) => answer(response, 200, { 'content-type': 'text/html' }, page)],
    ['a page of unknown length', (_request, response) => void response.writeHead(200).end(page)],
    ['a redirect in circles', ({ url }, response) => answer(response, 302, { location: url })],
    ['a redirect to nowhere', (_request, response) => answer(response, 302)],
    ['another part', (_request, response) => answer(response, 206, { 'content-range': 'bytes 0-4/100' }, '01234')],
    ['another blob', (_request, response) => answer(response, 206, { 'content-range': 'bytes 10-14/15' }, '01234')],
    ['nothing there', (_request, response) => answer(response, 416, { 'content-range': 'bytes */5' })],
    ['an error', (_request, response) => answer(response, 410)],
  ];
  for (const [what, handler] of later) {
    let moved = false;
    const old = await serve(t, (request, response, n) => (moved ? handler : ranged)(request, response, n));
    const server = await registry(t, (_request, response) =>
      answer(response, 307, { location: `${moved ? good.origin : old.origin}/x` }),
    );
    const client = open(t, server.host);
    const read = async (offset: number): Promise<string> => {
      const part = { offset, length: 5, size: 100 };
      return bytesOf((await client.blob('app', blobDigest, part)).stream);
    };
    t.equal(await read(0), '01234');
    moved = true;
    t.equal(await read(10), '01234', what);
    t.equal(await read(20), '01234');
    t.equal(asked(server).length, 2, 'and the new place is kept');
  }
});

t.test('a place whose bytes are cut off is not gone to again; one that the caller leaves is', async (t) => {
  let cut = false;
  const cdn = await serve(t, (_request, response) => {
    response.writeHead(206, { 'content-range': 'bytes 0-9/100', 'content-length': 10 });
    response.write(blob.subarray(0, 5));
    if (cut) setTimeout(() => response.destroy(), 5);
  });
  const server = await registry(t, (_request, response) => answer(response, 307, { location: `${cdn.origin}/x` }));
  const client = open(t, server.host);
  const part = { offset: 0, length: 10, size: 100 };
  const controller = new AbortController();
  const left = await client.blob('app', blobDigest, { ...part, signal: controller.signal });
  controller.abort(new Error('nobody wants it any more'));
  await t.rejects(bytesOf(left.stream), { message: 'nobody wants it any more' });
  const silence = new AbortController();
  const silent = await client.blob('app', blobDigest, { ...part, signal: silence.signal });
  t.equal(asked(server).length, 1);
  silence.abort(new LaminaError('REGISTRY_UNREACHABLE', 'silent', { details: { transient: true } }));
  await t.rejects(bytesOf(silent.stream), { message: 'silent' });
  cut = true;
  const broken = await client.blob('app', blobDigest, part);
  t.equal(asked(server).length, 2, 'a place that was silent is asked for anew');
  await t.rejects(bytesOf(broken.stream), { code: 'REGISTRY_UNREACHABLE' });
  await (await client.blob('app', blobDigest, part)).cancel();
  t.equal(asked(server).length, 3, 'and one that cuts');
});

t.test('redirects: in circles, to nowhere, on the same host', async (t) => {
  const circle = await registry(t, ({ url }, response) => answer(response, 302, { location: url }));
  t.equal(await codeOfRejection(open(t, circle.host).blob('app', blobDigest)), 'REGISTRY_PROTOCOL');
  for (const location of ['http://[', 'ftp://x/y', undefined]) {
    const server = await registry(t, (_request, response) =>
      answer(response, 302, location === undefined ? {} : { location }),
    );
    t.equal(await codeOfRejection(open(t, server.host).blob('app', blobDigest)), 'REGISTRY_PROTOCOL', String(location));
  }
  const moved = await registry(t, ({ url, headers }, response) => {
    if (headers.authorization === undefined) return answer(response, 401, { 'www-authenticate': 'Basic realm="r"' });
    if (url.startsWith('/v2/')) return answer(response, 301, { location: '/elsewhere' });
    answer(response, 200, { 'content-type': OCI_MANIFEST }, manifest);
  });
  const client = open(t, moved.host, { credentials: new FixedCredentials(moved.host, alice) });
  t.equal((await client.manifest('app', 'one')).digest, manifestDigest, 'on the same host we stay who we are');
});

t.test('answers to ranges', async (t) => {
  const ask = async (status: number, headers: Record<string, string>, body: Buffer, length: number | null = 5) => {
    const server = await registry(t, (_request, response) => answer(response, status, headers, body));
    return open(t, server.host).blob('app', blobDigest, { offset: 10, length: length ?? undefined });
  };
  const whole = await ask(200, {}, blob);
  t.match(whole, { offset: 0, length: 100, total: 100, partial: false }, '200: the whole blob, and said to be so');
  t.equal(await bytesOf(whole.stream), blob.toString());
  const less = await ask(206, { 'content-range': 'bytes 10-12/100' }, blob.subarray(10, 13));
  t.match(less, { offset: 10, length: 3, total: 100, partial: true }, 'a part of the part');
  t.equal(await bytesOf(less.stream), '012');
  t.match(await ask(206, { 'content-range': 'bytes 10-14/*' }, blob.subarray(10, 15)), { total: undefined });
  const open_ = await ask(206, { 'content-range': 'bytes 10-99/100' }, blob.subarray(10), null);
  t.match(open_, { offset: 10, length: 90 });
  const wrong: [string, string][] = [
    ['bytes 0-4/100', 'from elsewhere'],
    ['bytes 11-15/100', 'one too far'],
    ['bytes 10-20/100', 'more than was asked for'],
    ['bytes 10-14/12', 'beyond the end'],
    ['bytes 14-10/100', 'backwards'],
    ['bytes 10-14', 'without a size'],
    ['10-14/100', 'without a unit'],
    ['bytes 10-12/100', 'another length than the body'],
    ['', 'none'],
  ];
  for (const [range, what] of wrong) {
    t.equal(
      await codeOfRejection(ask(206, { 'content-range': range }, blob.subarray(10, 15))),
      'REGISTRY_PROTOCOL',
      what,
    );
  }
  t.equal(await codeOfRejection(ask(206, {}, blob.subarray(10, 15))), 'REGISTRY_PROTOCOL', 'no header');
  t.equal(await codeOfRejection(ask(416, { 'content-range': 'bytes */5' }, Buffer.alloc(0))), 'BLOB_SIZE_MISMATCH');
  t.equal(await codeOfRejection(ask(204, {}, Buffer.alloc(0))), 'REGISTRY_PROTOCOL');
});

t.test('an answer that was compressed on the way is said to be so', async (t) => {
  const packed = gzipSync(blob);
  const headers = { 'content-encoding': 'gzip', 'content-type': OCI_MANIFEST };
  const server = await registry(t, ({ headers: { range } }, response) => {
    const part = range === undefined ? {} : { 'content-range': `bytes 0-9/${packed.length}` };
    answer(
      response,
      range === undefined ? 200 : 206,
      { ...headers, ...part },
      packed.subarray(0, range === undefined ? undefined : 10),
    );
  });
  const client = open(t, server.host);
  const wanted = { code: 'REGISTRY_PROTOCOL', message: /encoding .*"gzip"/ };
  t.match(await failure(client.blob('app', blobDigest, { size: 100 })), wanted);
  t.match(await failure(client.blob('app', blobDigest, { size: 100, length: 10 })), wanted);
  t.match(await failure(client.manifest('app', 'one')), wanted);
  t.ok(server.seen.every((seen) => seen.headers['accept-encoding'] === 'identity'));
  const labelled = await registry(t, (_request, response) => answer(response, 200, headers, blob));
  const { stream } = await open(t, labelled.host).blob('app', blobDigest, { size: 100 });
  t.equal(await bytesOf(stream), blob.toString(), 'what has the right size is only labelled so');
});

t.test('a body that is cut off, stands still, or is given up', async (t) => {
  const server = await registry(t, ({ url }, response) => {
    response.writeHead(200, url.includes('chunked') ? {} : { 'content-length': 100 });
    response.write(blob.subarray(0, 50));
    if (url.includes(blobDigest)) setTimeout(() => response.destroy(), 20);
  });
  const client = open(t, server.host, { times: { idleMs: 300 } });
  const cut = await failure(client.blob('app', blobDigest).then(({ stream }) => bytesOf(stream)));
  t.equal(cut.code, 'REGISTRY_UNREACHABLE');
  t.ok(isTransient(cut));
  const still = await failure(client.blob('app', manifestDigest).then(({ stream }) => bytesOf(stream)));
  t.match(still, { code: 'REGISTRY_UNREACHABLE', message: /stopped sending/ });
  t.ok(isTransient(still));

  const controller = new AbortController();
  const { stream } = await client.blob('app', manifestDigest, { signal: controller.signal });
  const why = new Error('nobody wants it any more');
  const reading = bytesOf(stream);
  controller.abort(why);
  await t.rejects(reading, why);
  await (await client.blob('app', manifestDigest)).cancel();
  for await (const bytes of (await client.blob('app', manifestDigest)).stream) {
    t.equal(bytes.length, 50);
    break;
  }
});

t.test('errors that pass are tried again, others are not', async (t) => {
  const once = async (status: number, headers: Record<string, string> = {}): Promise<number> => {
    const server = await registry(t, (_request, response, n) => {
      if (n === 1) answer(response, status, headers);
      else answer(response, 200, { 'content-type': OCI_MANIFEST }, manifest);
    });
    await open(t, server.host)
      .manifest('app', 'one')
      .catch(() => undefined);
    return asked(server).length;
  };
  for (const status of [408, 429, 500, 502, 503, 504, 522]) t.equal(await once(status), 2, `${status} is tried again`);
  for (const status of [400, 403, 404, 405, 406, 418, 501]) t.equal(await once(status), 1, `${status} is final`);
  const before = performance.now();
  t.equal(await once(429, { 'retry-after': '1' }), 2);
  t.ok(performance.now() - before >= 990, 'not before the time that the registry names');
  t.equal(await once(429, { 'retry-after': '3600' }), 1, 'nobody waits an hour');

  const cut = await registry(t, (_request, response, n) => {
    if (n < 3) response.destroy();
    else answer(response, 200, { 'content-type': OCI_MANIFEST }, manifest);
  });
  t.equal((await open(t, cut.host).manifest('app', 'one')).digest, manifestDigest);
  const busy = await registry(t, (_request, response) =>
    answerJson(response, 429, { errors: [{ code: 'TOOMANYREQUESTS', message: 'slow\u001b[31m down\n\nplease' }] }),
  );
  const error = await failure(open(t, busy.host, { retry: { ...quick, attempts: 3 } }).manifest('app', 'one'));
  t.match(error, { code: 'REGISTRY_RATE_LIMITED', details: { host: busy.host, status: 429, transient: true } });
  t.match(error.message, `Cannot read app:one: ${busy.host} answers 429: TOOMANYREQUESTS: slow [31m down please`);
  t.equal(asked(busy).length, 3);
});

t.test('parseRetryAfter reads seconds and dates', async (t) => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  t.equal(parseRetryAfter('7', now), 7000);
  t.equal(parseRetryAfter('Thu, 01 Jan 2026 00:01:00 GMT', now), 60_000);
  t.equal(parseRetryAfter('Thu, 01 Jan 2025 00:01:00 GMT', now), 0);
  for (const text of [undefined, '', 'soon']) t.equal(parseRetryAfter(text, now), undefined);
});

t.test('a server that never answers is given up', async (t) => {
  const server = await registry(t, () => undefined);
  const client = open(t, server.host, { times: { headersMs: 200 }, retry: { ...quick, attempts: 1 } });
  t.match(await failure(client.manifest('app', 'one')), {
    code: 'REGISTRY_UNREACHABLE',
    message: /did not answer in time/,
  });
  const controller = new AbortController();
  const patient = open(t, server.host).manifest('app', 'one', { signal: controller.signal });
  controller.abort(new Error('enough'));
  await t.rejects(patient, { message: 'enough' });
});

t.test('manifests are what their digests say', async (t) => {
  const ask = async (reference: string, headers: Record<string, string>, body: Buffer) => {
    const server = await registry(t, (_request, response) => answer(response, 200, headers, body));
    return open(t, server.host).manifest('app', reference);
  };
  const type = { 'content-type': `${OCI_MANIFEST}; charset=utf-8` };
  t.strictSame(await ask(manifestDigest, type, manifest), {
    bytes: manifest,
    digest: manifestDigest,
    mediaType: OCI_MANIFEST,
  });
  t.equal(await codeOfRejection(ask(blobDigest, type, manifest)), 'BLOB_DIGEST_MISMATCH');
  const said = { ...type, 'docker-content-digest': blobDigest };
  t.equal(await codeOfRejection(ask('one', said, manifest)), 'BLOB_DIGEST_MISMATCH');
  t.equal(await codeOfRejection(ask('one', { ...type, 'docker-content-digest': 'x' }, manifest)), 'REGISTRY_PROTOCOL');
  const sha512 = digestOf(manifest, 'sha512');
  t.equal((await ask(sha512, type, manifest)).digest, sha512);
  t.equal(await codeOfRejection(ask('one', type, Buffer.alloc(4 * 1024 * 1024 + 1, ' '))), 'LIMIT_EXCEEDED');
  t.equal((await ask('one', {}, manifest)).mediaType, OCI_MANIFEST, 'without a type, what the document is');
  t.equal(
    (await ask('one', { 'content-type': 'application/json' }, Buffer.from('{"manifests":[]}'))).mediaType,
    OCI_INDEX,
  );
  t.equal(
    await codeOfRejection(ask('one', { 'content-type': 'text/plain' }, Buffer.from('<html>'))),
    'REGISTRY_PROTOCOL',
  );
});

t.test('tags come in pages', async (t) => {
  const server = await registry(t, ({ url }, response) => {
    if (url.includes('last=b')) return answerJson(response, 200, { tags: ['c'] });
    answerJson(response, 200, { tags: ['a', 'b'] }, { link: '</v2/app/tags/list?last=b&n=2>; rel="next"' });
  });
  t.strictSame(await open(t, server.host).tags('app'), ['a', 'b', 'c']);
  const none = await registry(t, (_request, response) => answerJson(response, 200, { tags: null }));
  t.strictSame(await open(t, none.host).tags('app'), []);
  const away = await registry(t, (_request, response) =>
    answerJson(response, 200, { tags: ['a'] }, { link: '<http://127.0.0.1:1/v2/app/tags/list>; rel="next"' }),
  );
  t.equal(await codeOfRejection(open(t, away.host).tags('app')), 'REGISTRY_PROTOCOL');
  const endless = await registry(t, (_request, response) =>
    answerJson(response, 200, { tags: [] }, { link: '</v2/app/tags/list?again>; rel="next"' }),
  );
  t.equal(await codeOfRejection(open(t, endless.host).tags('app')), 'REGISTRY_PROTOCOL');
});

t.test('referrers by the API, in pages, filtered by us where the registry does not', async (t) => {
  const entry = (artifactType: string) => ({ mediaType: OCI_MANIFEST, digest: blobDigest, size: 1, artifactType });
  const server = await registry(t, ({ url }, response) => {
    const second = url.includes('page=2');
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [entry(second ? 'x/b' : 'x/a'), entry('x/a')] };
    const link = second ? {} : { link: `<${url.split('?')[0] ?? ''}?page=2>; rel=next` };
    answerJson(response, 200, index, { 'content-type': OCI_INDEX, ...link });
  });
  const client = open(t, server.host);
  t.strictSame(
    (await client.referrers('app', manifestDigest)).map((d) => d.artifactType),
    ['x/a', 'x/a', 'x/b', 'x/a'],
  );
  t.equal((await client.referrers('app', manifestDigest, 'x/b')).length, 1);
  t.match(server.seen.at(-2)?.url, /\?artifactType=x%2Fb$/);
});

t.test('referrers by the tag where there is no such API', async (t) => {
  const index = {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: [{ mediaType: OCI_MANIFEST, digest: blobDigest, size: 1 }],
  };
  for (const [status, type] of [
    [404, 'text/plain'],
    [405, 'text/plain'],
    [200, 'text/html'],
  ] as const) {
    const server = await registry(t, ({ url }, response) => {
      if (url.includes('/referrers/')) return answer(response, status, { 'content-type': type }, 'page not found');
      if (url !== `/v2/app/manifests/sha256-${manifestDigest.slice(7)}`) return answer(response, 404);
      answerJson(response, 200, index, { 'content-type': OCI_INDEX });
    });
    t.equal((await open(t, server.host).referrers('app', manifestDigest)).length, 1, `${status} ${type}`);
    t.strictSame(await open(t, server.host).referrers('app', blobDigest), [], 'nor the tag');
  }
});

t.test('an upload that is sent elsewhere', async (t) => {
  const store = await serve(t, (_request, response) => answer(response, 201));
  const server = await registry(t, ({ method, headers }, response) => {
    if (headers.authorization === undefined) return answer(response, 401, { 'www-authenticate': 'Basic realm="r"' });
    if (method === 'HEAD') return answer(response, 404);
    if (method === 'POST') return answer(response, 202, { location: '/upload/1?state=s' });
    answer(response, 307, { location: `${store.origin}/put` });
  });
  const client = open(t, server.host, { credentials: new FixedCredentials(server.host, alice) });
  const pushed = { digest: blobDigest, size: blob.length, bytes: () => blob };
  t.equal(await client.pushBlob('app', pushed), true);
  t.equal(server.seen.at(-1)?.url, `/upload/1?state=s&digest=${encodeURIComponent(blobDigest)}`);
  t.match(store.seen, [{ method: 'PUT', url: '/put', body: blob.toString() }]);
  t.notOk('authorization' in (store.seen[0]?.headers ?? {}), 'without who we are');
});
