/** The session and the serve loop behind the real kernel. The server is another process: nobody waits for himself. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, lstat, mkdir, open, readFile, readdir, readlink, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { InitLimits } from '../../src/fuse/init.js';
import { umount2 } from '../../src/native/mounts.js';
import { isRoot, skipUnless } from '../support/skip.js';
import { tempDir } from '../support/tmp.js';
import { BIG, MANY, testTree } from './fixtures/tree.js';

const server = fileURLToPath(new URL('./fixtures/serve-memory.js', import.meta.url));
const LOOKUP = 1;
const READLINK = 5;
const OPEN = 14;
const READ = 15;
const GETXATTR = 22;
const OPENDIR = 27;
const READDIR = 28;
const READDIRPLUS = 44;

type Counts = Readonly<Record<number, number | undefined>>;

interface Served {
  readonly path: string;
  /** Unmounts; how often the kernel has asked for what. */
  readonly end: () => Promise<Counts>;
}

async function serveTree(
  t: Test,
  { limits = {}, xattrs = true }: { limits?: InitLimits; xattrs?: boolean } = {},
): Promise<Served> {
  const path = join(tempDir(t), 'mnt');
  await mkdir(path);
  const child = spawn(process.execPath, [server, path, JSON.stringify(limits), xattrs ? '1' : '0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  t.equal((await lines.next()).value, 'mounted');
  return {
    path,
    async end() {
      await umount2(path, 0);
      const counts = JSON.parse(String((await lines.next()).value)) as Counts;
      if (child.exitCode === null) await once(child, 'exit');
      t.equal(child.exitCode, 0, 'the server ends when the kernel has let go');
      return counts;
    },
  };
}

const code = (e: unknown): unknown => (e as NodeJS.ErrnoException).code;

/** What every kernel must see alike. */
async function conformance(t: Test, path: string): Promise<void> {
  t.equal(await readFile(join(path, 'hello'), 'utf8'), 'hello\n');
  t.ok((await readFile(join(path, 'big'))).equals(BIG));
  t.equal(await readFile(join(path, 'away'), 'utf8'), 'from afar', 'a read that had to wait');
  await t.rejects(readFile(join(path, 'broken')), { code: 'EIO' });
  t.equal(await readFile(join(path, 'hello'), 'utf8'), 'hello\n', 'a failed read harms no other');
  const file = await open(join(path, 'big'));
  const part = Buffer.alloc(100_000);
  t.equal((await file.read(part, 0, part.length, BIG.length - 1000)).bytesRead, 1000);
  await file.close();

  t.equal(await readlink(join(path, 'link')), 'hello');
  const hello = await lstat(join(path, 'hello'));
  t.match(hello, { size: 6, mode: 0o100644, nlink: 1 });
  const { mtimeNs } = await lstat(join(path, 'hello'), { bigint: true });
  t.equal(mtimeNs, -86_400n * 10n ** 9n + 5n, 'a time before 1970, with its nanoseconds');
  t.match(await lstat(join(path, 'null')), { rdev: 0x103, mode: 0o020666 });
  t.match(await lstat(join(path, 'tool')), { mode: 0o104755, uid: 7 });
  t.strictSame((await readdir(path, 'latin1')).sort(), Object.keys(testTree().children ?? {}).sort());
  const many = await readdir(join(path, 'many'), { withFileTypes: true });
  t.equal(many.length, MANY);
  t.ok(many.every((entry) => entry.isFile()));
  t.strictSame(await readdir(join(path, 'empty')), []);
  t.equal((await statfs(path)).files, MANY + 11);
  await t.rejects(access(join(path, 'nope')), { code: 'ENOENT' });
  await t.rejects(writeFile(join(path, 'new'), ''), { code: 'EROFS' });
  t.equal(execFileSync(join(path, 'tool'), { encoding: 'utf8' }), '', 'a program runs');
}

t.test('the kernel asks once, and never again for what cannot change', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { path, end } = await serveTree(t, { xattrs: false });
  for (let round = 0; round < 3; round++) await conformance(t, path);
  for (let i = 0; i < 50; i++) {
    await readFile(join(path, 'hello'));
    await readFile(join(path, 'nope')).catch((e: unknown) => t.equal(code(e), 'ENOENT'));
    execFileSync(join(path, 'tool'));
  }
  const counts = await end();
  t.equal(counts[OPEN], 1, 'OPEN was refused once');
  t.equal(counts[OPENDIR], 1, 'so was OPENDIR');
  t.equal(counts[READLINK], 1);
  t.ok((counts[GETXATTR] ?? 0) <= 1, 'the absence of xattrs was told once');
  t.ok((counts[READ] ?? 0) <= 3 * 2 + 30, `file contents stayed in the page cache (${counts[READ]} reads)`);
  t.ok((counts[LOOKUP] ?? 0) <= 30, `names stayed known (${counts[LOOKUP]} lookups)`);
  t.ok((counts[READDIRPLUS] ?? 0) > 0);
});

t.test('extended attributes come as they are', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { path, end } = await serveTree(t);
  const dump = execFileSync('getfattr', ['--absolute-names', '-d', '-m', '-', join(path, 'hello')], {
    encoding: 'utf8',
  });
  t.match(dump, /^user\.a="value"$/m);
  t.equal(execFileSync('getfattr', ['--absolute-names', '-d', '-m', '-', join(path, 'big')], { encoding: 'utf8' }), '');
  await conformance(t, path);
  await end();
});

const oldKernels: Readonly<Record<string, InitLimits>> = {
  'without the refusal of opens': { withoutFlags: (1 << 17) | (1 << 24) },
  'without readdirplus, large reads and cached links': { withoutFlags: (1 << 13) | (1 << 14) | (1 << 22) | (1 << 23) },
  'without asynchronous reads and parallel lookups': { withoutFlags: 1 | (1 << 18) },
  'of protocol 7.36, without resend and idmapped mounts': { maxMinor: 36, withoutFlags2: -1 },
  'of protocol 7.31': { maxMinor: 31, withoutFlags: 1 << 30 },
  'of protocol 7.26': { maxMinor: 26, withoutFlags: ~0x07ff_ffff | (0x1f << 22) },
  'of protocol 7.23': { maxMinor: 23, withoutFlags: ~0x0001_ffff },
};

t.test('a kernel of an older protocol is refused, and nobody waits', async (t) => {
  if (skipUnless(t, isRoot, 'mounting needs root')) return;
  const { path } = await serveTree(t, { limits: { maxMinor: 22 } });
  t.teardown(() => umount2(path, 2));
  await t.rejects(readFile(join(path, 'hello')), { code: 'ECONNREFUSED' });
});

for (const [which, limits] of Object.entries(oldKernels)) {
  t.test(`a kernel ${which} sees the same`, async (t) => {
    if (skipUnless(t, isRoot, 'mounting needs root')) return;
    const { path, end } = await serveTree(t, { limits });
    await conformance(t, path);
    await conformance(t, path);
    const counts = await end();
    if (which.includes('opens')) t.ok((counts[OPEN] ?? 0) > 10);
    if (which.includes('readdirplus')) t.ok(counts[READDIRPLUS] === undefined && (counts[READDIR] ?? 0) > 0);
  });
}
