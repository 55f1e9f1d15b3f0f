/** Runs a command's body: builds its context, reports what it throws, sets the exit code. */
import type { Command } from 'commander';
import { createContext, globalOptions, type Context } from './context.js';
import { report } from './errors.js';

/** Resolves to the exit code; nothing means 0. */
export type Body = (context: Context) => Promise<number | void>;

export class Cli {
  exitCode = 0;
  readonly #host: NodeJS.Process;

  constructor(host: NodeJS.Process) {
    this.#host = host;
    // Help is printed by commander, before there is an Output; who reads it may be gone.
    host.stdout.on('error', () => undefined);
  }

  async run(command: Command, body: Body): Promise<void> {
    const options = globalOptions(command);
    const { env, stderr } = this.#host;
    try {
      const context = createContext(options, this.#host);
      this.exitCode = (await body(context)) ?? 0;
      await context.out.flush();
    } catch (e) {
      this.exitCode = report(e, { json: options.json === true, stderr, env });
    }
  }
}
