/** Whether mount(8) has called us, and not a user: see mount-helper.ts. */
import { basename } from 'node:path';
import { commandOf } from './program.js';

export const helperNames = ['mount.fuse.lamina', 'mount.lamina'] as const;

/** The helper's arguments where the process was started as one, else undefined. `argv` as Node has it. */
export function helperArguments(argv: readonly string[]): readonly string[] | undefined {
  const [, script = '', ...args] = argv;
  if (helperNames.some((name) => name === basename(script))) return args;
  const [first = '-', second = '-'] = args;
  const isHelper =
    first !== 'help' &&
    commandOf(first) === undefined &&
    !first.startsWith('-') &&
    !second.startsWith('-') &&
    args.slice(2).some(isOptions);
  return isHelper ? args : undefined;
}

function isOptions(argument: string): boolean {
  return /^-[sfnvrw]*o/.test(argument);
}
