/**
 * Completion scripts for shells, made from the commands as commander has them. Arguments are completed as files: images
 * of this version are paths, or `oci:PATH`.
 */
import type { Command, Option } from 'commander';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

interface Flag {
  /** "-l", "--long". */
  readonly names: readonly string[];
  readonly description: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
}

interface Node {
  readonly names: readonly string[];
  readonly description: string;
  readonly flags: readonly Flag[];
  readonly below: readonly Node[];
}

export function completionScript(program: Command, shell: Shell): string {
  const commands = visible(program);
  return { bash, zsh, fish }[shell](commands);
}

function visible(command: Command): Node[] {
  return command.createHelp().visibleCommands(command).map(node);
}

function node(command: Command): Node {
  const help = command.createHelp();
  return {
    names: [command.name(), ...command.aliases()],
    description: firstSentence(command.description()),
    flags: help.visibleOptions(command).map(flag),
    below: command.commands.length === 0 ? [] : visible(command),
  };
}

function flag(option: Option): Flag {
  const { short, long, description, argChoices = [] } = option;
  const names = [short, long].filter((name) => name !== undefined);
  return { names, description, takesValue: option.required || option.optional, choices: argChoices };
}

function firstSentence(text: string): string {
  return /^.*?[.:](?= |$)|^.*/s.exec(text)?.[0].replace(/[.:]$/, '') ?? text;
}

/** In single quotes, for every one of the shells. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const words = (nodes: readonly Node[]): string => nodes.flatMap(({ names }) => names).join(' ');
const flagNames = (flags: readonly Flag[]): string => flags.flatMap(({ names }) => names).join(' ');

function bash(commands: readonly Node[]): string {
  const cases: string[] = [];
  const values = new Set<string>();
  const add = (path: string, { names, flags, below }: Node): void => {
    const patterns = names.map((name) => quote(path === '' ? name : `${path} ${name}`));
    cases.push(`    ${patterns.join('|')}) flags=${quote(flagNames(flags))} below=${quote(words(below))} ;;`);
    for (const { names: of, takesValue, choices } of flags) {
      if (takesValue && choices.length === 0) for (const name of of) values.add(name);
    }
    for (const child of below) add(names[0] ?? '', child);
  };
  for (const command of commands) add('', command);
  const choices = choicesOf(commands).map(
    ([name, list]) => `    ${name}) COMPREPLY=($(compgen -W ${quote(list)} -- "$word")); return ;;`,
  );
  return `# bash completion for lamina; put into ~/.bashrc: source <(lamina completion bash)
_lamina() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} path= flags= below=${quote(words(commands))} i
  COMPREPLY=()
  case $before in
${choices.join('\n')}
    ${[...values].join('|')}) COMPREPLY=($(compgen -f -- "$word")); return ;;
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ \${COMP_WORDS[i]} == -* || -z $below ]] && continue
    [[ " $below " == *" \${COMP_WORDS[i]} "* ]] || continue
    path=\${path:+$path }\${COMP_WORDS[i]}
    case $path in
${cases.map((line) => `  ${line}`).join('\n')}
    esac
  done
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  elif [[ -n $below ]]; then
    COMPREPLY=($(compgen -W "$below" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _lamina lamina
`;
}

/** Options with a fixed set of values; one name means the same in all commands, or its sets are joined. */
function choicesOf(commands: readonly Node[]): [name: string, choices: string][] {
  const all = new Map<string, Set<string>>();
  const collect = ({ flags, below }: Node): void => {
    for (const { names, choices } of flags) {
      if (choices.length === 0) continue;
      for (const name of names) all.set(name, new Set([...(all.get(name) ?? []), ...choices]));
    }
    below.forEach(collect);
  };
  commands.forEach(collect);
  return [...all].map(([name, choices]) => [name, [...choices].join(' ')]);
}

function zsh(commands: readonly Node[]): string {
  const described = (nodes: readonly Node[]): string =>
    nodes
      .flatMap(({ names, description }) => names.map((name) => quote(`${name}:${description.replaceAll(':', '\\:')}`)))
      .join(' ');
  const argumentsOf = (flags: readonly Flag[]): string => flags.flatMap(zshFlag).map(quote).join(' ');
  const functions = commands.map(({ names, flags, below }) => {
    if (below.length === 0) return `    ${names.join('|')}) _arguments -s ${argumentsOf(flags)} '*:file:_files' ;;`;
    const inner = below.map(
      (child) => `${child.names.join('|')}) _arguments -s ${argumentsOf(child.flags)} '*:file:_files' ;;`,
    );
    return `    ${names.join('|')})
      if ((CURRENT == 2)); then
        local -a actions=(${described(below)})
        _describe action actions
      else
        shift words; ((CURRENT--))
        case $words[1] in
          ${inner.join('\n          ')}
        esac
      fi ;;`;
  });
  return `#compdef lamina
# zsh completion for lamina; put it into a file _lamina of a directory in $fpath, or: source <(lamina completion zsh)
_lamina() {
  if ((CURRENT == 2)); then
    local -a commands=(${described(commands)})
    _describe command commands
    return
  fi
  shift words; ((CURRENT--))
  case $words[1] in
${functions.join('\n')}
  esac
}
if [[ $funcstack[1] == _lamina ]]; then _lamina "$@"; else compdef _lamina lamina; fi
`;
}

/** One specification of _arguments for each name of an option. */
function zshFlag({ names, description, takesValue, choices }: Flag): string[] {
  const text = description.replace(/[[\]:\\]/g, '\\$&');
  const value = takesValue ? `:value:${choices.length > 0 ? `(${choices.join(' ')})` : '_files'}` : '';
  return names.map((name) => `*${name}[${text}]${value}`);
}

function fish(commands: readonly Node[]): string {
  const lines = [
    '# fish completion for lamina; put it into ~/.config/fish/completions/lamina.fish',
    'complete -c lamina -n __fish_use_subcommand -f',
  ];
  const add = (condition: string, { names, description, flags, below }: Node, above: string): void => {
    for (const name of names)
      lines.push(`complete -c lamina -n ${quote(above)} -f -a ${quote(name)} -d ${quote(description)}`);
    for (const each of flags) lines.push(`complete -c lamina -n ${quote(condition)} ${fishFlag(each)}`);
    for (const child of below) {
      const inner = `__fish_seen_subcommand_from ${names.join(' ')}; and __fish_seen_subcommand_from ${child.names.join(' ')}`;
      add(
        inner,
        child,
        `__fish_seen_subcommand_from ${names.join(' ')}; and not __fish_seen_subcommand_from ${words(below)}`,
      );
    }
  };
  for (const command of commands)
    add(`__fish_seen_subcommand_from ${command.names.join(' ')}`, command, '__fish_use_subcommand');
  return `${lines.join('\n')}\n`;
}

function fishFlag({ names, description, takesValue, choices }: Flag): string {
  const parts = names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  if (takesValue) parts.push(choices.length > 0 ? `-x -a ${quote(choices.join(' '))}` : '-r');
  return [...parts, `-d ${quote(description)}`].join(' ');
}
