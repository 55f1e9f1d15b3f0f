/** What every command gets: the settings that all commands share, filled in once, and the output. */
import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { defaultRunDir } from '../daemon/run-dir.js';
import { defaultStorePath } from '../store/path.js';
import { Output } from './output.js';
import { createProgress, progressModes, type Progress, type ProgressMode } from './progress.js';

export interface GlobalOptions {
  readonly store?: string;
  readonly run?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly progress?: ProgressMode;
}

export interface Context {
  readonly out: Output;
  /** Absolute. */
  readonly store: string;
  /** By an option or a variable. */
  readonly storeChosen: boolean;
  /** Absolute. */
  readonly run: string;
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  progress(): Progress;
}

/** The options that every command takes, before its name or after it. */
export function addGlobalOptions(command: Command): void {
  const options = [
    new Option('--store <dir>', 'where indexes and cached data are kept (LAMINA_STORE)'),
    new Option('--run <dir>', "the daemon's socket, log and mounts (LAMINA_RUN)"),
    new Option('--json', 'print one JSON document'),
    new Option('-q, --quiet', 'print only the id or path'),
    new Option('--progress <mode>', 'how progress is shown on stderr').choices(progressModes),
  ];
  command.optionsGroup('Common options:');
  for (const option of options) command.addOption(option);
  command.helpOption('-h, --help', 'show this help');
  for (const below of command.commands) addGlobalOptions(below);
}

/** The global options of a command, over those given before its name. */
export function globalOptions(command: Command): GlobalOptions {
  const outer = command.parent === null ? {} : globalOptions(command.parent);
  return { ...outer, ...command.opts<GlobalOptions>() };
}

export function createContext(options: GlobalOptions, host: NodeJS.Process): Context {
  const { env, stdout, stderr } = host;
  const cwd = host.cwd();
  const out = new Output({ stdout, stderr, json: options.json === true, quiet: options.quiet === true, env });
  return {
    out,
    store: resolve(cwd, options.store ?? defaultStorePath(env)),
    storeChosen: (options.store ?? env['LAMINA_STORE'] ?? '') !== '',
    run: resolve(cwd, options.run ?? defaultRunDir(env)),
    cwd,
    env,
    progress: () => createProgress({ mode: options.progress ?? 'auto', output: out, env }),
  };
}
