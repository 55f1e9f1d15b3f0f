/** Proxies that the environment names: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go reads them (golang.org/x/net/http/httpproxy). */
import { BlockList, isIP } from 'node:net';
import { LaminaError } from '../../errors.js';
import { isLoopback } from './loopback.js';

/** Undefined: `url` is asked without one, as this machine always is. Throws CONFIG_INVALID for a value that is no proxy. */
export function proxyFor(url: URL, env: NodeJS.ProcessEnv): URL | undefined {
  if (isLoopback(url.hostname)) return undefined;
  // One that is there for HTTP alone is for both.
  const names = [...(url.protocol === 'https:' ? ['https_proxy', 'HTTPS_PROXY'] : []), 'http_proxy', 'HTTP_PROXY'];
  const name = names.find((n) => (env[n] ?? '') !== '');
  if (name === undefined || isExcepted(url, env['no_proxy'] || env['NO_PROXY'] || '')) return undefined;
  return parseProxy(name, env[name] ?? '');
}

/** "http://USER:PASSWORD@HOST:PORT", or the same without a scheme. What it says is in no error: it may have a password. */
function parseProxy(name: string, value: string): URL {
  const text = /^[a-z][a-z\d+.-]*:\/\//i.test(value) ? value : `http://${value}`;
  const proxy = URL.canParse(text) ? new URL(text) : undefined;
  if (proxy === undefined || !isDecodable(proxy)) throw invalid(name, 'is not the address of a proxy');
  if (!/^https?:$/.test(proxy.protocol))
    throw invalid(name, `names a proxy of a kind that is not known (${proxy.protocol})`);
  return proxy;
}

function invalid(name: string, why: string): LaminaError {
  return new LaminaError('CONFIG_INVALID', `The environment's ${name} ${why}`, {
    hint: `Say ${name}=http://HOST:PORT, with characters such as % and @ of a password as %25 and %40.`,
    details: { variable: name },
  });
}

function isDecodable({ username, password }: URL): boolean {
  try {
    decodeURIComponent(username + password);
    return true;
  } catch {
    return false;
  }
}

/** `list`: "*", names, ".names" (those below only), addresses and CIDR ranges, each but the last with ":PORT" where only that is meant. */
function isExcepted(url: URL, list: string): boolean {
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1').replace(/\.$/, '');
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => entry === '*' || (entry !== '' && matches(entry, host, port)));
}

function matches(entry: string, host: string, port: string): boolean {
  const [, network, bits] = /^([\d.]+|[\da-f:.]+)\/(\d{1,3})$/.exec(entry) ?? [];
  if (network !== undefined && bits !== undefined) return isWithin(host, network, Number(bits));
  // An IPv6 address has colons of its own: with a port it is in brackets.
  const [, name = entry, only] = isIP(entry) === 6 ? [] : (/^(.*?)(?::(\d+))?$/.exec(entry) ?? []);
  if (only !== undefined && only !== port) return false;
  const plain = name.replace(/^\[(.*)\]$/, '$1').replace(/^\*\./, '.');
  if (isIP(plain) !== 0) return isWithin(host, plain, isIP(plain) === 4 ? 32 : 128);
  return host.endsWith(plain.startsWith('.') ? plain : `.${plain}`) || host === plain;
}

function isWithin(host: string, network: string, bits: number): boolean {
  const family = isIP(network);
  if (isIP(host) === 0 || isIP(host) !== family || bits > (family === 4 ? 32 : 128)) return false;
  const type = family === 4 ? 'ipv4' : 'ipv6';
  const range = new BlockList();
  range.addSubnet(network, bits, type);
  return range.check(host, type);
}
