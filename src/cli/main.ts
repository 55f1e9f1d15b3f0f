#!/usr/bin/env node
/** The command `lamina`. Only this folder prints, and only here the process ends. */
import { Cli } from './cli.js';
import { report } from './errors.js';
import { helperArguments } from './helper-call.js';
import { commandOf, createProgram } from './program.js';

const cli = new Cli(process);
const helper = helperArguments(process.argv);
try {
  if (helper !== undefined) {
    const { mountHelper } = await import('./mount-helper.js');
    cli.exitCode = await mountHelper(helper, await createProgram(cli, 'mount'), process);
  } else {
    const [, , first, second] = process.argv;
    const command = commandOf(first === 'help' ? second : first);
    const program = await createProgram(cli, command === 'completion' ? undefined : command);
    await program.parseAsync(process.argv);
  }
} catch (e) {
  cli.exitCode = report(e, { json: process.argv.includes('--json'), stderr: process.stderr, env: process.env });
}
process.exitCode = cli.exitCode;
