/** Registries for tests: Debian's docker-registry (CNCF distribution), and HTTP servers that answer as a test says. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import { tempDir } from './tmp.js';

export interface Certificates {
  /** Files. `ca` has signed `cert`, which is for 127.0.0.1, localhost and ::1. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface RegistryOptions {
  /** Asks for {@link user} and {@link password}. */
  readonly auth?: boolean;
  readonly tls?: Certificates;
  /** Takes manifests of Docker schema 1 too. */
  readonly schema1?: boolean;
}

export interface RunningRegistry {
  /** "127.0.0.1:PORT" */
  readonly host: string;
  /** Where it keeps what it has. */
  readonly directory: string;
  stop(): Promise<void>;
}

export const user = 'alice';
export const password = 'wonderland';
/** bcrypt, the only form that the registry takes. */
const HTPASSWD = `${user}:$2b$05$abcdefghijklmnopqrstuuA0vov2GDneHB3.8.cv9UF9g.RdvScIW`;

/** On a free port of 127.0.0.1, until the test ends. */
export async function startRegistry(t: Test, options: RegistryOptions = {}): Promise<RunningRegistry> {
  const registry = await spawnRegistry(tempDir(t), options);
  t.teardown(() => registry.stop());
  return registry;
}

/** Outside a test: the caller has to see to it that it is stopped. `onAccess` gets the lines of its access log. */
export async function spawnRegistry(
  directory: string,
  { auth = false, tls, schema1 = false }: RegistryOptions = {},
  onAccess?: (line: string) => void,
): Promise<RunningRegistry> {
  writeFileSync(join(directory, 'htpasswd'), `${HTPASSWD}\n`);
  const config = {
    version: 0.1,
    log: { level: 'info', accesslog: { disabled: onAccess === undefined } },
    storage: { filesystem: { rootdirectory: join(directory, 'data') }, delete: { enabled: true } },
    http: { addr: '127.0.0.1:0', ...(tls === undefined ? {} : { tls: { certificate: tls.cert, key: tls.key } }) },
    compatibility: { schema1: { enabled: schema1 } },
    ...(auth ? { auth: { htpasswd: { realm: 'a realm', path: join(directory, 'htpasswd') } } } : {}),
  };
  // JSON is YAML.
  writeFileSync(join(directory, 'config.yml'), JSON.stringify(config));
  const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  createInterface({ input: child.stdout }).on('line', (line) => onAccess?.(line));
  const said: string[] = [];
  const host = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      said.push(line);
      const [, address] = /listening on (127\.0\.0\.1:\d+)/.exec(line) ?? [];
      if (address !== undefined) resolve(address);
    });
    child.once('error', reject);
    child.once('close', () => reject(new Error(`docker-registry ended: ${said.join('\n')}`)));
  });
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  return { host, directory, stop };
}

/** skopeo copies an image into a registry without TLS. `from`: "oci:DIR:TAG". */
export function push(from: string, host: string, name: string, extra: readonly string[] = []): void {
  const to = `docker://${host}/${name}`;
  execFileSync('skopeo', ['copy', '-q', '--insecure-policy', '--dest-tls-verify=false', ...extra, from, to], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

export interface Seen {
  readonly method: string;
  /** With the query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

export interface FakeServer {
  /** "127.0.0.1:PORT" */
  readonly host: string;
  /** "http://127.0.0.1:PORT" */
  readonly origin: string;
  /** Every request, in order. */
  readonly seen: Seen[];
  close(): Promise<void>;
}

export type Handler = (request: Seen, response: ServerResponse, n: number) => void;

/** Answers each request with `handler`; `n` counts them from 1. Closed when the test ends. */
export async function serve(t: Test, handler: Handler, tls?: ServerOptions): Promise<FakeServer> {
  const seen: Seen[] = [];
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const parts: Buffer[] = [];
    request.on('data', (bytes: Buffer) => parts.push(bytes));
    request.on('end', () => {
      const { method = '', url = '', headers } = request;
      const one = { method, url, headers, body: Buffer.concat(parts).toString('latin1') };
      handler(one, response, seen.push(one));
    });
  };
  const server: Server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  t.teardown(close);
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { host, origin: `${tls === undefined ? 'http' : 'https'}://${host}`, seen, close };
}

/** A CA, and a certificate for this machine that it has signed, made by openssl. */
export function makeCertificates(directory: string): Certificates {
  mkdirSync(directory, { recursive: true });
  const path = (name: string): string => join(directory, name);
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'ignore' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    path('ca.key'),
    '-out',
    path('ca.crt'),
    '-days',
    '2',
    '-subj',
    '/CN=test CA',
  );
  openssl('req', ...key, '-keyout', path('server.key'), '-out', path('server.csr'), '-subj', '/CN=localhost');
  writeFileSync(path('names'), 'subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost\n');
  const signing = ['-CA', path('ca.crt'), '-CAkey', path('ca.key'), '-CAcreateserial', '-days', '2'];
  openssl('x509', '-req', '-in', path('server.csr'), ...signing, '-extfile', path('names'), '-out', path('server.crt'));
  return { ca: path('ca.crt'), cert: path('server.crt'), key: path('server.key') };
}
