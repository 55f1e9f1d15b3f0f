/**
 * `npm run demo`: makes a container image out of what is on this machine, then shows what Lamina does with it: looks into
 * it, mounts it, reads it lazily, mends a damaged cache, runs it, and leaves nothing behind. Needs root and /dev/fuse
 * for the mounting; without, it shows the rest.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { lamina, runCommand, type CliResult } from '../test/support/cli.js';
import type { MadeImage } from '../test/support/images.js';
import { expected, makeDemoImage } from './demo-image.js';
import { killDaemon, removeTree, temporaryPrefix } from './leftovers.js';

const MB = 1e6;
const LOG_MS = 5000;
/** Debian keeps runc where an ordinary user's PATH does not look. */
const SEARCH_PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

class Demo {
  readonly directory = mkdtempSync(join(realpathSync(tmpdir()), temporaryPrefix('demo')));
  readonly run = join(this.directory, 'run');
  readonly store = join(this.directory, 'store');
  readonly mountpoint = join(this.directory, 'mnt');
  readonly times: [title: string, seconds: number][] = [];
  #image: MadeImage | undefined;

  get image(): MadeImage {
    if (this.#image === undefined) throw new Error('There is no image yet');
    return this.#image;
  }

  async step(title: string, act: () => Promise<void>): Promise<void> {
    console.log(`\n== ${title}`);
    const start = performance.now();
    await act();
    this.times.push([title, (performance.now() - start) / 1000]);
  }

  async lamina(...args: string[]): Promise<string> {
    return this.#command(`lamina ${args.join(' ')}`, () =>
      lamina(args, { env: { LAMINA_RUN: this.run, LAMINA_STORE: this.store, PATH: SEARCH_PATH } }),
    );
  }

  /** Files of the mount are touched by other processes, as they would be in use. */
  async command(command: string, ...args: string[]): Promise<string> {
    return this.#command([command, ...args].join(' '), () =>
      runCommand(command, args, { env: { NODE_EXTRA_CA_CERTS: undefined } }),
    );
  }

  async #command(line: string, run: () => Promise<CliResult>): Promise<string> {
    console.log(`$ ${line.replaceAll(`${this.directory}/`, '')}`);
    const { code, stdout, stderr } = await run();
    for (const text of [stdout, stderr]) if (text.trim() !== '') console.log(indent(text));
    if (code !== 0) throw new Error(`"${line}" ended with ${code}`);
    return stdout;
  }

  async makeImage(): Promise<void> {
    this.#image = await makeDemoImage(join(this.directory, 'demo.oci'));
    this.image.layers.forEach(({ tar, blob, descriptor }, i) =>
      console.log(
        `   layer ${i}: ${megabytes(tar.length)} of files, ${megabytes(blob.length)} compressed, ${descriptor.digest.slice(0, 19)}`,
      ),
    );
  }

  /** Bytes of file content that the store holds. */
  cachedBytes(): number {
    return this.dataFiles().reduce((sum, path) => sum + statSync(path).blocks * 512, 0);
  }

  dataFiles(): string[] {
    const layers = join(this.store, 'layers');
    if (!existsSync(layers)) return [];
    return readdirSync(layers)
      .map((layer) => join(layers, layer, 'data'))
      .filter((path) => existsSync(path));
  }

  sayLaziness(when: string): void {
    const whole = this.image.layers.reduce((sum, { tar }) => sum + tar.length, 0);
    const cached = this.cachedBytes();
    console.log(
      `   ${when}: ${megabytes(cached)} of ${megabytes(whole)} unpacked (${Math.round((cached / whole) * 100)} %)`,
    );
    if (cached >= whole) throw new Error('Everything was unpacked: the mount is not lazy');
  }

  async showUnion(): Promise<void> {
    const { mountpoint } = this;
    await this.command('ls', '-lR', join(mountpoint, 'app'));
    const greeting = await this.command('cat', join(mountpoint, 'app/greeting.txt'));
    check(greeting === expected.greeting, 'the second layer changed greeting.txt');
    const names = await this.command('ls', join(mountpoint, 'app/cache'));
    check(names.trim() === expected.cache.join('\n'), 'the third layer hid what was in cache, and put one file there');
    const gone = await runCommand('test', ['-e', join(mountpoint, expected.deleted)]);
    check(gone.code !== 0, 'the third layer deleted secret.txt');
  }

  async runContainer(): Promise<void> {
    const runtime = await findCommand('runc', 'crun');
    const answer =
      runtime === undefined
        ? await this.command('chroot', this.mountpoint, realpathSync(process.execPath), '/app/main.cjs')
        : await this.lamina('run', '--runtime', runtime, this.image.reference);
    check(answer.includes(expected.answer), runtime === undefined ? 'it runs in a chroot' : `it runs under ${runtime}`);
  }

  /** Flips one bit of what the store keeps of greeting.txt. */
  async damage(): Promise<void> {
    for (const path of this.dataFiles()) {
      const at = readFileSync(path).indexOf(expected.greeting);
      if (at < 0) continue;
      const file = await open(path, constants.O_RDWR);
      const byte = Buffer.alloc(1);
      await file.read(byte, 0, 1, at);
      byte.writeUInt8(byte.readUInt8(0) ^ 1);
      await file.write(byte, 0, 1, at);
      await file.sync();
      await file.close();
      console.log(`   flipped a bit of byte ${at} of ${path.slice(this.store.length + 1)}`);
      return;
    }
    throw new Error('greeting.txt was read, but the store does not have it');
  }

  /** The latest line of the daemon's log that is meant; it is written a moment after what it tells of. */
  async #logLine(isMeant: (line: string) => boolean): Promise<string | undefined> {
    for (const end = Date.now() + LOG_MS; ; await sleep(20)) {
      const line = readFileSync(join(this.run, 'log'), 'utf8').split('\n').findLast(isMeant);
      if (line !== undefined || Date.now() > end) return line;
    }
  }

  async readDamaged(): Promise<void> {
    writeFileSync('/proc/sys/vm/drop_caches', '3');
    const greeting = await this.command('cat', join(this.mountpoint, 'app/greeting.txt'));
    check(greeting === expected.greeting, 'the reader got the right bytes');
    const line = await this.#logLine((entry) => entry.includes('"offset"') && entry.includes('"got"'));
    if (line === undefined) throw new Error('The log does not tell of the damage');
    console.log(`   the daemon's log:\n${indent(line)}`);
  }

  async cleanUp(): Promise<void> {
    await killDaemon(this.run);
    await removeTree(this.directory);
  }
}

async function main(demo: Demo): Promise<void> {
  await demo.step('An image of three layers, made of the files of this machine', () => demo.makeImage());
  const { reference } = demo.image;
  await demo.step('Looking into it, without mounting', async () => {
    await demo.lamina('inspect', reference);
    await demo.lamina('ls', '-l', reference, '/app');
    check(
      (await demo.lamina('cat', reference, '/app/greeting.txt')) === expected.greeting,
      'cat gives the verified bytes',
    );
  });
  await demo.step('Hashing every blob', async () => void (await demo.lamina('verify', reference)));
  const obstacle = mountObstacle();
  if (obstacle === undefined) await mounting(demo, reference);
  else console.log(`\nMounting is left out: ${obstacle}. \`lamina doctor\` says more.`);
}

async function mounting(demo: Demo, reference: string): Promise<void> {
  const { mountpoint } = demo;
  mkdirSync(mountpoint);
  await demo.step('Mounting', async () => {
    await demo.lamina('mount', reference, mountpoint);
    demo.sayLaziness('after the mount');
  });
  await demo.step('One tree out of three layers', () => demo.showUnion());
  await demo.step('What has been fetched', async () => {
    await demo.lamina('mounts');
    demo.sayLaziness('after these reads');
  });
  await demo.step('Running it', async () => {
    await demo.runContainer();
    demo.sayLaziness('after the run');
  });
  await demo.step('Damaging the cache while nothing is mounted', async () => {
    await demo.lamina('umount', mountpoint);
    await demo.lamina('daemon', 'stop');
    await demo.damage();
  });
  await demo.step(
    'Mounting again: nothing to index',
    async () => void (await demo.lamina('mount', reference, mountpoint)),
  );
  await demo.step('Reading what was damaged', () => demo.readDamaged());
  await demo.step('Unmounting', async () => {
    await demo.lamina('umount', mountpoint);
    await demo.lamina('daemon', 'stop');
  });
}

function mountObstacle(): string | undefined {
  if (process.geteuid?.() !== 0) return 'it needs root here';
  return existsSync('/dev/fuse') ? undefined : 'there is no /dev/fuse';
}

async function findCommand(...names: string[]): Promise<string | undefined> {
  for (const name of names) {
    const found = await runCommand(name, ['--version'], {
      env: { PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
    }).catch(() => undefined);
    if (found?.code === 0) return name;
  }
  return undefined;
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`Not so: ${what}`);
  console.log(`   ok: ${what}`);
}

function megabytes(bytes: number): string {
  return `${(bytes / MB).toFixed(1)} MB`;
}

function indent(text: string): string {
  return text.trimEnd().replace(/^/gm, '   ');
}

const demo = new Demo();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void demo.cleanUp().finally(() => process.exit(1)));
}
try {
  await main(demo);
  console.log('\n== Done');
  for (const [title, seconds] of demo.times) console.log(`${seconds.toFixed(2).padStart(8)} s  ${title}`);
} catch (e) {
  console.error(`\nFAILED: ${e instanceof Error ? e.message : String(e)}`);
  process.exitCode = 1;
} finally {
  await demo.cleanUp();
}
