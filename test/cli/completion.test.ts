/** The completion scripts, as the shells themselves take them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { lamina, runCommand } from '../support/cli.js';
import { tempDir } from '../support/tmp.js';

const ask = `
source "$1"
complete_words() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _lamina; echo "\${COMPREPLY[*]}"
}
complete_words lamina mo
complete_words lamina um
complete_words lamina mount --eng
complete_words lamina mount --engine ''
complete_words lamina -q daemon st
complete_words lamina daemon stop --f
complete_words lamina mount img --subd
`;

t.test('bash', async (t) => {
  const script = await lamina(['completion', 'bash']);
  t.equal(script.code, 0, script.stderr);
  const file = join(tempDir(t), 'script.bash');
  writeFileSync(file, script.stdout);
  const answer = await runCommand('bash', ['--norc', '-c', ask, 'bash', file]);
  t.equal(answer.stderr, '');
  t.strictSame(answer.stdout.split('\n').slice(0, 7), [
    'mount mounts',
    'umount',
    '--engine',
    'auto kernel fuse',
    'status start stop',
    '--force',
    '--subdir',
  ]);
});

t.test('zsh and fish', async (t) => {
  const directory = tempDir(t);
  for (const shell of ['zsh', 'fish'] as const) {
    const { stdout, code } = await lamina(['completion', shell]);
    t.equal(code, 0);
    const file = join(directory, `script.${shell}`);
    writeFileSync(file, stdout);
    const checked = await runCommand(shell, ['-n', file]);
    t.equal(checked.code, 0, `${shell}: ${checked.stderr}`);
  }
  const line = 'complete -C "lamina mount --engine "';
  const fish = await runCommand('fish', ['--no-config', '-c', `source ${join(directory, 'script.fish')}; ${line}`]);
  t.match(fish.stdout, /^auto\t/m);
  t.match(fish.stdout, /^kernel\t/m);
});

t.test('only shells that are known', async (t) => {
  t.equal((await lamina(['completion', 'tcsh'])).code, 2);
  const { stdout } = await lamina(['completion', 'bash', '--json']);
  t.match(JSON.parse(stdout), { shell: 'bash', script: /^# bash completion/ });
});
