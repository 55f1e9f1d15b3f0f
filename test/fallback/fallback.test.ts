/**
 * What Lamina can do without, taken away for real: files hidden in a mount namespace of the test's own, system calls
 * answered with ENOSYS, another kernel release. Each has its fallback, or a message that says what is missing.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { bindLibrary } from '../../src/native/library.js';
import { kernelEngineObstacle } from '../../src/mount/engine.js';
import { makesNamespaces } from '../support/namespaces.js';
import { runCommand, type CliResult } from '../support/cli.js';
import { commandExists } from '../support/commands.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { projectRoot } from '../support/project.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';

const cli = join(projectRoot, 'dist/src/cli/main.js');
const withoutSyscalls = fileURLToPath(new URL('./without-syscalls.js', import.meta.url));
/** The same on every architecture (the unified table, from Linux 5.0 on). */
const FSOPEN = 430;
const MOUNT_SETATTR = 442;

function cannotRun(t: Test): boolean {
  return (
    skipUnless(t, isRoot && existsSync('/dev/fuse'), 'mounting needs root and /dev/fuse') ||
    skipUnless(t, commandExists('unshare') && commandExists('setarch'), 'unshare and setarch are missing (util-linux)')
  );
}

interface Place {
  readonly directory: string;
  readonly image: MadeImage;
  /** Runs shell lines in a mount namespace of their own; `$L` is the command line, with a daemon and store of its own. */
  readonly sh: (lines: readonly string[]) => Promise<CliResult>;
}

async function place(t: Test): Promise<Place> {
  const directory = tempDir(t);
  const image = await makeLayout(join(directory, 'image'), {
    layers: [
      {
        entries: [
          { name: 'a', content: 'alpha' },
          { name: 'd/b', content: 'beta' },
        ],
      },
    ],
  });
  mkdirSync(join(directory, 'mnt'));
  const L = `${process.execPath} ${cli}`;
  return {
    directory,
    image,
    sh: (lines) =>
      // The daemon of these lines ends with them, whatever they do: its mounts are in this namespace alone.
      runCommand(
        'unshare',
        ['-m', 'sh', '-c', [...lines, 'code=$?', `${L} daemon stop --force >/dev/null 2>&1`, 'exit $code'].join('\n')],
        {
          cwd: directory,
          env: {
            L,
            LAMINA_RUN: join(directory, 'run'),
            LAMINA_STORE: join(directory, 'store'),
            IMAGE: image.reference,
            WITHOUT: `${process.execPath} ${withoutSyscalls}`,
          },
        },
      ),
  };
}

/** A file of the machine replaced by one with other content, for lines of {@link Place.sh}. */
function replaced(directory: string, path: string, content: string): string {
  const file = join(directory, path.replaceAll('/', '-'));
  writeFileSync(file, content);
  return `mount --bind ${file} ${path}`;
}

t.before(makesNamespaces);

t.test('koffi is not installed, or its binary is missing or may not be loaded', async (t) => {
  if (cannotRun(t)) return;
  const { directory, sh } = await place(t);
  const modules = join(projectRoot, 'node_modules');
  const binaries = join(modules, '@koromix');
  const copy = join(directory, 'koromix');
  cpSync(binaries, copy, { recursive: true });
  const ways = {
    'not installed': [[`mount -t tmpfs none ${join(modules, 'koffi')}`], /Cannot find module 'koffi'/],
    'no binary': [[`mount -t tmpfs none ${binaries}`], /native Koffi module/],
    noexec: [
      [`mount -t tmpfs -o noexec none ${binaries}`, `cp -r ${copy}/. ${binaries}`],
      /failed to map segment|native Koffi module/,
    ],
  } as const;
  for (const [way, [lines, reason]] of Object.entries(ways)) {
    for (const command of way === 'not installed'
      ? ['ls $IMAGE', 'index $IMAGE', 'mount $IMAGE mnt']
      : ['mount $IMAGE mnt']) {
      const { code, stderr } = await sh([...lines, `$L ${command}`]);
      t.equal(code, 1, `${way}: ${command}`);
      t.match(stderr, reason);
      t.match(stderr, /koffi/);
      t.notMatch(stderr, /^\s+at /m, 'no stack');
    }
    const doctor = await sh([...lines, '$L doctor']);
    t.match(doctor.stdout, /^fail\s+koffi/m, way);
  }
  const inspected = await sh([...ways['not installed'][0], '$L inspect $IMAGE']);
  t.equal(inspected.code, 0, `documents can be looked at: ${inspected.stderr}`);
  t.strictSame(readdirSync(join(directory, 'mnt')), []);
});

t.test('libfuse 2 is not there, and fuse-native is asked for', async (t) => {
  if (cannotRun(t)) return;
  if (skipUnless(t, existsSync(join(projectRoot, 'node_modules/fuse-native')), 'fuse-native is not installed')) return;
  const { directory, sh } = await place(t);
  const found = '$(/sbin/ldconfig -p | sed -n "s/.*libfuse.so.2.*=> //p")';
  const { code, stderr } = await sh([
    `for l in ${found}; do mount --bind /dev/null $l; done`,
    '$L mount --transport fuse-native $IMAGE mnt',
  ]);
  t.equal(code, 1);
  t.match(stderr, /Cannot load fuse-native: [^]*libfuse\.so\.2[^]*apt-get install libfuse2/);
  t.strictSame(readdirSync(join(directory, 'mnt')), []);
});

t.test('a library that this process does not export is loaded, or named', async (t) => {
  const asked: unknown[] = [];
  const bound = bindLibrary('libz.so.1', 'zlib1g', (library) => {
    asked.push(library);
    if (asked.length === 1) throw new Error('this process has no such function');
    return (library.func('const char *zlibVersion(void)') as () => string)();
  });
  t.match(bound, /^1\./);
  t.throws(
    () =>
      bindLibrary('libnothing.so.9', 'nothing9', () => {
        throw new Error('no');
      }),
    {
      code: 'NATIVE_UNAVAILABLE',
      hint: /apt-get install nothing9/,
    },
  );
});

t.test('no libzstd on a Node without zstd of its own', async (t) => {
  if (cannotRun(t)) return;
  const { directory, sh } = await place(t);
  const zstd = await makeLayout(join(directory, 'zstd'), {
    layers: [{ entries: [{ name: 'a', content: 'alpha' }], compression: 'zstd' }],
  });
  const libraries = execFileSync('sh', ['-c', 'ldconfig -p | sed -n "s/.*libzstd.so.1.*=> //p"'], {
    encoding: 'utf8',
    env: { PATH: '/usr/sbin:/sbin:/usr/bin:/bin' },
  });
  const hidden = libraries
    .split('\n')
    .filter((path) => path !== '')
    .map((path) => `mount --bind /dev/null ${path}`);
  if (skipUnless(t, hidden.length > 0, 'there is no libzstd.so.1')) return;
  const gzip = await sh([...hidden, '$L cat $IMAGE /a']);
  t.equal(gzip.stdout, 'alpha', 'gzip layers need none');
  const { code, stdout, stderr } = await sh([...hidden, `$L cat ${zstd.reference} /a`]);
  const own = Number(process.versions.node.split('.')[0]) >= 22;
  if (own) t.equal(stdout, 'alpha', 'this Node brings its own');
  else {
    t.equal(code, 1);
    t.match(stderr, /Cannot load libzstd\.so\.1[^]*apt-get install libzstd1/);
  }
});

t.test('a kernel without file-backed EROFS', async (t) => {
  if (
    cannotRun(t) ||
    skipUnless(t, kernelEngineObstacle() === undefined, `no kernel engine: ${kernelEngineObstacle()}`)
  )
    return;
  const { directory, sh } = await place(t);
  const filesystems = readFileSync('/proc/filesystems', 'utf8').replace(/^.*erofs\n/m, '');
  const noErofs = replaced(directory, '/proc/filesystems', filesystems);
  const look = ['$L mount $IMAGE mnt && cat mnt/a mnt/d/b && $L mounts'];
  for (const [what, lines, reason] of [
    ['no EROFS', [noErofs, ...look], /the kernel has no EROFS/],
    ['an old release', ['L="setarch --uname-2.6 $L"', ...look], /Linux 2\.6\.\S+ cannot mount EROFS from a file/],
    [
      'a store where the kernel mounts none from',
      ['mkdir store; mount -t tmpfs none store', ...look],
      /mounts none from the file system/,
    ],
    ['no fsopen', [`L="$WITHOUT ${FSOPEN} $L"`, ...look], /fsopen: ENOSYS/],
  ] as const) {
    const { code, stdout, stderr } = await sh(lines);
    t.equal(code, 0, `${what}: ${stderr}`);
    t.match(stdout, /^alphabeta/, what);
    t.match(stderr, /engine fuse: /, what);
    t.match(stderr, reason, what);
    const asked = await sh([...lines.slice(0, -1), '$L mount --engine kernel $IMAGE mnt']);
    t.equal(asked.code, 1, `${what}: the kernel engine was asked for`);
    t.match(asked.stderr, reason);
  }
});

t.test('writable mounts without fsopen', async (t) => {
  if (cannotRun(t)) return;
  const { sh } = await place(t);
  const { code, stdout, stderr } = await sh([
    `L="$WITHOUT ${FSOPEN} $L"`,
    'mkdir "up,per"',
    '$L mount --rw --upper "up,per" $IMAGE mnt && echo new >mnt/new && cat mnt/a mnt/new "up,per/new"',
  ]);
  t.equal(code, 0, stderr);
  t.equal(stdout, 'alphanew\nnew\n');
});

t.test('id maps on a kernel without them', async (t) => {
  if (
    cannotRun(t) ||
    skipUnless(t, kernelEngineObstacle() === undefined, `no kernel engine: ${kernelEngineObstacle()}`)
  )
    return;
  const { sh } = await place(t);
  const L = `L="$WITHOUT ${MOUNT_SETATTR} $L"`;
  const { code, stdout, stderr } = await sh([L, '$L mount --uid-map 0:77:1 $IMAGE mnt && stat -c %u mnt/a']);
  t.equal(code, 0, stderr);
  t.equal(stdout, '77\n');
  t.match(stderr, /engine fuse: our FUSE server: .*mount_setattr: ENOSYS/);
  const asked = await sh([L, '$L mount --engine kernel --uid-map 0:77:1 $IMAGE mnt']);
  t.equal(asked.code, 1);
  t.match(asked.stderr, /mount_setattr: ENOSYS/);
});

t.test('no FUSE device', async (t) => {
  if (cannotRun(t)) return;
  const { sh } = await place(t);
  const hide = 'mkdir dev && cp -a /dev/null dev && mount --bind dev /dev';
  const { code, stderr } = await sh([hide, '$L mount $IMAGE mnt']);
  t.equal(code, 1);
  t.match(stderr, /Cannot open \/dev\/fuse: ENOENT[^]*modprobe fuse/);
  const browsed = await sh([hide, '$L cat $IMAGE /d/b']);
  t.equal(browsed.stdout, 'beta');
});
