/**
 * `npm run bench:registry`: how soon a container runs whose image is in a registry, and what is fetched until then; beside
 * pulling the image whole, and beside stargz-snapshotter where containerd-stargz-grpc and
 * ctr-remote are (Debian has only the latter). The registry is Debian's docker-registry on this machine. Every measurement
 * begins with nothing of the image in the store, a daemon that has run another image and had some seconds of rest since, and
 * dropped caches. "With a trace": another machine has run numpy and pushed what was read. Needs root, /dev/fuse and
 * scripts/install-peers.
 *
 *     npm run bench:registry -- [--image DIR[:TAG]] [--estargz ARCHIVE] [--optimized ARCHIVE] [--runs N] [--slow]
 *                               [--only NAME]... [--json]
 *
 * The image is .cache/images/app.oci (scripts/make-images); `--estargz` is the same as converted by `ctr-remote image
 * convert --estargz`, `--optimized` as by `ctr-remote image optimize`, with what numpy reads first in each layer: both
 * oci-archives. `--slow`: over a link of 100 Mbit/s with a round trip of 20 ms.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { cliPath } from '../test/support/cli.js';
import { commandExists } from '../test/support/commands.js';
import { spawnDaemon } from '../test/support/daemon.js';
import { projectRoot } from '../test/support/project.js';
import { spawnRegistry, type RunningRegistry } from '../test/support/registry.js';
import { makeDemoImage } from './demo-image.js';
import { removeTree, temporaryPrefix } from './leftovers.js';
import { READ_ALL, checkCanMount, dropCaches, median, run, runBench, runsOf, timed } from './measure.js';
import { startSlowLink, type SlowLink } from './slow-link.js';

interface Options {
  readonly image: string;
  readonly estargz: string | undefined;
  readonly optimized: string | undefined;
  readonly runs: number;
  readonly slow: boolean;
  readonly only: readonly string[];
  readonly json: boolean;
}

/** One way to a container. Each is begun with nothing of the image on this machine. */
interface Candidate {
  readonly name: string;
  /** Makes what is there before the clock starts; the result takes it away again. */
  prepare(directory: string): Promise<Prepared>;
}

interface Prepared {
  /** Runs a command in a container of the image. */
  start(command: readonly string[]): Promise<unknown>;
  end(): Promise<void>;
}

/** Medians: seconds, and bytes that the registry has sent. */
interface Row {
  readonly name: string;
  readonly numpy: number;
  readonly numpyBytes: number;
  readonly node: number;
  readonly nodeBytes: number;
  readonly readAll: number;
  readonly readAllBytes: number;
  readonly requests: number;
}

const NUMPY = ['python3', '-c', 'import numpy'];
const NODE = ['node', '-e', '0'];
const EVERYTHING = ['sh', '-c', READ_ALL];
const COPY = ['copy', '-q'];
const CHUNKED = ['--dest-compress-format', 'zstd:chunked', '--dest-compress'];
/** A daemon makes use of the time in which nobody asks anything of it. */
const IDLE_MS = 12_000;
const LINK = { bytesPerSecond: 100e6 / 8, roundTripMs: 20 };

/** The registry, and what it has sent, by its access log in Apache's combined format. */
class Registry {
  readonly #running: RunningRegistry;
  readonly #seen: { bytes: number; requests: number };

  private constructor(running: RunningRegistry, seen: { bytes: number; requests: number }) {
    this.#running = running;
    this.#seen = seen;
  }

  static async start(directory: string): Promise<Registry> {
    const seen = { bytes: 0, requests: 0 };
    mkdirSync(directory);
    const running = await spawnRegistry(directory, {}, (line) => {
      const [, bytes] = /" 20[06] (\d+) "/.exec(line) ?? [];
      if (bytes === undefined) return;
      seen.bytes += Number(bytes);
      seen.requests++;
    });
    return new Registry(running, seen);
  }

  get host(): string {
    return this.#running.host;
  }

  /** Since the last call. */
  async taken(): Promise<{ bytes: number; requests: number }> {
    await sleep(100);
    const { bytes, requests } = this.#seen;
    this.#seen.bytes = this.#seen.requests = 0;
    return { bytes, requests };
  }

  stop(): Promise<void> {
    return this.#running.stop();
  }
}

class Bench {
  readonly #options: Options;
  readonly #directory = mkdtempSync(join(realpathSync(tmpdir()), temporaryPrefix('bench')));
  #registry: Registry | undefined;
  #link: SlowLink | undefined;

  constructor(options: Options) {
    this.#options = options;
  }

  async run(): Promise<Row[]> {
    const registry = await Registry.start(join(this.#directory, 'registry'));
    this.#registry = registry;
    await this.#push(registry.host);
    if (this.#options.slow) this.#link = await startSlowLink(registry.host, LINK);
    const host = this.#link?.host ?? registry.host;
    const rows: Row[] = [];
    for (const candidate of this.#candidates(host)) {
      const row = await this.#measure(candidate, registry);
      rows.push(row);
      if (!this.#options.json) console.log(formatRow(row));
    }
    return rows;
  }

  async close(): Promise<void> {
    await this.#link?.stop();
    await this.#registry?.stop();
    await removeTree(this.#directory);
  }

  async #push(host: string): Promise<void> {
    const { image, estargz, optimized } = this.#options;
    const copy = (from: string, name: string): Promise<unknown> =>
      run('skopeo', [...COPY, '--dest-tls-verify=false', from, `docker://${host}/${name}:latest`]);
    await copy(`oci:${image}`, 'gzip');
    for (const name of ['indexed', 'both']) await copy(`oci:${image}`, name);
    // By way of a layout: the registry has the layers already, in another form.
    const chunked = `oci:${join(this.#directory, 'chunked')}:latest`;
    await run('skopeo', [...COPY, ...CHUNKED, `oci:${image}`, chunked]);
    await copy(chunked, 'chunked');
    for (const name of estargz === undefined ? [] : ['estargz', 'traced']) {
      await copy(`oci-archive:${estargz}`, name);
    }
    if (optimized !== undefined) await copy(`oci-archive:${optimized}`, 'optimized');
    const demo = await makeDemoImage(join(this.#directory, 'demo.oci'));
    const other = `oci:${join(this.#directory, 'other')}:latest`;
    await run('skopeo', [...COPY, ...CHUNKED, demo.reference, other]);
    await copy(other, 'other');
    const scratch = join(this.#directory, 'indexing');
    await lamina(['--store', scratch, 'index', '--push', `docker://${host}/indexed:latest`]);
    await removeTree(scratch);
    for (const name of estargz === undefined ? ['both'] : ['both', 'traced']) {
      await this.#trace(`docker://${host}/${name}:latest`);
    }
  }

  /** Runs numpy from the image, and pushes what it has read first. */
  async #trace(reference: string): Promise<void> {
    const daemon = spawnDaemon(mkdtempSync(join(this.#directory, 'tracing-')));
    try {
      await daemon.ready();
      await lamina(['run', reference, ...NUMPY], daemon.env);
      await lamina(['index', '--push', reference], daemon.env);
    } finally {
      await daemon.stop();
    }
  }

  #candidates(host: string): Candidate[] {
    const { estargz, optimized, only } = this.#options;
    const hasStargz = commandExists('containerd-stargz-grpc');
    const all: Candidate[] = [
      ...(estargz === undefined
        ? []
        : [
            laminaWith('lamina, eStargz', `docker://${host}/estargz:latest`),
            laminaWith('lamina, eStargz with a trace', `docker://${host}/traced:latest`),
          ]),
      ...(optimized === undefined
        ? []
        : [laminaWith('lamina, optimised eStargz', `docker://${host}/optimized:latest`)]),
      laminaWith('lamina, zstd:chunked', `docker://${host}/chunked:latest`),
      laminaWith('lamina, gzip with an index', `docker://${host}/indexed:latest`),
      laminaWith('lamina, gzip with an index and a trace', `docker://${host}/both:latest`),
      laminaWith('lamina, gzip', `docker://${host}/gzip:latest`),
      laminaWith('lamina, gzip, second time', `docker://${host}/gzip:latest`, true),
      skopeoAndUmoci(`${host}/gzip:latest`),
      containerd('ctr, gzip', `${host}/gzip:latest`, 'overlayfs'),
      ...(estargz !== undefined && hasStargz
        ? [containerd('stargz-snapshotter, eStargz', `${host}/estargz:latest`, 'stargz')]
        : []),
      ...(optimized !== undefined && hasStargz
        ? [containerd('stargz-snapshotter, optimised eStargz', `${host}/optimized:latest`, 'stargz')]
        : []),
    ];
    return only.length === 0 ? all : all.filter(({ name }) => only.some((part) => name.includes(part)));
  }

  async #measure(candidate: Candidate, registry: Registry): Promise<Row> {
    const samples: Omit<Row, 'name'>[] = [];
    for (let i = 0; i < this.#options.runs; i++) {
      const [numpy, numpySeen] = await this.#once(candidate, registry, NUMPY);
      const [node, nodeSeen] = await this.#once(candidate, registry, NODE);
      const [readAll, readAllSeen] = await this.#once(candidate, registry, EVERYTHING);
      samples.push({
        numpy,
        numpyBytes: numpySeen.bytes,
        requests: numpySeen.requests,
        node,
        nodeBytes: nodeSeen.bytes,
        readAll,
        readAllBytes: readAllSeen.bytes,
      });
    }
    const of = (key: keyof Omit<Row, 'name'>): number => median(samples.map((sample) => sample[key]));
    return {
      name: candidate.name,
      numpy: of('numpy'),
      numpyBytes: of('numpyBytes'),
      requests: of('requests'),
      node: of('node'),
      nodeBytes: of('nodeBytes'),
      readAll: of('readAll'),
      readAllBytes: of('readAllBytes'),
    };
  }

  async #once(
    candidate: Candidate,
    registry: Registry,
    command: readonly string[],
  ): Promise<[number, { bytes: number; requests: number }]> {
    const directory = mkdtempSync(join(this.#directory, 'run-'));
    const prepared = await candidate.prepare(directory);
    try {
      await dropCaches();
      await registry.taken();
      const seconds = await timed(() => prepared.start(command));
      return [seconds, await registry.taken()];
    } finally {
      await prepared.end();
      await removeTree(directory);
    }
  }
}

async function lamina(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const { stdout } = await run(process.execPath, [cliPath, ...args], { env });
  return stdout.trim();
}

/** `again`: the image was mounted before. */
function laminaWith(name: string, reference: string, again = false): Candidate {
  return {
    name,
    async prepare(directory) {
      const daemon = spawnDaemon(directory);
      await daemon.ready();
      try {
        await lamina(['run', reference.replace(/\/[^/]+$/, '/other:latest')], daemon.env);
        await sleep(IDLE_MS);
        if (again) {
          await lamina(['mount', reference], daemon.env);
          await lamina(['umount', reference], daemon.env);
        }
      } catch (e) {
        await daemon.stop();
        throw e;
      }
      return {
        start: (command) => lamina(['run', reference, ...command], daemon.env),
        end: () => daemon.stop(),
      };
    },
  };
}

function skopeoAndUmoci(image: string): Candidate {
  return {
    name: 'skopeo + umoci, gzip',
    prepare(directory) {
      const bundle = join(directory, 'bundle');
      const pull = async (): Promise<void> => {
        const layout = join(directory, 'layout');
        await run('skopeo', ['copy', '-q', '--src-tls-verify=false', `docker://${image}`, `oci:${layout}:latest`]);
        await run('umoci', ['unpack', '--image', `${layout}:latest`, bundle]);
      };
      return Promise.resolve({
        async start(command) {
          await pull();
          const path = join(bundle, 'config.json');
          const config = JSON.parse(readFileSync(path, 'utf8')) as { process: { args: unknown; terminal: boolean } };
          config.process.args = command;
          config.process.terminal = false;
          writeFileSync(path, JSON.stringify(config));
          await run('runc', ['run', '--bundle', bundle, `bench-${process.pid}`]);
        },
        end: () => Promise.resolve(),
      });
    },
  };
}

function containerd(name: string, image: string, snapshotter: 'overlayfs' | 'stargz'): Candidate {
  const lazy = snapshotter === 'stargz';
  return {
    name,
    async prepare(directory) {
      const socket = join(directory, 'containerd.sock');
      const plugin = join(directory, 'stargz.sock');
      const config = `version = 2
root = "${directory}/root"
state = "${directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "${socket}"
[proxy_plugins.stargz]
  type = "snapshot"
  address = "${plugin}"
`;
      writeFileSync(join(directory, 'containerd.toml'), config);
      writeFileSync(
        join(directory, 'stargz.toml'),
        `[[resolver.host."${image.split('/')[0] ?? ''}".mirrors]]\nhost = "${image.split('/')[0] ?? ''}"\ninsecure = true\n`,
      );
      const children: ChildProcess[] = [];
      if (lazy) {
        const args = ['--address', plugin, '--root', join(directory, 'stargz'), '--config', `${directory}/stargz.toml`];
        children.push(spawn('containerd-stargz-grpc', args, { stdio: 'ignore' }));
      }
      children.push(spawn('containerd', ['-c', join(directory, 'containerd.toml')], { stdio: 'ignore' }));
      const ctr = (args: readonly string[]): Promise<unknown> =>
        run(lazy ? 'ctr-remote' : 'ctr', ['-a', socket, ...args]);
      for (let i = 0; ; i++) {
        const answers = await ctr(['version']).then(
          () => (lazy ? existsSync(plugin) : true),
          () => false,
        );
        if (answers) break;
        if (i > 100) throw new Error('containerd does not answer');
        await sleep(100);
      }
      const pull = (): Promise<unknown> =>
        lazy
          ? ctr(['image', 'rpull', '--plain-http', image])
          : ctr(['image', 'pull', '--plain-http', '--snapshotter', snapshotter, image]);
      return {
        async start(command) {
          await pull();
          await ctr(['run', '--rm', '--snapshotter', snapshotter, image, `bench-${process.pid}`, ...command]);
        },
        async end() {
          for (const child of children.reverse()) await ended(child, 'SIGTERM');
        },
      };
    },
  };
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill(signal);
  await exit;
}

function formatRow(row: Row): string {
  const cell = (seconds: number, bytes: number): string =>
    `${seconds.toFixed(2).padStart(6)} s ${(bytes / 1e6).toFixed(1).padStart(6)} MB`;
  return [
    row.name.padEnd(37),
    `numpy ${cell(row.numpy, row.numpyBytes)} ${String(row.requests).padStart(4)} requests`,
    `node ${cell(row.node, row.nodeBytes)}`,
    `all ${cell(row.readAll, row.readAllBytes)}`,
  ].join('   ');
}

function parseOptions(): Options {
  const { values } = parseArgs({
    options: {
      image: { type: 'string', default: join(projectRoot, '.cache/images/app.oci:latest') },
      estargz: { type: 'string' },
      optimized: { type: 'string' },
      runs: { type: 'string', default: '3' },
      slow: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true, default: [] },
      json: { type: 'boolean', default: false },
    },
  });
  const archive = (path: string | undefined): string | undefined => (path === undefined ? undefined : resolve(path));
  const [estargz, optimized] = [archive(values.estargz), archive(values.optimized)];
  return { ...values, image: resolve(values.image), estargz, optimized, runs: runsOf(values.runs) };
}

checkCanMount();
const options = parseOptions();
await runBench(new Bench(options), options.json);
