/** Options that several commands take. */
import { Option, type Command } from 'commander';
import { addPullOptions, type PullOptions } from './registry-options.js';

export interface ImageOptions extends PullOptions {
  readonly platform?: string;
  readonly aciPath?: readonly string[];
}

export interface TreeOptions extends ImageOptions {
  readonly compat?: 'spec' | 'overlay';
}

export interface ServedTreeOptions extends TreeOptions {
  readonly engine?: 'auto' | 'kernel' | 'fuse';
}

/** `--platform`, `--aci-path`, and those for registries. */
export function addImageOptions(command: Command): Command {
  command
    .option('--platform <os/arch[/variant]>', 'which of several images (default: for this machine)')
    .option(
      '--aci-path <dir>',
      'where the dependencies of an appc image are (LAMINA_ACI_PATH); once for each',
      collect,
    );
  return addPullOptions(command);
}

/** Those above, `--compat` */
export function addTreeOptions(command: Command): Command {
  const meaning = 'where a layer has files below a symlink: "spec" follows it, "overlay" replaces it';
  return addImageOptions(command).addOption(new Option('--compat <mode>', meaning).choices(['spec', 'overlay']));
}

/** Those above, `--engine` */
export function addServedTreeOptions(command: Command): Command {
  const meaning = 'who serves the tree: EROFS in the kernel, or our FUSE server (default: the kernel where it can)';
  return addTreeOptions(command).addOption(
    new Option('--engine <engine>', meaning).choices(['auto', 'kernel', 'fuse']),
  );
}

/** For an option that may come several times. */
export function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
