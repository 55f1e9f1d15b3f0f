/** The tools that judge: umoci's extraction, and containerd's overlayfs snapshotter in a containerd of our own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { nodesOfMount, type Node } from '../conformance/dump.js';
import { runCommand, type CliResult } from '../support/cli.js';
import type { MadeImage } from '../support/images.js';

export interface Oracle {
  /** The tree of an image. `scratch` is an empty directory. Throws {@link OracleError} when the tool refuses it. */
  tree(image: MadeImage, scratch: string): Promise<Node[]>;
}

/** The tool's own failure, with what it said. */
export class OracleError extends Error {
  override readonly name = 'OracleError';
}

async function tool(command: string, args: readonly string[]): Promise<CliResult> {
  const result = await runCommand(command, args);
  if (result.code !== 0) throw new OracleError(`${command} ${args.join(' ')}: ${result.stderr.slice(-2000)}`);
  return result;
}

export const umoci: Oracle = {
  async tree(image, scratch) {
    const rootfs = join(scratch, 'rootfs');
    await tool('umoci', ['raw', 'unpack', '--image', `${image.directory}:latest`, rootfs]);
    return nodesOfMount(rootfs);
  },
};

const START_MS = 20_000;

/** Root. Directories must be on a file system that overlayfs takes as its upper one. */
export class Containerd implements Oracle {
  readonly #socket: string;
  readonly #process: ChildProcess;
  #images = 0;

  private constructor(socket: string, process: ChildProcess) {
    this.#socket = socket;
    this.#process = process;
  }

  /** All that it keeps goes into `directory`; it is the caller's to {@link stop} it. */
  static async start(directory: string): Promise<Containerd> {
    mkdirSync(directory, { recursive: true });
    const socket = join(directory, 'c.sock');
    const config = join(directory, 'config.toml');
    const lines = [
      'version = 2',
      `root = "${join(directory, 'root')}"`,
      `state = "${join(directory, 'state')}"`,
      'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
      '[grpc]',
      `  address = "${socket}"`,
    ];
    writeFileSync(config, `${lines.join('\n')}\n`);
    const containerd = new Containerd(socket, spawn('containerd', ['-c', config], { stdio: 'ignore' }));
    for (const end = Date.now() + START_MS; Date.now() < end; await sleep(50)) {
      if ((await containerd.#ctr('version').catch(() => undefined)) !== undefined) return containerd;
    }
    await containerd.stop();
    throw new Error('containerd does not answer');
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }

  async tree(image: MadeImage, scratch: string): Promise<Node[]> {
    const name = `localhost/differential-${++this.#images}`;
    const archive = join(scratch, 'image.tar');
    const mountpoint = join(scratch, 'mnt');
    mkdirSync(mountpoint);
    await tool('tar', ['-C', image.directory, '-cf', archive, '.']);
    await this.#ctr('image', 'import', '--base-name', name, '--no-unpack', archive);
    try {
      await this.#ctr('image', 'mount', '--snapshotter', 'overlayfs', `${name}:latest`, mountpoint);
      try {
        return await nodesOfMount(mountpoint);
      } catch (e) {
        if (e instanceof Error && 'code' in e && e.code === 'ENOENT')
          throw new OracleError(`overlayfs lists what it does not find: ${e.message}`);
        throw e;
      } finally {
        await this.#ctr('image', 'unmount', '--rm', mountpoint);
      }
    } finally {
      await this.#ctr('image', 'rm', '--sync', `${name}:latest`);
    }
  }

  #ctr(...args: string[]): Promise<CliResult> {
    return tool('ctr', ['-a', this.#socket, ...args]);
  }
}
