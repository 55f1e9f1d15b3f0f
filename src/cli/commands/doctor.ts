import type { Command } from 'commander';
import type { Cli } from '../cli.js';
import type { Context } from '../context.js';
import { checkMachine, type CheckState } from '../doctor-checks.js';
import { examples } from '../help.js';
import { table, type Color } from '../output.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('doctor')
    .description('Say what works on this machine, what does not, and why.')
    .addHelpText('after', examples([['lamina doctor', 'exit code 1 when something that is needed is missing']]))
    .action(() => cli.run(command, doctor));
}

const COLORS: Readonly<Record<CheckState, Color>> = { ok: 'green', warn: 'yellow', fail: 'red' };

async function doctor({ out, store, run, env }: Context): Promise<number> {
  const checks = checkMachine({ store, run, env });
  if (out.json) await out.document(checks);
  else {
    const shown = out.quiet ? checks.filter(({ state }) => state !== 'ok') : checks;
    const rows = shown.map(({ name, state, value, meaning }) => [
      out.paint(COLORS[state], state),
      name,
      out.text(value),
      out.text(meaning),
    ]);
    await out.lines(table(rows));
  }
  return checks.some(({ state }) => state === 'fail') ? 1 : 0;
}
