/** Where a path of an image comes from: which layer says what it is, and what lower layers said before. */
import type { Inode } from '../erofs/tree.js';
import type { Compat, MergeObserver } from '../union/merge.js';
import type { PreparedImage } from './prepare.js';
import { factsOf, replayMerge, type EntryFacts } from './replay.js';

/** What a layer did to a path. */
export interface HistoryStep {
  /** From 1, base first. */
  readonly layer: number;
  /**
   * "added": there was nothing. "implied": a directory that no entry of the layer names, only what is below it.
   * "replaced": it took the place of what was there. "attributes": a directory got new ones and kept what is in it.
   * "removed": by a whiteout or an opaque directory, here or above, or because what was above is no directory any more.
   */
  readonly change: 'added' | 'implied' | 'replaced' | 'attributes' | 'removed';
  /** What the path was after that; undefined once removed. */
  readonly entry: EntryFacts | undefined;
}

export interface Provenance {
  /** The layer whose entry the path is, or that first has something in a directory without one; undefined: it is not there. */
  readonly layer: number | undefined;
  /** Base first; one step a layer, none for those that do not touch the path. */
  readonly history: readonly HistoryStep[];
  /** What lower layers had under this path that is not to be seen: those steps of the history, with who hid it. */
  readonly hidden: readonly { readonly layer: number; readonly by: number; readonly entry: EntryFacts }[];
}

/** `path` has no symlinks on its way: {@link realPath}. Throws what merging throws. */
export function provenance(prepared: PreparedImage, compat: Compat, path: string): Provenance {
  const observer = new PathObserver(path.split('/').filter((part) => part !== ''));
  replayMerge(prepared, compat, observer);
  const { history } = observer;
  const hidden = history.flatMap(({ layer, entry, change }, i) => {
    const next = history[i + 1];
    if (entry === undefined || change === 'implied' || next === undefined) return [];
    return [{ layer, by: next.layer, entry }];
  });
  const said = history.findLast(({ change }) => change !== 'implied');
  const last = history.at(-1);
  const origin = last?.entry === undefined ? undefined : (said?.entry === undefined ? last : said).layer;
  return { layer: origin, history, hidden };
}

/** Looks at one path after each layer, and notes whether the layer has an entry for it. */
class PathObserver implements MergeObserver {
  readonly history: HistoryStep[] = [];
  readonly #path: readonly string[];
  readonly #name: string;
  /** Directories in which the layer has placed the path's last name, or given it attributes; undefined: of the root. */
  readonly #touched = new Set<Inode | undefined>();
  #inode: Inode | undefined;

  constructor(path: readonly string[]) {
    this.#path = path;
    this.#name = path.at(-1) ?? '';
  }

  place(parent: Inode, name: string, _inode: Inode, _before: Inode | undefined, implied: boolean): void {
    if (name !== this.#name) return;
    if (implied) this.#touched.delete(parent);
    else this.#touched.add(parent);
  }

  attributes(parent: Inode | undefined, name: string): void {
    if (name === this.#name) this.#touched.add(parent);
  }

  remove(): void {
    // What is gone is seen to be gone.
  }

  layerDone(root: Inode, layer: number): void {
    let parent: Inode | undefined;
    let now: Inode | undefined = root;
    for (const name of this.#path) [parent, now] = [now, now?.children?.get(name)];
    const before = this.#inode;
    const touched = now !== undefined && this.#touched.has(parent);
    this.#touched.clear();
    this.#inode = now;
    const change = changeOf(before, now, touched);
    if (change === undefined) return;
    this.history.push({ layer, change, entry: now === undefined ? undefined : factsOf(now) });
  }
}

function changeOf(
  before: Inode | undefined,
  now: Inode | undefined,
  touched: boolean,
): HistoryStep['change'] | undefined {
  if (now === undefined) return before === undefined ? undefined : 'removed';
  if (before === now) return touched ? (now.children === undefined ? 'replaced' : 'attributes') : undefined;
  if (!touched && now.children !== undefined) return before === undefined ? 'implied' : 'replaced';
  return before === undefined ? 'added' : 'replaced';
}

/** For every path of an image, the layer whose entry it is; of implied directories, the first that has something in it. */
export function origins(prepared: PreparedImage, compat: Compat): (path: string) => number | undefined {
  const observer = new OriginObserver();
  const root = replayMerge(prepared, compat, observer);
  return (path) => {
    let directory: Inode | undefined;
    let here: Inode | undefined = root;
    let last = '';
    for (const name of path.split('/')) {
      if (name === '') continue;
      [directory, here, last] = [here, here?.children?.get(name), name];
    }
    return here === undefined ? undefined : observer.origin(directory, last);
  };
}

class OriginObserver implements MergeObserver {
  /** By directory and name; the root stands under its own. */
  readonly #names = new WeakMap<Inode, Map<string, number>>();
  #root: number | undefined;
  #layer = 1;

  place(parent: Inode, name: string): void {
    this.#note(parent, name);
  }

  attributes(parent: Inode | undefined, name: string): void {
    if (parent === undefined) this.#root = this.#layer;
    else this.#note(parent, name);
  }

  remove(parent: Inode, name: string): void {
    this.#names.get(parent)?.delete(name);
  }

  layerDone(): void {
    this.#layer++;
  }

  origin(directory: Inode | undefined, name: string): number | undefined {
    return directory === undefined ? this.#root : this.#names.get(directory)?.get(name);
  }

  #note(parent: Inode, name: string): void {
    const names = this.#names.get(parent) ?? new Map<string, number>();
    this.#names.set(parent, names.set(name, this.#layer));
  }
}
