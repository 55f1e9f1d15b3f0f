import { Argument, type Command } from 'commander';
import type { Cli } from '../cli.js';
import { completionScript, shells, type Shell } from '../completion.js';
import { examples } from '../help.js';
import { toBytes } from '../text.js';

export function register(program: Command, cli: Cli): void {
  const command = program
    .command('completion')
    .description('Print a script that completes commands and options in a shell.')
    .addArgument(new Argument('<shell>', 'which').choices(shells))
    .addHelpText(
      'after',
      examples([
        ['source <(lamina completion bash)', 'in ~/.bashrc'],
        ['lamina completion zsh > ~/.zfunc/_lamina', 'with ~/.zfunc in $fpath'],
        ['lamina completion fish > ~/.config/fish/completions/lamina.fish', 'fish reads it by itself'],
      ]),
    )
    .action((shell: Shell) =>
      cli.run(command, async ({ out }) => {
        const script = completionScript(program, shell);
        if (out.json) await out.document({ shell, script });
        else await out.write(Buffer.from(toBytes(script), 'latin1'));
      }),
    );
}
