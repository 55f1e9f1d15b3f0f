#!/usr/bin/env node
/** The command `lamina`. Only this folder prints, and only here the process ends. */
import { Cli } from './cli.js';
import { report } from './errors.js';
import { helperArguments, mountHelper } from './mount-helper.js';
import { createProgram } from './program.js';

const cli = new Cli(process);
const program = createProgram(cli);
const helper = helperArguments(process.argv, program);
try {
  if (helper === undefined) await program.parseAsync(process.argv);
  else cli.exitCode = await mountHelper(helper, program, process);
} catch (e) {
  cli.exitCode = report(e, { json: process.argv.includes('--json'), stderr: process.stderr, env: process.env });
}
process.exitCode = cli.exitCode;
