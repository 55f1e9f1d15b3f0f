/**
 * Random stacks of layers, the same for the same seed and world. Entries aim at what earlier ones made: they replace it
 * by every other type, delete it, link to it, go through its symlinks.
 *
 * What the oracle of a world is known to do wrong is not generated; every such place carries its reason. Numbers are
 * rows of the table in the image tools' survey that test/conformance follows: see `differs` there.
 */
import { randomAttributes, randomName } from './attributes.js';
import { key, Model, type Node, type Resolved } from './model.js';
import { Random } from './random.js';
import type { Stack, StackEntry, World } from './stack.js';

const WHITEOUT = '.wh.';
/** What hard links of one file have in common. */
const COMMON = new Set(['mode', 'uid', 'gid', 'mtime', 'xattrs']);
const OPAQUE = '.wh..wh..opq';

export function generateStack(seed: number, world: World): Stack {
  return new Generator(new Random(seed), world).stack();
}

type Operation = 'create' | 'replace' | 'repeat' | 'attributes' | 'whiteout' | 'opaque' | 'link' | 'root';

class Generator {
  readonly #random: Random;
  readonly #world: World;
  readonly #model = new Model();
  /** All below this layer. */
  #lower = new Model();
  #layer = 0;
  #entries: StackEntry[] = [];
  /** What this layer has said of a path. */
  #touched = new Map<string, 'explicit' | 'implied' | 'whiteout'>();
  /** Lower symlinks that this layer went through, what it put behind them, lower files that it linked to: see {@link #isUsed}. */
  #used = new Set<string>();
  /** Directories that this layer has made opaque. */
  #emptied = new Set<string>();
  /** Of what this layer has made, for hard links to it. */
  readonly #attributes = new Map<Node, Partial<StackEntry>>();
  /** Every path that any layer has had. */
  readonly #ever = new Set<string>();
  /** Those that were something else than a directory in any layer: containerd's mkparent fails below them (ENOTDIR). */
  readonly #everOther = new Set<string>();

  constructor(random: Random, world: World) {
    this.#random = random;
    this.#world = world;
  }

  stack(): Stack {
    const random = this.#random;
    const layers: StackEntry[][] = [];
    for (let n = random.int(1, 5); n > 0; n--) {
      this.#lower = this.#model.clone();
      this.#layer = layers.length;
      this.#entries = [];
      this.#touched = new Map();
      this.#used = new Set();
      this.#emptied = new Set();
      const count = random.int(5, 60);
      for (let tries = 0; this.#entries.length < count && tries < 4 * count; tries++) this.#step();
      layers.push(this.#entries);
    }
    return { world: this.#world, layers };
  }

  #step(): void {
    const operation = this.#random.weighted<Operation>({
      create: 40,
      replace: 15,
      repeat: 5,
      attributes: 8,
      whiteout: 12,
      opaque: 4,
      link: 14,
      root: 1,
    });
    switch (operation) {
      case 'create':
        return this.#create(this.#parent(), randomName(this.#random));
      case 'replace':
        return this.#overExisting(this.#model.all());
      case 'repeat':
        return this.#overExisting(this.#model.all().filter(({ path }) => this.#touched.get(key(path)) === 'explicit'));
      case 'attributes':
        return this.#overExisting(this.#directories(), 'directory');
      case 'whiteout':
        return this.#whiteout();
      case 'opaque':
        return this.#opaque();
      case 'link':
        return this.#link();
      case 'root':
        return this.#rootEntry();
    }
  }

  /** containerd ignores the root's own entry (row 8). */
  #rootEntry(): void {
    if (this.#world === 'overlay') return;
    const attributes = randomAttributes(this.#random, 'directory', true);
    this.#entries.push({ type: 'directory', name: this.#random.pick(['./', '/', '.', 'a/..']), ...attributes });
  }

  /** Components of a directory as an archive may name it: there, through a symlink, or yet to come. */
  #parent(): string[] {
    const random = this.#random;
    const all = this.#model.all();
    const directories = this.#directories().map(({ path }) => path);
    const symlinks = all.filter(({ node }) => node.type === 'symlink').map(({ path }) => path);
    const base = symlinks.length > 0 && random.oneIn(5) ? random.pick(symlinks) : random.pick([[], ...directories]);
    const more = random.oneIn(4) ? random.int(1, random.oneIn(8) ? 25 : 3) : 0;
    const path = [...base, ...Array.from({ length: more }, () => randomName(random))];
    return key(path).length > 3000 ? [] : path;
  }

  /** overlayfs knows no symlinks on the way but those of the layer that is being extracted (rows 28, 29). */
  readonly #follows = (node: Node): boolean => this.#world === 'spec' || node.layer === this.#layer;

  #overExisting(candidates: readonly { readonly path: readonly string[] }[], type?: Node['type']): void {
    if (candidates.length === 0) return;
    const { path } = this.#random.pick(candidates);
    this.#create(path.slice(0, -1), path.at(-1) ?? '', type);
  }

  #create(parent: readonly string[], name: string, wanted?: Node['type']): void {
    const random = this.#random;
    const type =
      wanted ?? random.weighted<Node['type']>({ file: 40, directory: 25, symlink: 20, fifo: 3, char: 3, block: 2 });
    const place = this.#place(parent, name);
    if (place === undefined) return;
    const target = type === 'symlink' ? this.#target(place.path) : undefined;
    const attributes = randomAttributes(random, type, this.#world === 'spec');
    const node = { type, layer: this.#layer, children: new Map(), ...(target === undefined ? {} : { target }) };
    this.#put(place, name, node);
    this.#attributes.set(node, Object.fromEntries(Object.entries(attributes).filter(([name]) => COMMON.has(name))));
    const written = this.#spell([...parent, name], type === 'directory');
    this.#entries.push({ type, name: written, ...attributes, ...(target === undefined ? {} : { link: target }) });
  }

  #directories(): { path: string[] }[] {
    return this.#model.all().filter(({ node }) => node.type === 'directory');
  }

  #target(from: readonly string[]): string {
    const random = this.#random;
    const all = this.#model.all();
    const { path } = random.pick(all.length === 0 ? [{ path: ['nowhere'] }] : all.map(({ path }) => ({ path })));
    const up = Array.from({ length: from.length }, () => '..');
    switch (random.int(1, 5)) {
      case 1:
        return `/${key(path)}`;
      case 2:
        return [...up, ...path].join('/');
      case 3:
        return ['..', '..', ...up, ...path].join('/');
      case 4:
        // containerd takes "d/../a" for "a", even where d is a symlink.
        return random.pick([
          'nowhere',
          '.',
          '..',
          'a/b',
          '/',
          this.#world === 'spec' ? 'd/../a' : 'a',
          `${'t'.repeat(150)}/${'u'.repeat(150)}`,
        ]);
      default:
        return key(path);
    }
  }

  /** The parent of a new name where all tools that count agree on what happens; undefined elsewhere. */
  #place(parent: readonly string[], name: string): Resolved | undefined {
    const place = this.#model.resolve(parent, this.#follows);
    if (place === undefined) return undefined;
    const path = [...place.path, name];
    if (key(path).length > 3500) return undefined;
    if (this.#world === 'overlay' && !this.#fitsOverlay(place, path)) return undefined;
    return place;
  }

  #throughLower({ through }: Resolved): boolean {
    return through.some((link) => this.#touched.get(link) !== 'explicit');
  }

  /**
   * containerd gives up or leaks lower files when one layer says two things of a name, or anything below a name that
   * it whites out (rows 1, 11 to 16); directories that only an older, hidden layer describes lend it their attributes.
   */
  #fitsOverlay(place: Resolved, path: readonly string[]): boolean {
    // Behind a link to a link containerd looks names up in the machine's root, and takes ".." off the path as it is written
    // (continuity fs.RootPath: walkLinks follows one link, and joins what comes after to its target).
    if (place.through.length > 1) return false;
    if (this.#touched.get(key(path)) !== undefined || this.#touchedBelow(path).length > 0) return false;
    for (let depth = 1; depth < path.length; depth++) {
      const above = path.slice(0, depth);
      if (this.#touched.get(key(above)) === 'whiteout') return false;
      const node = this.#model.at(above);
      if (node?.type === 'directory') continue;
      // What the link of a lower layer names must be findable, though a directory will take its place.
      const isLast = depth === path.length - 1;
      if (node?.type === 'symlink' && isLast && this.#model.resolve(above, () => true) === undefined) return false;
      if (node?.type === 'symlink' && isLast) return this.#onlyDirectories(above.slice(0, -1));
      if (this.#ever.has(key(above))) return false;
    }
    return place.node !== undefined || this.#onlyDirectories(place.path);
  }

  #onlyDirectories(path: readonly string[]): boolean {
    return path.every((_, i) => !this.#everOther.has(key(path.slice(0, i + 1))));
  }

  /** What this layer has used it cannot white out after that: extractors act entry by entry, we remove first. */
  #isUsed(path: readonly string[]): boolean {
    const at = key(path);
    return [...this.#used].some((used) => used === at || used.startsWith(`${at}/`));
  }

  #touchedBelow(path: readonly string[]): string[] {
    const prefix = path.length === 0 ? '' : `${key(path)}/`;
    return [...this.#touched.keys()].filter((touched) => touched.startsWith(prefix) && touched !== key(path));
  }

  #put(place: Resolved, name: string, node: Node): void {
    const { path, through } = place;
    const at = [...path, name];
    if (this.#throughLower(place)) this.#used.add(key(at));
    for (const link of through) this.#used.add(link);
    this.#imply(path);
    const parent = this.#model.at(path);
    const existing = parent?.children.get(name);
    if (existing?.type !== 'directory' || node.type !== 'directory') {
      for (const below of this.#touchedBelow(at)) this.#touched.delete(below);
      parent?.children.set(name, node);
    }
    this.#touched.set(key(at), 'explicit');
    this.#ever.add(key(at));
    if (node.type !== 'directory') this.#everOther.add(key(at));
  }

  #imply(path: readonly string[]): void {
    this.#model.makeDirectory(path);
    for (let depth = 1; depth <= path.length; depth++) {
      const at = key(path.slice(0, depth));
      if (!this.#touched.has(at)) this.#touched.set(at, 'implied');
      this.#ever.add(at);
    }
  }

  #whiteout(): void {
    const random = this.#random;
    const candidates = this.#lower.all();
    if (candidates.length === 0) return;
    const { path: target } = random.pick(candidates);
    const missing = random.oneIn(10);
    const name = missing ? 'never-there' : (target.at(-1) ?? '');
    const written = target.slice(0, -1);
    const parent = this.#sameInLower(written);
    if (parent === undefined || name.length > 255 - WHITEOUT.length) return;
    const path = [...parent.path, name];
    if (this.#isUsed(path)) return;
    if (this.#world === 'overlay') {
      // overlayfs lists a whiteout in a directory that it need not merge, though looking it up fails.
      if (this.#emptied.has(key(parent.path)) || this.#touched.has(key(path)) || !this.#fitsOverlay(parent, path))
        return;
      this.#imply(parent.path);
      this.#touched.set(key(path), 'whiteout');
      this.#everOther.add(key(path));
    } else if (this.#keepsLower([key(path), ...this.#touchedBelow(path)])) return;
    for (const link of parent.through) this.#used.add(link);
    this.#removeUntouched(path, true);
    this.#entries.push({ type: 'file', name: this.#spell([...written, `${WHITEOUT}${name}`], false) });
  }

  #opaque(): void {
    const candidates = this.#lower.all().filter(({ node }) => node.type === 'directory');
    if (candidates.length === 0) return;
    const { path: written } = this.#random.pick(candidates);
    const parent = this.#sameInLower(written);
    if (parent === undefined) return;
    const { path } = parent;
    if (this.#isUsed(path)) return;
    const said = this.#touched.get(key(path));
    if (this.#world === 'overlay' && (said === 'whiteout' || !this.#fitsOverlay(parent, [...path, OPAQUE]))) return;
    if (this.#keepsLower(this.#touchedBelow(path))) return;
    if (this.#world === 'overlay') {
      if ([...this.#touched].some(([at, said]) => said === 'whiteout' && at.startsWith(`${key(path)}/`))) return;
      this.#imply(path);
      this.#emptied.add(key(path));
    }
    this.#removeUntouched(path, false);
    this.#entries.push({ type: 'file', name: this.#spell([...written, OPAQUE], false) });
  }

  /**
   * umoci and containerd look for what a whiteout names among what this layer has already made; we look in the layers
   * below, as the specification says. Here both are one.
   */
  #sameInLower(written: readonly string[]): Resolved | undefined {
    const follows = this.#world === 'spec' ? this.#follows : (): boolean => false;
    const before = this.#lower.resolve(written, follows);
    const now = this.#model.resolve(written, follows);
    if (before?.node === undefined || now?.node === undefined) return undefined;
    const same = key(before.path) === key(now.path) && key(before.through) === key(now.through);
    return same ? now : undefined;
  }

  /**
   * umoci keeps a directory with its lower attributes when the layer has put something below before the whiteout, and
   * makes it anew when the whiteout comes first; to us the order is nothing (row 16).
   */
  #keepsLower(paths: readonly string[]): boolean {
    return paths.some((path) => this.#touched.get(path) === 'implied');
  }

  #removeUntouched(path: readonly string[], itself: boolean): void {
    const node = this.#model.at(path);
    if (node === undefined) return;
    const said = this.#touched.get(key(path));
    if (itself && (said === undefined || said === 'whiteout')) {
      this.#model.at(path.slice(0, -1))?.children.delete(path.at(-1) ?? '');
      return;
    }
    for (const name of [...node.children.keys()]) this.#removeUntouched([...path, name], true);
  }

  #link(): void {
    const random = this.#random;
    const files = this.#model.all().filter(({ path, node }) => {
      // overlayfs cannot link across layers (row 38).
      return node.type !== 'directory' && (this.#world === 'spec' || this.#touched.get(key(path)) === 'explicit');
    });
    if (files.length === 0) return;
    const { path: target, node } = random.pick(files);
    const again = this.#model.all().filter((other) => other.node === node && other.path !== target);
    const [parent, name] =
      random.oneIn(4) && again.length > 0
        ? [random.pick(again).path.slice(0, -1), random.pick(again).path.at(-1) ?? '']
        : [this.#parent(), randomName(random)];
    const place = this.#place(parent, name);
    if (place === undefined) return;
    const at = key([...place.path, name]);
    // A link that would remove its own target (rows 42, 43).
    if (at === key(target) || key(target).startsWith(`${at}/`)) return;
    // The way to the target must not change by making the link's parents.
    if (!this.#touched.has(key(target))) this.#used.add(key(target));
    this.#put(place, name, node);
    const link = this.#spell(target, false);
    // containerd gives the file the attributes of the link's entry; umoci and we ignore them (row 44).
    const attributes = this.#world === 'overlay' ? this.#attributes.get(node) : { mtime: '77' };
    this.#entries.push({ ...attributes, type: 'hardlink', name: this.#spell([...parent, name], false), link });
  }

  #spell(components: readonly string[], isDirectory: boolean): string {
    const random = this.#random;
    const prefix = random.oneIn(3) ? random.pick(['./', '/', './/', '../', '/../../', 'zz/../']) : '';
    const path = components.join(random.oneIn(20) ? '//' : random.oneIn(20) ? '/./' : '/');
    return `${prefix}${path}${isDirectory && !random.oneIn(4) ? '/' : ''}`;
  }
}
