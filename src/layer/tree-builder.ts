/**
 * The tree of one layer, from its tar entries in their order. What only a lower layer can answer is marked for the merge
 * (src/union): directories that the layer merely implies, whiteouts, opaque directories, hard links to what is not in
 * the layer. Whiteouts say something about the layers below and never touch the layer's own entries, wherever in the
 * archive they stand (image-spec layer.md, "Whiteouts").
 *
 * A name has one inode in the tree, the last. What was there before is kept in trees beside it (./side-trees). So is what
 * goes through a symlink of the layer, at its path as written: what is there then, only the merge knows. Engines on overlayfs
 * never see what is below; for them a layer with such entries has a second tree, in which symlinks have been followed.
 */
import { LaminaError } from '../errors.js';
import {
  DEPTH_MAX,
  OPAQUE,
  WHITEOUT,
  cleanPath,
  impliedDirectory,
  isDirectory,
  meetsSymlink,
  resolveDirectory,
} from '../erofs/paths.js';
import { MARKED, S_IFREG, marker, type Inode } from '../erofs/tree.js';
import type { LayerView } from '../source/image.js';
import type { TarEntry } from '../tar/entry.js';
import { Notes, printable } from '../tar/notes.js';
import { copied } from './copied-tree.js';
import { DirectoryMarks, NameSets } from './directory-marks.js';
import { checkName, inodeOf, setAttributes } from './entry-inode.js';
import { Appendix } from './extents.js';
import { SideTrees, placeBeside } from './side-trees.js';
import { viewed } from './view.js';
import { Whiteouts } from './whiteouts.js';

/** What AUFS kept for itself; only {@link OPAQUE} of it has a meaning in images. */
const META = '.wh..wh.';

/** Inodes and whiteouts of one layer: some 400 bytes each while the tree is built. */
const INODES_MAX = 8_000_000;
/** Bytes of the names, link targets and attributes of one layer: in the compressed layer they may be a thousandth. */
const TEXT_MAX = 1024 * 1024 * 1024;
/** Bytes of memory that an attribute takes beyond its name and value: measured, with Node 20. */
const XATTR_COST = 300;

export class TreeBuilder {
  readonly #notes: Notes;
  readonly #view: LayerView | undefined;
  readonly #root: Inode;
  readonly #appendix: Appendix;
  readonly #whiteouts = new Whiteouts(() => this.#countInode());
  /** Directories that stand for AUFS metadata or below a whiteout name; taken out in the end. */
  readonly #hidden = new NameSets();
  /** What this layer has replaced itself. */
  readonly #superseded = new SideTrees(() => this.#countInode());
  /** What goes through symlinks. */
  readonly #unresolved = new SideTrees(() => this.#countInode());
  /** The layer as it is without any below, since the first entry for which that makes a difference. */
  #alone: TreeBuilder | undefined;
  #aloneFailure: LaminaError | undefined;
  /** This is such a tree. */
  readonly #isAlone: boolean;
  readonly #marks = new DirectoryMarks();
  #inodes = 1;
  #text = 0;

  /** `original`: goes on from what that has so far, as if there were no layer below. */
  constructor(notes: Notes, view?: LayerView, original?: TreeBuilder) {
    this.#notes = notes;
    this.#view = view;
    this.#isAlone = original !== undefined;
    const copies = new Map<Inode, Inode>();
    this.#root = original === undefined ? impliedDirectory() : copied(original.#root, copies);
    this.#appendix = original === undefined ? new Appendix() : original.#appendix;
    if (original === undefined) return;
    this.#whiteouts.copy(original.#whiteouts);
    this.#superseded.copy(original.#superseded, copies);
    this.#hidden.copy(original.#hidden, copies);
    this.#marks.copy(original.#marks, copies);
    this.#inodes = original.#inodes;
    this.#text = original.#text;
  }

  /** Throws TAR_INVALID, WHITEOUT_INVALID, LINK_INVALID, METADATA_INVALID, PATH_LOOP, LIMIT_EXCEEDED. */
  add(found: TarEntry): void {
    const entry = this.#view === undefined ? found : viewed(found, this.#view);
    if (entry === undefined) return;
    this.#add(entry);
    if (this.#alone === undefined || this.#aloneFailure !== undefined) return;
    try {
      this.#alone.#add(entry);
    } catch (e) {
      // Only who wants the layer alone has to know.
      if (!(e instanceof LaminaError) || e.code === 'LIMIT_EXCEEDED') throw e;
      this.#aloneFailure = e;
    }
  }

  #add(entry: TarEntry): void {
    this.#countText(entry);
    const { components, escapes } = cleanPath(entry.name);
    if (components.length > DEPTH_MAX) {
      throw new LaminaError('LIMIT_EXCEEDED', `A path of more than ${DEPTH_MAX} components: ${printable(entry.name)}`);
    }
    if (escapes) this.#notes.add('a name points above the root and is taken below it', entry.name);
    const name = components.pop();
    if (name === undefined) this.#addRoot(entry);
    else if (this.#isAci) this.#addEntry(entry, components, name);
    else if (name.startsWith(WHITEOUT) && !name.startsWith(META)) this.#addWhiteout(entry, components, name);
    else if (name === OPAQUE) this.#queueWhiteout(components, true);
    else this.#addEntry(entry, components, name);
  }

  /** appc has no whiteouts and forbids duplicate entries (spec/aci.md, "Image Archives"). */
  get #isAci(): boolean {
    return this.#view === 'aci';
  }

  /** The appendix will begin at byte `appendixStart` of the address space. The builder must not be used again. */
  finish(appendixStart: number): { root: Inode; appendix: Appendix } {
    const root = this.#finished();
    this.#appendix.place(appendixStart);
    return { root, appendix: this.#appendix };
  }

  #finished(): Inode {
    for (const [parent, names] of this.#hidden.entries()) for (const name of names) parent.children?.delete(name);
    this.#whiteouts.place(this.#root, this.#marks);
    this.#superseded.place(this.#root, marker.superseded);
    this.#unresolved.place(this.#root, marker.unresolved);
    this.#marks.place(this.#root);
    if (this.#alone !== undefined) this.#placeAlone(this.#alone);
    return this.#root;
  }

  #placeAlone(alone: TreeBuilder): void {
    if (this.#aloneFailure === undefined) placeBeside(this.#root, marker.alone, [alone.#finished()]);
    else placeBeside(this.#root, marker.alone, [], Buffer.from(this.#aloneFailure.message));
  }

  #addRoot(entry: TarEntry): void {
    if (this.#isAci) checkNew(this.#root, entry);
    if (entry.type === 'directory') setAttributes(this.#root, entry, '/', this.#notes);
    else if (entry.name === '') this.#notes.add('an entry without a name is ignored', entry.name);
    else throw new LaminaError('TAR_INVALID', `The root of the layer is not a directory: ${printable(entry.name)}`);
  }

  #addWhiteout(entry: TarEntry, parents: string[], name: string): void {
    const target = name.slice(WHITEOUT.length);
    if (target === '' || target === '.' || target === '..') {
      throw new LaminaError('WHITEOUT_INVALID', `A whiteout without a name: ${printable(entry.name)}`, {
        details: { path: entry.name.slice(0, 200) },
      });
    }
    if (entry.type !== 'file' || entry.size > 0) this.#notes.add('a whiteout is not an empty file', entry.name);
    this.#queueWhiteout([...parents, target], false);
  }

  #queueWhiteout(path: string[], opaque: boolean): void {
    if (path.some((name) => name.startsWith(WHITEOUT))) this.#noteHidden(path.join('/'));
    else this.#whiteouts.add({ path: path.join('/'), opaque });
  }

  #addEntry(entry: TarEntry, parents: readonly string[], name: string): void {
    checkName(name, entry.name);
    const trail: string[] = [];
    const parent = this.#directory(parents, entry.name, trail);
    if (parent === undefined) {
      this.#addUnresolved(entry, parents, name);
      return;
    }
    const existing = parent.children?.get(name);
    if (this.#isAci) checkNew(existing, entry);
    else if (name.startsWith(META)) this.#hide(parent, name, entry.name);
    if (entry.type === 'hardlink') {
      const { inode, target } = this.#hardlink(entry, parent, name);
      if (existing !== undefined) this.#supersede(trail, parent, name, existing);
      this.#put(parent, name, inode);
      this.#marks.link(parent, name, { order: entry.order, target });
      return;
    }
    if (entry.type === 'directory' && existing !== undefined && isDirectory(existing)) {
      if (existing.order !== 0) this.#marks.again(existing, entry.order);
      setAttributes(existing, entry, entry.name, this.#notes);
      return;
    }
    const inode = inodeOf(entry, this.#appendix, this.#notes);
    if (existing !== undefined) this.#supersede(trail, parent, name, existing);
    this.#put(parent, name, inode);
  }

  /** From here on the layers below make a difference. */
  #divide(): void {
    this.#alone ??= new TreeBuilder(new Notes(), this.#view, this);
  }

  #addUnresolved(entry: TarEntry, parents: readonly string[], name: string): void {
    this.#divide();
    if (!this.#isAci && [...parents, name].some((part) => part.startsWith(WHITEOUT))) {
      this.#noteHidden(entry.name);
      return;
    }
    const parent = this.#unresolved.room(parents, name);
    const inode = entry.type === 'hardlink' ? this.#hardlink(entry, parent, name) : undefined;
    this.#put(parent, name, inode?.inode ?? inodeOf(entry, this.#appendix, this.#notes));
    if (inode !== undefined) this.#marks.link(parent, name, { order: entry.order, target: inode.target });
  }

  /**
   * Keeps what a name of `parent`, which is at `path`, has been so far: what came after it in the archive may have meant
   * it, by a way that only the lower layers know; and a directory in the place of a file has none of their children.
   */
  #supersede(path: readonly string[], parent: Inode, name: string, existing: Inode): void {
    if (!this.#isAci && [...path, name].some((part) => part.startsWith(WHITEOUT))) {
      this.#marks.forget(parent, name);
      return;
    }
    const directory = this.#superseded.room(path, name);
    directory.children?.set(name, existing);
    this.#marks.supersede(parent, directory, name);
  }

  #put(parent: Inode, name: string, inode: Inode): void {
    parent.children?.set(name, inode);
    this.#countInode();
  }

  #countInode(): void {
    if (++this.#inodes > INODES_MAX) {
      throw new LaminaError('LIMIT_EXCEEDED', `The layer has more than ${INODES_MAX} files, directories and whiteouts`);
    }
  }

  /** All of a name counts: a part of it that is kept may hold the whole string in memory. */
  #countText({ name, linkName, xattrs }: TarEntry): void {
    this.#text += name.length + linkName.length;
    for (const [key, value] of xattrs) this.#text += key.length + value.length + XATTR_COST;
    if (this.#text > TEXT_MAX) {
      throw new LaminaError(
        'LIMIT_EXCEEDED',
        `The layer has more than ${TEXT_MAX} bytes of names, link targets and attributes`,
      );
    }
  }

  /** `trail`: see {@link resolveDirectory}. Undefined where the merge has to follow a symlink. */
  #directory(components: readonly string[], about: string, trail: string[]): Inode | undefined {
    for (const name of components) checkName(name, about);
    if (!this.#isAlone && meetsSymlink(this.#root, components)) return undefined;
    return resolveDirectory(this.#root, components, {
      follow: true,
      trail,
      make: (replaced, parent, name) => {
        this.#countInode();
        // Below a name that starts like a whiteout nothing can be seen, though a symlink may lead there.
        if (name.startsWith(WHITEOUT) && !this.#isAci) this.#hide(parent, name, about);
        if (replaced !== undefined) this.#supersede(trail, parent, name, replaced);
        return impliedDirectory();
      },
    });
  }

  #hide(parent: Inode, name: string, about: string): void {
    this.#noteHidden(about);
    this.#hidden.add(parent, name);
  }

  #noteHidden(about: string): void {
    this.#notes.add('an entry at or below a name that starts with .wh. is hidden', about);
  }

  /**
   * The inode that a hard link gives a further name: one of this layer where it comes before the link, else a
   * placeholder for the merge, which knows the layers below. `target`: where it is one of this layer, the path that the
   * merge looks up before it believes that. The link's own attributes do not count.
   */
  #hardlink(entry: TarEntry, linkParent: Inode, linkName: string): { inode: Inode; target: string | undefined } {
    const { components } = cleanPath(entry.linkName);
    const last = components.pop();
    if (last === undefined) throw linkInvalid(entry, 'its target is the root');
    const onlyMergeKnows = !this.#isAlone && meetsSymlink(this.#root, components);
    if (onlyMergeKnows) this.#divide();
    const parent = onlyMergeKnows ? undefined : resolveDirectory(this.#root, components, { follow: true });
    if (parent === linkParent && last === linkName) throw linkInvalid(entry, 'it is a link to itself');
    const path = `/${[...components, last].join('/')}`;
    const own = parent?.children?.get(last);
    // Where the layer has a directory, it may have put a file in its place by way of a lower symlink.
    if (own !== undefined && !isDirectory(own)) {
      (own.xattrs ??= new Map()).set(marker.linked, MARKED);
      return { inode: own, target: path };
    }
    const inode: Inode = {
      mode: S_IFREG,
      uid: 0,
      gid: 0,
      mtime: 0,
      mtimeNsec: 0,
      size: 0,
      rdev: 0,
      order: entry.order,
      extents: [],
      xattrs: new Map([[marker.link, Buffer.from(path, 'latin1')]]),
    };
    return { inode, target: undefined };
  }
}

function checkNew(existing: Inode | undefined, { name }: TarEntry): void {
  if (existing === undefined || existing.order === 0) return;
  throw new LaminaError('TAR_INVALID', `The archive has ${printable(name)} twice`, {
    details: { path: name.slice(0, 200) },
  });
}

function linkInvalid(entry: TarEntry, why: string): LaminaError {
  return new LaminaError('LINK_INVALID', `The hard link ${printable(entry.name)} is invalid: ${why}`, {
    details: { path: entry.name.slice(0, 200), target: entry.linkName.slice(0, 200) },
  });
}
