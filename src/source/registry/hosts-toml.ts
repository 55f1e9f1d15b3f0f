/** containerd's `certs.d/HOST/hosts.toml` (containerd, docs/hosts.md): mirrors of a registry, and TLS for each. */
import { isAbsolute, join, resolve } from 'node:path';
import { z } from 'zod';
import { LaminaError } from '../../errors.js';
import { directEndpoint, directOptions, everything, type Capability, type Endpoint } from './endpoints.js';
import { normalizeHost } from './name.js';
import { readToml } from './toml.js';
import type { TlsSettings } from './transport.js';

const oneOrMany = z.union([z.string(), z.array(z.string())]);

const hostFields = {
  capabilities: z.array(z.string()).optional(),
  ca: oneOrMany.optional(),
  client: z.union([z.string(), z.array(oneOrMany)]).optional(),
  skip_verify: z.boolean().optional(),
  header: z.record(z.string(), oneOrMany).optional(),
  override_path: z.boolean().optional(),
};
const hostSchema = z.object(hostFields);
type HostFields = z.output<typeof hostSchema>;

const schema = z.object({
  ...hostFields,
  server: z.string().optional(),
  host: z.record(z.string(), hostSchema).optional(),
});

/** The directories for a host, in order: "registry:5000" has its colon as "_" and one more at the end, or as it is. */
export function hostDirectories(root: string, host: string): string[] {
  const [, name, port] = /^(.*):(\d+)$/.exec(host) ?? [];
  return [...(name === undefined ? [] : [join(root, `${name}_${port}_`)]), join(root, host)];
}

/**
 * The endpoints that the file in `directory` gives for a registry: its hosts in the order of the file, then its server, or
 * where none is named the registry itself. Undefined where there is no file. Throws CONFIG_INVALID.
 */
export function readHosts(
  directory: string,
  registry: string,
  repository: string | undefined,
  tlsVerify: boolean | undefined,
): Endpoint[] | undefined {
  const path = join(directory, 'hosts.toml');
  const file = readToml(path, schema);
  if (file === undefined) return undefined;
  const place = { path, directory, registry, repository };
  const mirrors = Object.entries(file.host ?? {}).map(([url, fields]) => endpoint(place, url, fields, true));
  const { server } = file;
  if (server !== undefined && server !== '') {
    const upstream = endpoint(place, server, file, false);
    return [...mirrors, tlsVerify === false ? { ...upstream, tls: { ...upstream.tls, verify: false } } : upstream];
  }
  const own = tlsSettings(place, file);
  // Whoever names a CA wants it to be asked for, on this machine too.
  const options = directOptions(registry, tlsVerify ?? (own.ca.length > 0 ? true : undefined));
  const tls = { ...own, verify: own.verify && options.tls.verify };
  return [...mirrors, { ...directEndpoint(registry, repository, { ...options, tls }), headers: headersOf(file) }];
}

interface Place {
  readonly path: string;
  readonly directory: string;
  readonly registry: string;
  readonly repository: string | undefined;
}

function endpoint(place: Place, text: string, fields: HostFields, mirror: boolean): Endpoint {
  const withScheme = /^https?:\/\//.test(text) ? text : `https://${text}`;
  if (!URL.canParse(withScheme)) {
    throw new LaminaError('CONFIG_INVALID', `${place.path}: ${JSON.stringify(text.slice(0, 100))} is no address`);
  }
  const url = new URL(withScheme);
  const base = url.pathname.replace(/\/+$/, '');
  const name = normalizeHost(url.host);
  return {
    host: url.host,
    name,
    schemes: [url.protocol === 'http:' ? 'http' : 'https'],
    prefix: fields.override_path === true || base.endsWith('/v2') ? base : `${base}/v2`,
    repository: place.repository,
    mirror,
    capabilities: capabilitiesOf(fields),
    tls: tlsSettings(place, fields),
    headers: headersOf(fields),
    namespace: name === normalizeHost(place.registry) ? undefined : place.registry,
  };
}

/** In any case, and all where none is named (core/remotes/docker/config/hosts.go). What is new, such as "referrers", is passed over. */
function capabilitiesOf({ capabilities = [] }: HostFields): readonly Capability[] {
  const named = capabilities.map((word) => word.toLowerCase());
  return named.length === 0 ? everything : everything.filter((one) => named.includes(one));
}

function tlsSettings({ directory }: Place, { ca = [], client = [], skip_verify }: HostFields): TlsSettings {
  const file = (name: string): string => (isAbsolute(name) ? name : resolve(directory, name));
  return {
    verify: skip_verify !== true,
    ca: [ca].flat().map(file),
    // One file may hold both.
    client: [client].flat().map((pair) => {
      const [cert = '', key = cert] = [pair].flat();
      return { cert: file(cert), key: file(key || cert) };
    }),
  };
}

function headersOf({ header = {} }: HostFields): Record<string, string> {
  return Object.fromEntries(
    Object.entries(header).map(([name, value]) => [name.toLowerCase(), [value].flat().join(', ')]),
  );
}
