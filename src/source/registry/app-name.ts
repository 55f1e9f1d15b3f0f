/** Names of appc images, as users write them (appc spec v0.8.11, spec/types.md and spec/discovery.md). */
import { LaminaError } from '../../errors.js';
import type { AciManifest } from '../../oci/aci-manifest.js';

export interface AppName {
  /** "example.com/reduce-worker" */
  readonly name: string;
  /** "version", "os", "arch" and others. */
  readonly labels: ReadonlyMap<string, string>;
}

const IDENTIFIER = /^[a-z0-9]+(?:[-._~/][a-z0-9]+)*$/;

/** `NAME[:VERSION][,LABEL=VALUE]...`, as in appc's own tools. Throws REFERENCE_INVALID. */
export function parseAppName(text: string): AppName {
  const [first = '', ...pairs] = text.split(',');
  const colon = first.indexOf(':');
  const name = colon < 0 ? first : first.slice(0, colon);
  const labels = new Map(colon < 0 ? [] : [['version', first.slice(colon + 1)]]);
  let sound = IDENTIFIER.test(name) && labels.get('version') !== '';
  for (const pair of pairs) {
    const equals = pair.indexOf('=');
    const label = pair.slice(0, Math.max(equals, 0));
    sound &&= IDENTIFIER.test(label) && label !== 'name' && !labels.has(label);
    labels.set(label, pair.slice(equals + 1));
  }
  if (sound) return { name, labels };
  throw new LaminaError('REFERENCE_INVALID', `${JSON.stringify(text.slice(0, 200))} is no name of an appc image`, {
    hint: 'It is NAME[:VERSION][,LABEL=VALUE]..., such as example.com/app:1.0.0,os=linux,arch=amd64.',
  });
}

/** Whether a name says where to look for it: HOST/NAME. */
export function isDiscoverable(name: string): boolean {
  return /^(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+)\/[^/]/.test(name);
}

export function hostOf(name: string): string {
  return name.split('/', 1)[0] ?? '';
}

/** Whether an image is the one that was asked for: its name, and each label that was given. */
export function isWanted({ name, labels }: Pick<AciManifest, 'name' | 'labels'>, wanted: AppName): boolean {
  return name === wanted.name && [...wanted.labels].every(([label, value]) => labels.get(label) === value);
}
