/** appc images by their names, from a server on this machine: as its own host, and as a proxy for others. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { file, makeAci, type AciSpec, type MadeAci } from '../support/aci.js';
import { lamina, type CliResult } from '../support/cli.js';
import { startDaemon } from '../support/daemon.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

const OS_ARCH = [
  { name: 'os', value: 'linux' },
  { name: 'arch', value: 'amd64' },
];
const STORAGE = 'http://storage.example.com/{name}-{version}-{os}-{arch}.{ext}';
const KEYS = '<meta name="ac-discovery-pubkeys" content="example.com https://example.com/keys.gpg">';

const page = (...templates: string[]): string =>
  templates.map((template) => `<meta name="ac-discovery" content="${template}">`).join('\n') + KEYS;

interface Web {
  /** By address without the query; a page or an archive. May be changed. */
  readonly at: Map<string, string | Buffer>;
  readonly asked: string[];
  readonly dir: string;
  readonly env: Readonly<Record<string, string>>;
  /** Where TLS is not asked for, for linux/amd64. */
  lamina(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<CliResult>;
  /** Makes an archive, and puts it at `url`. */
  put(url: string, spec: AciSpec): Promise<MadeAci>;
  close(): void;
}

/** All hosts without TLS. */
async function startWeb(t: Test): Promise<Web> {
  const dir = tempDir(t);
  const at = new Map<string, string | Buffer>();
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const [url = ''] = (request.url ?? '').split('?');
    asked.push(url);
    const body = at.get(url);
    if (typeof body === 'string' && body.startsWith('to ')) response.writeHead(302, { location: body.slice(3) }).end();
    else response.writeHead(body === undefined ? 404 : 200).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  t.teardown(close);
  const proxy = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const env = { HTTP_PROXY: proxy, HTTPS_PROXY: proxy, http_proxy: '', https_proxy: '', NO_PROXY: '', no_proxy: '' };
  for (const name of ['http_proxy', 'https_proxy'] as const) env[name] = proxy;
  const own = { ...env, LAMINA_STORE: join(dir, 'store'), LAMINA_ACI_PATH: '' };
  return {
    at,
    asked,
    dir,
    env,
    lamina: (args, more = {}) =>
      lamina([...args, '--tls-verify=false', '--platform', 'linux/amd64'], { env: { ...own, ...more }, cwd: dir }),
    async put(url, spec) {
      const made = await makeAci(join(dir, `${createHash('sha256').update(url).digest('hex')}.aci`), spec);
      at.set(url, readFileSync(made.path));
      return made;
    },
    close,
  };
}

const APP = 'http://storage.example.com/example.com/app-1.0-linux-amd64.aci';
const BASE = 'http://storage.example.com/example.com/base-2-linux-amd64.aci';
const version = (value: string): readonly object[] => [{ name: 'version', value }, ...OS_ARCH];

/** example.com/app:1.0, which depends on example.com/base:2. `imageID`: in place of the right one. */
async function publish(web: Web, imageID?: string): Promise<{ app: MadeAci; base: MadeAci }> {
  web.at.set('http://example.com/', page(`example.com ${STORAGE}`));
  const base = await web.put(BASE, {
    manifest: { name: 'example.com/base', labels: version('2') },
    entries: [file('base', 'of the base'), file('both', 'lower')],
  });
  const dependency = { imageName: 'example.com/base', imageID: imageID ?? base.id };
  const app = await web.put(APP, {
    manifest: {
      name: 'example.com/app',
      labels: version('1.0'),
      dependencies: [{ ...dependency, labels: [{ name: 'version', value: '2' }] }],
    },
    entries: [file('both', 'upper')],
  });
  return { app, base };
}

const blobs = (web: Web): string[] => {
  const dir = join(web.dir, 'store/blobs/sha256');
  return existsSync(dir) ? readdirSync(dir) : [];
};

t.test('an image is found by its name, with its dependency, and is there without the server', async (t) => {
  const web = await startWeb(t);
  const { app, base } = await publish(web);
  const name = 'aci:example.com/app:1.0';
  const listed = await web.lamina(['ls', name]);
  t.equal(listed.stdout, 'base\nboth\n', listed.stderr);
  t.match(
    listed.stderr,
    /signatures are not verified: example\.com\/app from http:\/\/storage.*; example\.com\/base from .*keys: https:\/\/example\.com\/keys\.gpg/,
  );
  t.notMatch(listed.stderr, /aci:example\.com\/app:1\.0 is aci:/);
  t.equal((await web.lamina(['cat', name, '/both'])).stdout, 'upper');
  const facts = await web.lamina(['inspect', '--json', name]);
  t.match(JSON.parse(facts.stdout), {
    reference: name,
    configDigest: app.id.replace('-', ':'),
    layers: [{ diffId: base.id.replace('-', ':') }, { diffId: app.id.replace('-', ':') }],
  });
  const before = web.asked.length;
  t.equal((await web.lamina(['ls', name])).code, 0);
  t.equal(web.asked.length, before, 'nothing is asked a second time');
  web.close();
  for (const flags of [[], ['--offline'], ['--pull', 'never'], ['--pull', 'always', '--offline']])
    t.equal((await web.lamina(['cat', name, '/base', ...flags])).stdout, 'of the base', flags.join(' '));
  t.equal((await web.lamina(['ls', 'aci:example.com/other', '--offline'])).code, 4);
  t.equal((await web.lamina(['ls', 'aci:example.com/other', '--pull', 'never'])).code, 4);
  const always = await web.lamina(['ls', name, '--pull', 'always']);
  t.equal(always.code, 1);
  t.match(always.stderr, /Cannot open aci:example\.com\/app:1\.0: .*Cannot reach/);
});

t.test('dependencies come from --aci-path before the network; a file asks nobody', async (t) => {
  const web = await startWeb(t);
  const { app } = await publish(web);
  const here = join(web.dir, 'here');
  await makeAci(join(here, 'base.aci'), {
    manifest: { name: 'example.com/base', labels: version('2') },
    entries: [file('base', 'of the base'), file('both', 'lower')],
  });
  const listed = await web.lamina(['ls', 'aci:example.com/app:1.0', '--aci-path', here]);
  t.equal(listed.stdout, 'base\nboth\n', listed.stderr);
  t.notOk(web.asked.includes(BASE));
  const before = web.asked.length;
  const alone = await web.lamina(['ls', `aci:${app.path}`]);
  t.equal(alone.code, 4);
  t.match(alone.stderr, /depends on example\.com\/base/);
  t.equal((await web.lamina(['ls', 'aci:./example.com/app'])).code, 4);
  t.equal(web.asked.length, before);
});

t.test('what is not the image that was asked for is refused, and not kept', async (t) => {
  const wrong = await startWeb(t);
  await publish(wrong, `sha512-${'0'.repeat(128)}`);
  const refused = await wrong.lamina(['ls', 'aci:example.com/app:1.0']);
  t.equal(refused.code, 3, refused.stderr);
  t.match(refused.stderr, /base-2.* has the image ID sha512-[0-9a-f]+, wanted is sha512-0000/);
  t.equal(blobs(wrong).length, 1, 'the image, without its dependency');

  const table: [string, Readonly<Record<string, unknown>>, number, RegExp][] = [
    ['another name', { name: 'example.com/evil', labels: version('1.0') }, 1, /another name or other labels/],
    ['another version', { name: 'example.com/app', labels: version('2') }, 1, /another name or other labels/],
    ['no version', { name: 'example.com/app', labels: OS_ARCH }, 1, /another name or other labels/],
    ['another platform', { labels: [...version('1.0').slice(0, 2), { name: 'arch', value: 'i386' }] }, 1, /labels/],
    [
      'a dependency on this machine',
      { labels: version('1.0'), dependencies: [{ imageName: 'localhost/x' }] },
      4,
      /must not ask this machine/,
    ],
    [
      'a dependency of no host',
      { labels: version('1.0'), dependencies: [{ imageName: 'x' }] },
      4,
      /does not say a host/,
    ],
  ];
  for (const [what, manifest, code, message] of table) {
    const web = await startWeb(t);
    web.at.set('http://example.com/app', page(`example.com ${STORAGE}`));
    await web.put(APP, { manifest });
    const result = await web.lamina(['ls', 'aci:example.com/app:1.0']);
    t.equal(result.code, code, `${what}: ${result.stderr}`);
    t.match(result.stderr, message, what);
    if (code === 1) t.strictSame(blobs(web), [], what);
  }
});

t.test('places are tried in turn; this machine is none for names of others; sizes are limited', async (t) => {
  const web = await startWeb(t);
  await publish(web);
  const templates = (...urls: string[]): void =>
    void web.at.set(
      'http://example.com/',
      page(...urls.map((url) => `example.com ${url}/{name}-{version}-{os}-{arch}.{ext}`)),
    );
  const ls = (env?: Record<string, string>): Promise<CliResult> =>
    web.lamina(['ls', 'aci:example.com/app:1.0', '--pull', 'always'], env);
  templates('http://127.0.0.1:1', 'https://localhost');
  const unusable = await ls();
  t.equal(unusable.code, 4);
  t.match(unusable.stderr, /no page says where it is/);
  templates('http://nothing.example.com', 'http://storage.example.com');
  t.equal((await ls()).code, 0, 'the second place has it');
  t.ok(web.asked.includes(APP.replace('storage', 'nothing')));
  templates('http://nothing.example.com');
  t.match((await ls()).stderr, /Cannot fetch example\.com\/app: nothing\.example\.com answers 404/);
  templates('http://storage.example.com');
  t.match((await ls({ LAMINA_LAYER_LIMIT: '100' })).stderr, /at most 100 are read/);
  web.at.set(APP, 'to http://127.0.0.1:1/app.aci');
  t.match((await ls()).stderr, /redirects to what is no address/);
  const careful = await lamina(['ls', 'aci:example.com/app:3'], {
    env: { ...web.env, LAMINA_STORE: join(web.dir, 's') },
  });
  t.equal(careful.code, 1, 'without TLS nothing is asked unless it is said');
  t.match(careful.stderr, /Cannot reach example\.com/);
});

t.test('what the store has lost comes again, if it is still the same', async (t) => {
  const web = await startWeb(t);
  await publish(web);
  const cat = (...flags: string[]): Promise<CliResult> =>
    web.lamina(['cat', 'aci:example.com/app:1.0', '/both', ...flags]);
  t.equal((await cat()).stdout, 'upper');
  const damage = (): void => {
    for (const name of blobs(web)) {
      const path = join(web.dir, 'store/blobs/sha256', name);
      const bytes = readFileSync(path);
      bytes[bytes.length - 30] = (bytes[bytes.length - 30] ?? 0) ^ 1;
      writeFileSync(path, bytes);
    }
  };
  damage();
  const offline = await cat('--offline');
  t.equal(offline.code, 4);
  t.match(offline.stderr, /not in the store as a whole/);
  t.equal((await cat()).stdout, 'upper');
  damage();
  await web.put(APP, { manifest: { labels: version('1.0') }, entries: [file('both', 'another')] });
  const other = await cat();
  t.equal(other.code, 3);
  t.match(other.stderr, /another image now than it was: --pull always takes it/);
  t.equal((await cat('--pull', 'always')).stdout, 'another');
  t.equal((await cat('--offline')).stdout, 'another');
});

t.test('a mount by name, with a host on this machine, which needs no TLS', async (t) => {
  if (skipUnless(t, isRoot && existsSync('/dev/fuse'), 'mounting, and port 80, need root and /dev/fuse')) return;
  const daemon = await startDaemon(t);
  // Of its own address, so that another server on port 80 is not in the way.
  const host = `127.${process.pid & 127}.${(process.pid >> 7) & 127}.9`;
  const manifest = { name: `${host}/app`, labels: OS_ARCH };
  const made = await makeAci(join(daemon.directory, 'x.aci'), { manifest, entries: [file('a', 'content')] });
  const server = createServer((request, response) =>
    request.url === '/app?ac-discovery=1'
      ? response.end(page(`${host} http://${host}/{name}.{ext}`))
      : response.end(readFileSync(made.path)),
  );
  await new Promise<void>((resolve) => server.listen(80, host, resolve));
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  t.teardown(close);
  const mountpoint = join(daemon.directory, 'mnt');
  mkdirSync(mountpoint);
  const name = `aci:${host}/app`;
  for (const flags of [[], ['--offline']]) {
    const mounted = await daemon.lamina(['mount', '--platform', 'linux/amd64', ...flags, name, mountpoint]);
    t.equal(mounted.code, 0, mounted.stderr);
    t.match(mounted.stderr, /signatures are not verified: .*app\.aci/);
    t.equal(readFileSync(join(mountpoint, 'a'), 'utf8'), 'content');
    t.equal((await daemon.lamina(['umount', name])).code, 0);
    close();
  }
});
