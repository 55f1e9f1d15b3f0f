/** Which proxy is asked for what, by the environment. */
import { inspect } from 'node:util';
import t from 'tap';
import { RegistryClient } from '../../src/source/registry/client.js';
import { proxyFor } from '../../src/source/registry/proxies.js';
import { failure } from '../support/failure.js';

const proxyOf = (url: string, env: NodeJS.ProcessEnv): string | undefined => proxyFor(new URL(url), env)?.href;

t.test('proxyFor takes the variable of the scheme', async (t) => {
  const both = { HTTP_PROXY: 'http://a:1', HTTPS_PROXY: 'http://b:2' };
  t.equal(proxyOf('http://reg.example/', both), 'http://a:1/');
  t.equal(proxyOf('https://reg.example/', both), 'http://b:2/');
  t.equal(proxyOf('https://reg.example/', { ...both, https_proxy: 'http://c:3' }), 'http://c:3/');
  t.equal(proxyOf('https://reg.example/', { HTTP_PROXY: 'http://a:1' }), 'http://a:1/');
  t.equal(proxyOf('http://reg.example/', { HTTPS_PROXY: 'http://b:2' }), undefined);
  t.equal(proxyOf('https://reg.example/', {}), undefined);
  for (const host of ['localhost', '127.0.0.1:5000', '[::1]']) t.equal(proxyOf(`https://${host}/`, both), undefined);
});

t.test('proxyFor reads addresses without a scheme, and refuses what is none without quoting it', async (t) => {
  const of = (value: string): string | undefined => proxyOf('https://reg.example/', { HTTPS_PROXY: value });
  t.equal(of('proxy.corp:3128'), 'http://proxy.corp:3128/');
  t.equal(of('10.255.255.1:3128'), 'http://10.255.255.1:3128/');
  t.equal(of('proxy.corp'), 'http://proxy.corp/');
  t.equal(of('user:s3cret@proxy.corp:9'), 'http://user:s3cret@proxy.corp:9/');
  t.equal(of('https://proxy.corp:3129'), 'https://proxy.corp:3129/');
  for (const value of [
    'http://user:s3cret%@h:9',
    'http://user:s3cret@',
    'socks5://u:s3cret@h:1',
    'user:s3cret@h:port',
  ]) {
    const client = new RegistryClient({ host: 'reg.example', env: { HTTPS_PROXY: value } });
    const error = await failure(client.manifest('app', 'one'));
    t.match(error, { code: 'CONFIG_INVALID', message: /HTTPS_PROXY/ });
    t.notMatch(`${inspect(error, { depth: 9 })} ${error.hint ?? ''}`, 's3cret');
    await client.close();
  }
});

t.test('proxyFor heeds NO_PROXY as Go does', async (t) => {
  const table: [string, string, boolean][] = [
    ['*', 'https://reg.example', true],
    ['other, *', 'https://reg.example', true],
    ['', 'https://reg.example', false],
    ['reg.example', 'https://reg.example', true],
    ['REG.example', 'https://reg.example:5000', true],
    ['example', 'https://reg.example', true],
    ['eg.example', 'https://reg.example', false],
    ['.example', 'https://reg.example', true],
    ['.reg.example', 'https://reg.example', false],
    ['*.example', 'https://reg.example', true],
    ['*.reg.example', 'https://reg.example', false],
    ['a.b,reg.example c.d', 'https://reg.example', true],
    ['reg.example:443', 'https://reg.example', true],
    ['reg.example:80', 'http://reg.example', true],
    ['reg.example:80', 'https://reg.example', false],
    ['reg.example:5000', 'https://reg.example:5000', true],
    ['10.0.0.0/8', 'https://10.1.2.3:5000', true],
    ['10.0.0.0/8', 'https://11.1.2.3', false],
    ['10.0.0.0/33', 'https://10.1.2.3', false],
    ['10.0.0.0/8', 'https://reg.example', false],
    ['10.1.2.3', 'https://10.1.2.3', true],
    ['10.1.2.3:5000', 'https://10.1.2.3:5000', true],
    ['10.1.2.3:5000', 'https://10.1.2.3', false],
    ['fd00::/8', 'https://[fd12::1]:5000', true],
    ['fd00::/8', 'https://[fe80::1]', false],
    ['fd12:0::1', 'https://[fd12::1]', true],
    ['[fd12::1]:5000', 'https://[fd12::1]:5000', true],
    ['[fd12::1]:5000', 'https://[fd12::1]', false],
    ['nonsense/8, //, :, [', 'https://10.1.2.3', false],
  ];
  for (const [list, url, excepted] of table) {
    const env = { HTTPS_PROXY: 'proxy:1', HTTP_PROXY: 'proxy:1', NO_PROXY: list };
    t.equal(proxyOf(url, env) === undefined, excepted, `${list} and ${url}`);
  }
});
