/** Where credentials come from: files of podman and Docker, and credential helpers. */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { FileCredentials } from '../../src/source/registry/auth-file.js';
import { getFromHelper } from '../../src/source/registry/credential-helper.js';
import {
  decodeCredentials,
  encodeCredentials,
  parseCredentials,
  type Credentials,
} from '../../src/source/registry/credentials.js';
import { lamina } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import { codeOf, codeOfRejection, failure } from '../support/failure.js';
import { makeLayout } from '../support/images.js';
import { password, push, startRegistry, user } from '../support/registry.js';
import { skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

function write(path: string, document: unknown): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, JSON.stringify(document));
  return path;
}

/** As text, secrets and all. */
function shown(credentials: Credentials | undefined): string {
  if (credentials === undefined) return 'none';
  if (credentials.kind === 'password') return `${credentials.username}:${credentials.password.reveal()}`;
  return `${credentials.kind} ${credentials.token.reveal()}`;
}

interface Home {
  readonly home: string;
  readonly env: NodeJS.ProcessEnv;
  readonly find: (host: string, repository?: string, authFile?: string) => Promise<string>;
}

function makeHome(t: Test, extra: NodeJS.ProcessEnv = {}): Home {
  const home = tempDir(t);
  const env = { HOME: home, XDG_RUNTIME_DIR: join(home, 'run'), PATH: process.env['PATH'], ...extra };
  return {
    home,
    env,
    find: async (host, repository, authFile) =>
      shown(await new FileCredentials({ env, uid: 0, authFile }).find(host, repository)),
  };
}

t.test('the most specific key counts', async (t) => {
  const { home, find } = makeHome(t);
  write(join(home, 'run/containers/auth.json'), {
    auths: {
      'my-registry.local/foo/bar/image': { auth: base64('image:1') },
      'my-registry.local/foo': { auth: base64('foo:2') },
      'my-registry.local': { auth: base64('host:3') },
      'localhost:5000': { auth: base64('port:4:with:colons') },
      'https://index.docker.io/v1/': { auth: base64('hub:5') },
      'https://old.example/v2/': { auth: base64('old:6\0\0') },
      'identity.example': { auth: base64('<token>:'), identitytoken: 'abc' },
      'bearer.example': { registrytoken: 'def' },
      'empty.example': {},
    },
  });
  t.equal(await find('my-registry.local', 'foo/bar/image'), 'image:1');
  t.equal(await find('my-registry.local', 'foo/bar/image2'), 'foo:2');
  t.equal(await find('my-registry.local', 'foo/bar'), 'foo:2');
  t.equal(await find('my-registry.local', 'foo'), 'foo:2');
  t.equal(await find('my-registry.local', 'food'), 'host:3');
  t.equal(await find('my-registry.local'), 'host:3');
  t.equal(await find('localhost:5000', 'a'), 'port:4:with:colons');
  t.equal(await find('localhost', 'a'), 'none', 'the port is a part of the name');
  t.equal(await find('docker.io', 'library/alpine'), 'hub:5');
  t.equal(await find('registry-1.docker.io', 'library/alpine'), 'hub:5');
  t.equal(await find('old.example', 'a'), 'old:6');
  t.equal(await find('identity.example', 'a'), 'identity abc');
  t.equal(await find('bearer.example', 'a'), 'bearer def');
  t.equal(await find('empty.example', 'a'), 'none');
  t.equal(await find('example', 'a'), 'none');
});

t.test('the files are asked in order; one that is named is the only one', async (t) => {
  const { home, find, env } = makeHome(t);
  const at = (path: string, name: string): string =>
    write(join(home, path), { auths: { 'a.example': { auth: base64(`${name}:x`) } } });
  t.equal(await find('a.example'), 'none');
  at('.docker/config.json', 'docker');
  t.equal(await find('a.example'), 'docker:x');
  at('.config/containers/auth.json', 'config');
  t.equal(await find('a.example'), 'config:x');
  at('run/containers/auth.json', 'runtime');
  t.equal(await find('a.example'), 'runtime:x');
  const named = at('named.json', 'named');
  t.equal(await find('a.example', undefined, named), 'named:x');
  const byVariable = new FileCredentials({ env: { ...env, REGISTRY_AUTH_FILE: named }, uid: 0 });
  t.equal(shown(await byVariable.find('a.example', undefined)), 'named:x');
  t.equal(shown(await byVariable.find('b.example', undefined)), 'none');
  at('docker2/config.json', 'docker2');
  const { find: second } = makeHome(t, { DOCKER_CONFIG: join(home, 'docker2') });
  t.equal(await second('a.example'), 'docker2:x');
  t.match(await failure(new FileCredentials({ env, uid: 0, authFile: '/nowhere/x' }).find('a', undefined)), {
    code: 'IO',
  });

  writeFileSync(named, '');
  t.equal(await find('a.example', undefined, named), 'none', 'an empty file has none');
  writeFileSync(named, '{"auths": {"a.example": {"auth": 7}}} wonderland');
  const broken = await failure(new FileCredentials({ env, uid: 0, authFile: named }).find('a', undefined));
  t.match(broken, { code: 'CONFIG_INVALID' });
  t.notMatch(broken.message, 'wonderland');
});

/** A credential helper in a directory that is put into PATH; it notes what it is asked. */
function makeHelper(directory: string, name: string, script: string): void {
  const path = join(directory, `docker-credential-${name}`);
  writeFileSync(path, `#!/bin/sh\ninput=$(cat)\necho "$1 $input" >>"$HOME/asked"\n${script}\n`);
  chmodSync(path, 0o755);
}

t.test('credential helpers', async (t) => {
  const bin = tempDir(t);
  const { home, find } = makeHome(t, { PATH: `${bin}:${process.env['PATH'] ?? ''}` });
  makeHelper(
    bin,
    'works',
    `echo "{\\"ServerURL\\":\\"$input\\",\\"Username\\":\\"helped\\",\\"Secret\\":\\"s3cret\\"}"`,
  );
  makeHelper(bin, 'token', `echo '{"Username":"<token>","Secret":"idt"}'`);
  makeHelper(bin, 'none', 'echo "credentials not found in native keychain"; exit 1');
  makeHelper(bin, 'fails', 'echo "the keychain is locked"; exit 1');
  makeHelper(bin, 'nonsense', 'echo s3cret');
  write(join(home, '.docker/config.json'), {
    auths: { 'works.example': { auth: base64('file:x') }, 'own.example': { auth: base64('file:y') }, 'docker.io': {} },
    credHelpers: {
      'works.example': 'works',
      'https://url.example': 'works',
      'token.example': 'token',
      'none.example': 'none',
      'fails.example': 'fails',
      'nonsense.example': 'nonsense',
      'absent.example': 'is-not-installed',
      'evil.example': '../../bin/sh',
    },
    credsStore: 'works',
  });
  const asked = (): string => readFileSync(join(home, 'asked'), 'utf8').trim().split('\n').at(-1) ?? '';
  t.equal(await find('works.example', 'a/b'), 'helped:s3cret', 'before an entry of the file');
  t.equal(asked(), 'get works.example');
  t.equal(await find('url.example'), 'helped:s3cret');
  t.equal(asked(), 'get https://url.example');
  t.equal(await find('token.example'), 'identity idt');
  t.equal(await find('none.example'), 'none');
  t.equal(await find('own.example'), 'file:y', 'an entry of the file before the store for all');
  t.equal(await find('docker.io', 'library/alpine'), 'helped:s3cret');
  t.equal(asked(), 'get https://index.docker.io/v1/');
  for (const host of ['fails.example', 'nonsense.example', 'absent.example']) {
    const error = await failure(new FileCredentials({ env: makeEnv(home, bin), uid: 0 }).find(host, undefined));
    t.equal(error.code, 'REGISTRY_AUTH', host);
    t.notMatch(error.message, 's3cret');
  }
  t.equal(await codeOfRejection(find('evil.example')), 'CONFIG_INVALID');
});

t.test('a credential helper that does not answer is given up in time, with all that it has started', async (t) => {
  const bin = tempDir(t);
  const { home, env } = makeHome(t, { PATH: `${bin}:${process.env['PATH'] ?? ''}` });
  makeHelper(bin, 'hangs', 'sleep 300 & echo $! >"$HOME/child"; wait');
  makeHelper(bin, 'talks', 'exec cat /dev/zero');
  const late = await failure(getFromHelper('hangs', 'a.example', env, 1000));
  t.match(late, { code: 'REGISTRY_AUTH', message: /has not answered in 1 s/ });
  const child = Number(readFileSync(join(home, 'child'), 'utf8'));
  while (isAlive(child)) await sleep(10);
  t.match(await failure(getFromHelper('talks', 'a.example', env)), { code: 'REGISTRY_AUTH', message: /more than/ });
});

/** Whether a process runs; one that has ended may still be waited for. */
function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

function makeEnv(home: string, bin: string): NodeJS.ProcessEnv {
  return { HOME: home, XDG_RUNTIME_DIR: join(home, 'run'), PATH: `${bin}:${process.env['PATH'] ?? ''}` };
}

t.test('--creds, and the way to the daemon', async (t) => {
  const credentials = parseCredentials('me:a:b');
  t.equal(shown(credentials), 'me:a:b');
  t.equal(shown(decodeCredentials(encodeCredentials(credentials))), 'me:a:b');
  for (const text of ['', 'me', ':x'])
    t.equal(
      codeOf(() => parseCredentials(text)),
      'USAGE',
      text,
    );
  t.equal(
    codeOf(() => decodeCredentials({ kind: 'password', secret: 'x' })),
    'USAGE',
  );
  t.notMatch(JSON.stringify(credentials), 'a:b');
});

t.test('lamina login and skopeo share their credentials', async (t) => {
  if (skipUnless(t, commandExists('docker-registry') && commandExists('skopeo'), 'needs docker-registry and skopeo'))
    return;
  const registry = await startRegistry(t, { auth: true });
  const { host } = registry;
  const image = await makeLayout(tempDir(t), { layers: [{ entries: [{ name: 'a', content: 'x' }] }] });
  push(image.reference, host, 'app', [`--dest-creds=${user}:${password}`]);
  const { home, env, find } = makeHome(t);
  const file = join(home, 'run/containers/auth.json');
  const login = (...args: string[]) => lamina(['login', ...args], { env, input: `${password}\n` });

  const wrong = await lamina(['login', '-u', user, '--password-stdin', host], { env, input: 'hunter2\n' });
  t.equal(wrong.code, 1);
  t.equal(wrong.stderr, `lamina: ${host} does not take this user name and password\n`);
  t.equal(await find(host), 'none', 'nothing is kept that does not work');

  const done = await login('-u', user, '--password-stdin', host);
  t.strictSame([done.code, done.stderr], [0, `Logged in to ${host} as ${user} (kept in ${file})\n`]);
  t.equal(statSync(file).mode & 0o777, 0o600);
  t.equal(await find(host, 'app'), `${user}:${password}`);
  const inspected = execFileSync('skopeo', ['inspect', '--tls-verify=false', `docker://${host}/app`], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  t.equal((JSON.parse(inspected) as { Digest: string }).Digest, image.manifest.digest, 'skopeo uses what we keep');

  const out = await lamina(['logout', host], { env });
  t.strictSame([out.code, out.stderr], [0, `Logged out of ${host}\n`]);
  t.equal(await find(host), 'none');
  t.equal((await lamina(['logout', host], { env })).code, 1, 'there is nothing more to forget');

  const theirs = join(home, 'theirs.json');
  execFileSync('skopeo', ['login', '--tls-verify=false', '--authfile', theirs, '-u', user, '--password-stdin', host], {
    input: password,
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  t.equal(await find(host, 'app', theirs), `${user}:${password}`, 'we use what skopeo keeps');
  const kept = JSON.parse(readFileSync(theirs, 'utf8')) as { auths: Record<string, unknown> };
  write(theirs, { ...kept, other: { tool: true } });
  t.equal((await login('-u', user, '--password-stdin', '--authfile', theirs, `${host}/part`, '--json')).code, 0);
  const both = JSON.parse(readFileSync(theirs, 'utf8')) as { auths: Record<string, unknown>; other: unknown };
  t.strictSame(Object.keys(both.auths), [host, `${host}/part`]);
  t.strictSame(both.other, { tool: true }, 'what we do not know stays');
  t.equal((await lamina(['logout', '--all', '--authfile', theirs], { env })).code, 0);
  t.strictSame(JSON.parse(readFileSync(theirs, 'utf8')), { auths: {}, other: { tool: true } });

  t.equal((await login('--password-stdin', host)).code, 2, 'without a name');
  t.equal((await lamina(['login', '-u', user, host], { env })).code, 2, 'without a password');
  t.equal((await login('-u', user, '--password-stdin', 'no such host')).code, 2);
  t.equal((await login('-u', user, '--password-stdin', 'host')).code, 2, 'no reference could name it');
  t.equal((await lamina(['logout'], { env })).code, 2);
});

t.test('lamina login gives the password to the helper that is configured', async (t) => {
  if (skipUnless(t, commandExists('docker-registry'), 'needs docker-registry')) return;
  const registry = await startRegistry(t, { auth: true });
  const bin = tempDir(t);
  const { home, env } = makeHome(t, { PATH: `${bin}:${process.env['PATH'] ?? ''}` });
  makeHelper(bin, 'keeps', 'true');
  const file = write(join(home, 'run/containers/auth.json'), { credHelpers: { [registry.host]: 'keeps' } });
  const before = readFileSync(file, 'utf8');
  const args = ['login', '-u', user, '--password-stdin', registry.host];
  const { code, stderr } = await lamina(args, { env, input: password });
  t.strictSame([code, stderr], [0, `Logged in to ${registry.host} as ${user} (kept in docker-credential-keeps)\n`]);
  t.equal((await lamina(['logout', registry.host], { env })).code, 0);
  t.strictSame(readFileSync(join(home, 'asked'), 'utf8').split('\n'), [
    `store {"ServerURL":"${registry.host}","Username":"${user}","Secret":"${password}"}`,
    `erase ${registry.host}`,
    '',
  ]);
  t.equal(readFileSync(file, 'utf8'), before, 'nothing of it is in the file');
});
