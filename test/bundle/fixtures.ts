import { spawnSync } from 'node:child_process';
import type { RootfsFiles } from '../../src/bundle/runtime-config.js';
import type { ImageConfig } from '../../src/oci/config.js';

/** An image config with nothing in it but what is given. */
export function image(fields: Partial<ImageConfig> = {}): ImageConfig {
  return {
    os: 'linux',
    architecture: 'amd64',
    diffIds: [],
    user: '',
    env: [],
    entrypoint: [],
    cmd: ['/bin/sh'],
    workingDir: '',
    labels: {},
    volumes: [],
    exposedPorts: [],
    history: [],
    ...fields,
  };
}

/** Files by path; a path that is in no key does not exist. */
export function rootfs(files: Record<string, string> = {}): RootfsFiles {
  return {
    readFile: (path) => (path in files ? Buffer.from(files[path] ?? '') : undefined),
  };
}

/** Whether a program is installed here. */
export function has(program: string): boolean {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined;
}

/** stdout of a program that must succeed. */
export function run(program: string, args: readonly string[], cwd?: string): string {
  const done = spawnSync(program, args, { encoding: 'utf8', cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  if (done.error !== undefined) throw done.error;
  if (done.status !== 0) throw new Error(`${program} ${args.join(' ')}: exit ${String(done.status)}: ${done.stderr}`);
  return done.stdout;
}

/** moby/sys/user's own test data, and lines that no parser should take. */
export const passwd = `root:x:0:0:root user:/root:/bin/bash
adm:x:42:43:adm:/var/adm:/bin/false
111:x:222:333::/var/garbage
odd:x:111:112::/home/odd:::::
user7456:x:7456:100:Vasya:/home/user7456
adm:x:1042:1043:second line of a name:/nowhere:/bin/sh
homeless:x:800:801:::/bin/sh
this is just some garbage data
# comment

+::::::
`;

export const group = `root:x:0:root
adm:x:43:
grp:x:1234:root,adm,user7456
444:x:555:111
odd:x:444:
again:x:1234:adm
grp:x:4321:nobody
this is just some garbage data
`;
