#!/usr/bin/env node
/** The command `lamina`. Only this folder prints, and only here the process ends. */
import { Cli } from './cli.js';
import { report } from './errors.js';
import { createProgram } from './program.js';

const cli = new Cli(process);
try {
  await createProgram(cli).parseAsync(process.argv);
} catch (e) {
  cli.exitCode = report(e, { json: process.argv.includes('--json'), stderr: process.stderr, env: process.env });
}
process.exitCode = cli.exitCode;
