/**
 * `npm run bench`: what Lamina costs beside native ext4 and the tools that one would use instead. Everything is measured in
 * one run, one thing at a time, the candidates in turn; times are medians, and only the ratios mean something beyond
 * this machine. Needs root and /dev/fuse.
 *
 *     npm run bench -- [--image DIR[:TAG]] [--runs N] [--engine kernel|fuse]... [--json]
 *
 * The image is .cache/images/app.oci (scripts/make-images) or, where that is not, the image of the demo.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { lamina } from '../test/support/cli.js';
import { spawnDaemon, type TestDaemon } from '../test/support/daemon.js';
import { blobPath } from '../test/support/images.js';
import { projectRoot } from '../test/support/project.js';
import { makeDemoImage } from './demo-image.js';
import { removeTree, temporaryPrefix } from './leftovers.js';
import { READ_ALL, checkCanMount, dropCaches, median, quote, run, runBench, runsOf, timed } from './measure.js';

type Engine = 'kernel' | 'fuse';

interface Options {
  readonly image: string | undefined;
  readonly runs: number;
  readonly engines: readonly Engine[];
  readonly json: boolean;
}

/** One line of the result: medians in seconds, by candidate; the first candidate is what the others are compared with. */
interface Row {
  readonly what: string;
  readonly seconds: Readonly<Record<string, number>>;
}

interface Layout {
  readonly reference: string;
  /** Paths of the layers' blobs, base first. */
  readonly blobs: readonly string[];
}

const WALK = 'find . -xdev -printf "%s %m %n\\n" >/dev/null';
const PYTHON = 'chroot . /usr/bin/python3 -c "import numpy"';

class Bench {
  readonly #options: Options;
  readonly #directory = mkdtempSync(join(realpathSync(tmpdir()), temporaryPrefix('bench')));
  readonly #rows: Row[] = [];
  #daemon: TestDaemon | undefined;

  constructor(options: Options) {
    this.#options = options;
  }

  async run(): Promise<readonly Row[]> {
    const layout = await this.#findImage();
    this.#note(`image ${layout.reference}, ${layout.blobs.length} layers, ${megabytes(totalSize(layout.blobs))} MB`);
    for (const blob of layout.blobs) await this.#shell(`cat ${quote(blob)} >/dev/null`, this.#directory);
    await this.#indexing(layout);
    await this.#mounting(layout);
    await this.#reading(layout);
    return this.#rows;
  }

  async close(): Promise<void> {
    await this.#daemon?.stop();
    await removeTree(this.#directory);
  }

  /** Index with an empty store, beside decompressing alone and beside an extraction. */
  async #indexing({ reference, blobs }: Layout): Promise<void> {
    const [store, extracted] = [join(this.#directory, 'index-store'), join(this.#directory, 'extracted')];
    const each = (command: (blob: string) => string): string => blobs.map(command).join(' && ');
    await this.#measure('index, empty store', {
      'tar -xf': async () => {
        await this.#emptied(extracted);
        return this.#shell(
          // tar does not put a file in the place of a directory, and says so with code 2.
          each(
            (blob) => `{ ${decompress(blob)} | tar -x --exclude='./dev/*' -f - -C ${quote(extracted)} || [ $? = 2 ]; }`,
          ),
          this.#directory,
        );
      },
      'decompress only': () =>
        this.#shell(
          each((blob) => `${decompress(blob)} >/dev/null`),
          this.#directory,
        ),
      'lamina index': async () => {
        await this.#emptied(store);
        return timed(() =>
          this.#lamina(['index', reference], { LAMINA_STORE: store, LAMINA_RUN: join(this.#directory, 'no-run') }),
        );
      },
    });
    for (const directory of [store, extracted]) await removeTree(directory);
  }

  /** With the index there: the request on the daemon's socket, and the whole command. */
  async #mounting({ reference }: Layout): Promise<void> {
    const daemon = await this.#start();
    await this.#lamina(['index', reference], daemon.env);
    const candidates: Record<string, () => Promise<number>> = {};
    for (const engine of this.#options.engines) {
      candidates[`${engine}, request`] = async () => {
        const seconds = await timed(() => this.#mount(reference, engine));
        await this.#unmount(engine);
        return seconds;
      };
      candidates[`${engine}, command`] = async () => {
        const target = this.#target(engine);
        const seconds = await timed(() => this.#lamina(['mount', '--engine', engine, reference, target], daemon.env));
        await this.#unmount(engine);
        return seconds;
      };
    }
    await this.#measure('mount, index at hand', candidates);
  }

  async #reading({ reference }: Layout): Promise<void> {
    const native = join(this.#directory, 'native');
    await this.#makeNative(reference, native);
    const python =
      existsSync(join(native, 'usr/bin/python3')) && existsSync(join(native, 'usr/lib/python3/dist-packages/numpy'));
    await this.#firstReads(reference, native);

    const places: Record<string, string> = { native };
    for (const engine of this.#options.engines) {
      await this.#mount(reference, engine);
      places[engine] = this.#target(engine);
      await this.#shell(READ_ALL, this.#target(engine));
    }
    const loads = { walk: WALK, 'read everything': READ_ALL, ...(python ? { 'python3 + numpy': PYTHON } : {}) };
    for (const [name, command] of Object.entries(loads)) {
      await this.#measure(
        `${name}, cold`,
        candidatesFrom(places, (at) => this.#cold(command, at)),
      );
      await this.#measure(
        `${name}, warm`,
        candidatesFrom(places, (at) => this.#shell(command, at)),
      );
    }
  }

  /** Reading everything when nothing has been unpacked yet: a store with its index and no data, a new daemon. */
  async #firstReads(reference: string, native: string): Promise<void> {
    const first = (engine: Engine) => async (): Promise<number> => {
      await this.#stop();
      for (const path of dataFiles(join(this.#directory, 'store'))) rmSync(path);
      await this.#start();
      await this.#mount(reference, engine);
      const seconds = await this.#cold(READ_ALL, this.#target(engine));
      await this.#unmount(engine);
      return seconds;
    };
    const lazily = Object.fromEntries(this.#options.engines.map((engine) => [engine, first(engine)]));
    await this.#measure('read everything, first time', { native: () => this.#cold(READ_ALL, native), ...lazily });
  }

  /** The same tree on the file system beneath, copied out of a mount by cp. */
  async #makeNative(reference: string, native: string): Promise<void> {
    const engine = this.#options.engines[0] ?? 'fuse';
    await this.#mount(reference, engine);
    await run('cp', ['-a', `${this.#target(engine)}/.`, native]);
    await run('sync', []);
    await this.#unmount(engine);
  }

  /** Each candidate in turn, `runs` times; the median of each becomes a row. */
  async #measure(what: string, candidates: Readonly<Record<string, () => Promise<number>>>): Promise<void> {
    const samples = new Map<string, number[]>(Object.keys(candidates).map((name) => [name, []]));
    for (let i = 0; i < this.#options.runs; i++) {
      for (const [name, candidate] of Object.entries(candidates)) samples.get(name)?.push(await candidate());
    }
    const row = { what, seconds: Object.fromEntries([...samples].map(([name, times]) => [name, median(times)])) };
    this.#rows.push(row);
    this.#note(formatRow(row));
  }

  async #cold(command: string, at: string): Promise<number> {
    await dropCaches();
    return this.#shell(command, at);
  }

  #shell(command: string, cwd: string): Promise<number> {
    return timed(() => run('bash', ['-o', 'pipefail', '-c', command], { cwd }));
  }

  async #lamina(args: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
    const { code, stderr } = await lamina(args, { env });
    if (code !== 0) throw new Error(`lamina ${args.join(' ')} ended with ${code}:\n${stderr}`);
  }

  async #start(): Promise<TestDaemon> {
    this.#daemon = spawnDaemon(this.#directory);
    await this.#daemon.ready();
    return this.#daemon;
  }

  async #stop(): Promise<void> {
    await this.#daemon?.stop();
    this.#daemon = undefined;
  }

  #target(engine: Engine): string {
    return join(this.#directory, `mnt-${engine}`);
  }

  async #mount(reference: string, engine: Engine): Promise<void> {
    mkdirSync(this.#target(engine), { recursive: true });
    const answer = await this.#control('POST', '/v1/mounts', { reference, mountpoint: this.#target(engine), engine });
    const last = Array.isArray(answer) ? (answer.at(-1) as { type?: unknown } | undefined) : undefined;
    if (last?.type !== 'mounted') throw new Error(`Cannot mount with the ${engine} engine: ${JSON.stringify(last)}`);
  }

  async #unmount(engine: Engine): Promise<void> {
    await this.#control('DELETE', `/v1/mounts?target=${encodeURIComponent(this.#target(engine))}`);
  }

  async #control(method: string, path: string, body?: unknown): Promise<unknown> {
    const answer = await this.#daemon?.control(method, path, body);
    if (answer?.status !== 200) throw new Error(`${method} ${path}: ${JSON.stringify(answer)}`);
    return answer.body;
  }

  async #emptied(directory: string): Promise<void> {
    await removeTree(directory);
    mkdirSync(directory);
    await run('sync', []);
  }

  async #findImage(): Promise<Layout> {
    const wanted = this.#options.image ?? join(projectRoot, '.cache/images/app.oci');
    const [, directory = wanted, tag] = /^(.*?)(?::([^/:]+))?$/.exec(wanted.replace(/^oci:/, '')) ?? [];
    if (existsSync(directory)) return readLayout(resolve(directory), tag);
    if (this.#options.image !== undefined) throw new Error(`There is no ${directory}`);
    this.#note('no .cache/images/app.oci (scripts/make-images): taking the image of the demo');
    const made = await makeDemoImage(join(this.#directory, 'demo.oci'));
    return readLayout(made.directory, undefined);
  }

  #note(text: string): void {
    if (!this.#options.json) console.log(text);
  }
}

/** The first image of a layout. */
function readLayout(directory: string, tag: string | undefined): Layout {
  const read = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));
  const { manifests } = read(join(directory, 'index.json')) as {
    manifests: { digest: string; annotations?: Record<string, string> }[];
  };
  const nameOf = (entry: (typeof manifests)[number]): string | undefined =>
    entry.annotations?.['org.opencontainers.image.ref.name'];
  const chosen = tag === undefined ? manifests[0] : manifests.find((entry) => nameOf(entry) === tag);
  if (chosen === undefined) throw new Error(`${directory} has no image ${tag ?? ''}`);
  const { layers } = read(blobPath(directory, chosen.digest)) as { layers: { digest: string }[] };
  const name = nameOf(chosen);
  return {
    reference: `oci:${directory}${name === undefined ? '' : `:${name}`}`,
    blobs: layers.map((layer) => blobPath(directory, layer.digest)),
  };
}

/** A command that writes what a blob holds, by its first bytes. */
function decompress(blob: string): string {
  const fd = openSync(blob, 'r');
  const bytes = Buffer.alloc(4);
  readSync(fd, bytes);
  closeSync(fd);
  const [head, quoted] = [bytes.toString('hex'), quote(blob)];
  if (head.startsWith('1f8b')) return `gzip -dc ${quoted}`;
  return head === '28b52ffd' ? `zstd -qdc ${quoted}` : `cat ${quoted}`;
}

function dataFiles(store: string): string[] {
  const layers = join(store, 'layers');
  const paths = existsSync(layers) ? readdirSync(layers).map((layer) => join(layers, layer, 'data')) : [];
  return paths.filter((path) => existsSync(path));
}

function candidatesFrom(
  places: Readonly<Record<string, string>>,
  measure: (place: string) => Promise<number>,
): Record<string, () => Promise<number>> {
  return Object.fromEntries(Object.entries(places).map(([name, place]) => [name, () => measure(place)]));
}

function formatRow({ what, seconds }: Row): string {
  const [base = 0] = Object.values(seconds);
  const cells = Object.entries(seconds).map(([name, time], i) => {
    const ratio = i === 0 ? '' : ` (${(time / base).toFixed(2)})`;
    return `${name} ${time.toFixed(3)} s${ratio}`;
  });
  return `${what.padEnd(30)} ${cells.join('   ')}`;
}

function totalSize(paths: readonly string[]): number {
  return paths.reduce((sum, path) => sum + statSync(path).size, 0);
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

function parseOptions(): Options {
  const { values } = parseArgs({
    options: {
      image: { type: 'string' },
      runs: { type: 'string', default: '3' },
      engine: { type: 'string', multiple: true, default: ['kernel', 'fuse'] },
      json: { type: 'boolean', default: false },
    },
  });
  const engines = values.engine.map((engine): Engine => {
    if (engine === 'kernel' || engine === 'fuse') return engine;
    throw new Error('--engine is kernel or fuse');
  });
  return { image: values.image, runs: runsOf(values.runs), engines, json: values.json };
}

checkCanMount();
const options = parseOptions();
await runBench(new Bench(options), options.json);
