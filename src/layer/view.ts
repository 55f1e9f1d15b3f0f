/** Layers whose tar means another tree than its own: what an entry of it is there ({@link LayerView}). */
import { cleanPath } from '../erofs/paths.js';
import { LaminaError } from '../errors.js';
import type { LayerView } from '../source/image.js';
import type { TarEntry } from '../tar/entry.js';
import { printable } from '../tar/notes.js';

/** At the root of an eStargz layer (stargz-snapshotter, docs/estargz.md): its index, and what to fetch ahead. */
const loaderFiles = new Set(['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark']);
const ROOTFS = 'rootfs';

/** The entry as the tree has it; undefined where it is not in the tree. Throws LINK_INVALID. */
export function viewed(entry: TarEntry, view: LayerView): TarEntry | undefined {
  const { components } = cleanPath(entry.name);
  const [first = ''] = components;
  if (view === 'estargz') return components.length === 1 && loaderFiles.has(first) ? undefined : entry;
  if (first !== ROOTFS) return undefined;
  const name = belowRootfs(components);
  return entry.type === 'hardlink' ? { ...entry, name, linkName: linkTarget(entry) } : { ...entry, name };
}

/** The targets of hard links are names of the archive, those of symlinks paths of the image. */
function linkTarget({ name, linkName }: TarEntry): string {
  const { components } = cleanPath(linkName);
  if (components[0] === ROOTFS) return belowRootfs(components);
  throw new LaminaError(
    'LINK_INVALID',
    `The hard link ${printable(name)} is invalid: its target is not below ${ROOTFS}/`,
    {
      details: { path: name.slice(0, 200), target: linkName.slice(0, 200) },
    },
  );
}

function belowRootfs(components: readonly string[]): string {
  return `/${components.slice(1).join('/')}`;
}
