/** find, diff, tree --size and the provenance in stat: what the layers of an image have done to its paths. */
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { lamina, runCommand, cliPath, type CliResult } from '../support/cli.js';
import { makeLayout, type MadeImage } from '../support/images.js';
import { paxEntry, rawEntry } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';

const directory = 'directory' as const;
const symlink = 'symlink' as const;

const layers = [
  [
    { name: 'usr/', type: directory },
    { name: 'usr/lib/', type: directory },
    { name: 'usr/lib/libc.so', content: 'c'.repeat(5000) },
    { name: 'lib', type: symlink, linkname: 'usr/lib' },
    { name: 'etc/', type: directory },
    { name: 'etc/motd', content: 'one\n' },
    { name: 'etc/kept', content: 'k' },
    { name: 'opaque/', type: directory },
    { name: 'opaque/old', content: 'o' },
    { name: 'opaque/both', content: 'o' },
    { name: 'again/', type: directory },
    { name: 'again/gone', content: '' },
    { name: 'thing', content: 'a file' },
    rawEntry({ name: Buffer.from([0x62, 0xff]) }, 'x'),
    { name: 'käse', content: 'x' },
  ],
  [
    { name: 'etc/', type: directory, mode: 0o711 },
    { name: 'etc/motd', content: 'two\n', uid: 7 },
    { name: 'lib/libnew.so', content: 'through the link' },
    { name: 'opaque/.wh..wh..opq' },
    { name: 'opaque/both', content: 'n' },
    { name: '.wh.again' },
    { name: 'again/new', content: '' },
    { name: 'usr/lib/', type: directory },
  ],
  [{ name: 'etc/.wh.motd' }, { name: 'thing/', type: directory }, { name: 'thing/inside', content: '' }],
];

interface Place {
  readonly image: MadeImage;
  readonly store: string;
  readonly run: (...args: string[]) => Promise<CliResult>;
  readonly json: <T = Record<string, unknown>[]>(...args: string[]) => Promise<T>;
}

async function place(t: Test): Promise<Place> {
  const temporary = tempDir(t);
  const image = await makeLayout(join(temporary, 'image'), { layers: layers.map((entries) => ({ entries })) });
  const store = join(temporary, 'store');
  const env = { LAMINA_STORE: store, LAMINA_RUN: join(temporary, 'run') };
  const run = (...args: string[]): Promise<CliResult> => lamina(args, { env, cwd: temporary });
  const json = async <T>(...args: string[]): Promise<T> => {
    const { code, stdout, stderr } = await run(...args, '--json');
    if (code !== 0) throw new Error(stderr);
    return JSON.parse(stdout) as T;
  };
  return { image, store, run, json };
}

t.test('diff shows what each layer does', async (t) => {
  const { image, run, json } = await place(t);
  const { reference } = image;
  const shown = await run('diff', reference);
  t.equal(shown.code, 0, shown.stderr);
  const [first, second, third] = shown.stdout.split('\n\n');
  t.equal(first?.split('\n')[0], `layer 1 ${image.layers[0]?.diffId.slice(0, 19)}`);
  t.equal(first?.match(/^A /gm)?.length, layers[0]?.length, 'all that the base has is new');
  t.strictSame(second?.split('\n').slice(1), [
    'D /again/gone',
    'A /again/new',
    'C /etc',
    'C /etc/motd',
    'C /opaque/both',
    'D /opaque/old',
    'A /usr/lib/libnew.so',
  ]);
  t.strictSame(third?.trimEnd().split('\n').slice(1), ['D /etc/motd', 'C /thing', 'A /thing/inside']);
  t.equal((await run('diff', reference, '--layer', '3')).stdout, 'D /etc/motd\nC /thing\nA /thing/inside\n');
  t.strictSame((await json('diff', reference, '--layer', '3'))[1], {
    layer: 3,
    diffId: image.layers[2]?.diffId,
    change: 'changed',
    path: '/thing',
    type: 'directory',
  });
  const overlay = await run('diff', reference, '--layer', '2', '--compat', 'overlay');
  t.match(overlay.stdout, /^C \/lib\nA \/lib\/libnew\.so$/m, 'overlay engines replace the symlink');
  t.equal((await run('diff', reference, '--layer', '4')).code, 2);
  t.equal((await run('diff', reference, '--ignore', 'mtime')).code, 2);
});

t.test('diff compares two images', async (t) => {
  const { run, json } = await place(t);
  const temporary = tempDir(t);
  const make = (
    name: string,
    entries: Parameters<typeof makeLayout>[1]['layers'][number]['entries'],
  ): Promise<MadeImage> => makeLayout(join(temporary, name), { layers: [{ entries: entries ?? [] }] });
  const a = await make('a', [
    { name: 'same', content: 's'.repeat(3000) },
    { name: 'content', content: 'aaaa' },
    { name: 'kind', content: '' },
    { name: 'only-a/', type: directory },
    { name: 'only-a/x', content: '' },
    { name: 'link', type: symlink, linkname: 'a' },
    { name: 'moved', content: 'same bytes' },
    { name: 'attributes', content: '' },
  ]);
  const b = await make('b', [
    { name: 'new', content: '' },
    { name: 'same', content: 's'.repeat(3000) },
    { name: 'content', content: 'aaab' },
    { name: 'kind/', type: directory },
    { name: 'link', type: symlink, linkname: 'b' },
    { name: 'moved', content: 'same bytes', mtime: new Date(1000) },
    paxEntry({ 'SCHILY.xattr.user.x': 'y', uid: '5' }),
    rawEntry({ name: 'attributes', mode: 0o600 }),
  ]);
  const shown = await run('diff', a.reference, b.reference);
  t.strictSame(shown.stdout.trimEnd().split('\n'), [
    'C /attributes  (mode, uid, xattrs)',
    'C /content  (content)',
    'C /kind  (type)',
    'C /link  (target)',
    'C /moved  (mtime)',
    'A /new',
    'D /only-a',
    'D /only-a/x',
  ]);
  const ignored = await json('diff', a.reference, b.reference, '--ignore', 'mtime,uid,mode', '--ignore', 'xattrs');
  t.strictSame(ignored.map(({ path, change, fields }) => [path, change, fields]).slice(0, 2), [
    ['/content', 'changed', ['content']],
    ['/kind', 'changed', ['type']],
  ]);
  t.equal((await run('diff', a.reference, a.reference)).stdout, '');
  t.equal((await run('diff', a.reference, b.reference, '--layer', '1')).code, 2);
  t.equal((await run('diff', a.reference, b.reference, '--ignore', 'nothing')).code, 2);
});

t.test('stat says where a path comes from and what it hides', async (t) => {
  const { image, run, json } = await place(t);
  const { reference } = image;
  interface Stat {
    readonly origin: { readonly layer: number } | null;
    readonly history: readonly { readonly layer: number; readonly change: string }[];
    readonly hides: readonly {
      readonly layer: number;
      readonly hiddenBy: number;
      readonly entry: { readonly type: string };
    }[];
  }
  const stat = (path: string): Promise<Stat> => json<Stat>('stat', reference, path);

  const thing = await stat('/thing');
  t.match(thing, { origin: { layer: 3 }, hides: [{ layer: 1, hiddenBy: 3, entry: { type: 'file', size: 6 } }] });
  t.strictSame(
    thing.history.map(({ layer, change }) => [layer, change]),
    [
      [1, 'added'],
      [3, 'replaced'],
    ],
  );
  t.match(await stat('/etc/kept'), { origin: { layer: 1, diffId: image.layers[0]?.diffId }, hides: [] });
  t.match((await stat('/etc')).history, [{ change: 'added' }, { layer: 2, change: 'attributes' }]);
  t.match((await stat('/lib/libnew.so')).origin, { layer: 2 }, 'through a symlink, by which the layer put it there');
  t.match((await stat('/usr/lib')).origin, { layer: 2 }, 'the last layer with an entry for it, if equal');
  t.match((await stat('/again')).history, [
    { layer: 1, change: 'added' },
    { layer: 2, change: 'replaced' },
  ]);
  t.match((await stat('/')).history, [{ layer: 1, change: 'implied' }], 'no layer has an entry for the root');

  const text = await run('stat', reference, '/thing');
  t.match(text.stdout, new RegExp(`^from: layer 3 of 3, ${image.layers[2]?.diffId}$`, 'm'));
  t.match(text.stdout, /^hides: file 0644 0:0, 6 bytes of layer 1, since layer 3$/m);

  const gone = await run('stat', reference, '/etc/motd');
  t.equal(gone.code, 4);
  t.match(gone.stderr, 'Layer 2 had it (file 0644 7:0, 4 bytes); layer 3 of 3 took it away.');
  t.notMatch((await run('stat', reference, '/never')).stderr, 'had it');
});

t.test('find', async (t) => {
  const { image, store, run, json } = await place(t);
  const { reference } = image;
  const find = async (...args: string[]): Promise<string[]> =>
    (await run('find', reference, ...args)).stdoutBytes.toString('latin1').split('\n').slice(0, -1);
  t.strictSame(await find('--name', '*.so'), ['/usr/lib/libc.so', '/usr/lib/libnew.so']);
  t.strictSame(await find('/usr', '--type', 'd'), ['/usr', '/usr/lib']);
  t.strictSame(await find('--type', 'l,d', '--name', 'l*'), ['/lib', '/usr/lib']);
  t.strictSame(await find('--size', '+4k'), ['/usr/lib/libc.so']);
  t.strictSame(await find('--size', '+0', '--size', '-2', '--name', '?[t]*'), [], 'all conditions hold');
  t.strictSame(await find('--size', '6'), []);
  t.strictSame(await find('--name', 'motd', '--name', 'kept'), ['/etc/kept']);
  t.strictSame(await find('--name', 'k?se'), ['/k\xc3\xa4se'], 'a question mark is one character');
  t.strictSame(await find('--name', 'b?'), ['/b\xff'], 'or one byte of what is no text');
  t.strictSame(await find('--layer', '2'), [
    '/again',
    '/again/new',
    '/etc',
    '/opaque/both',
    '/usr/lib',
    '/usr/lib/libnew.so',
  ]);
  t.strictSame(await find('/lib/', '--layer', '2'), ['/lib', '/lib/libnew.so'], 'paths as they were asked for');
  t.strictSame(
    (await json('find', reference, '--layer', '3')).map(({ path }) => path),
    ['/thing', '/thing/inside'],
  );
  t.equal((await run('find', reference, '/thing', '-0')).stdout, '/thing\0/thing/inside\0');
  for (const wrong of [
    ['--type', 'q'],
    ['--size', 'big'],
    ['--layer', '0'],
    ['--layer', '9'],
  ]) {
    t.equal((await run('find', reference, ...wrong)).code, 2, wrong.join(' '));
  }
  t.equal((await run('find', reference, '/nope')).code, 4);
  const pattern = 'exec "$1" "$2" find "$3" --name "$(printf \'\\142\\377\')"';
  const env = { LAMINA_STORE: store };
  const bytes = await runCommand('sh', ['-c', pattern, 'sh', process.execPath, cliPath, reference], { env });
  t.equal(bytes.stdoutBytes.toString('latin1'), '/b\xff\n', 'a pattern that is no text');
});

t.test('tree --size', async (t) => {
  const { run, json } = await place(t);
  const image = await makeLayout(join(tempDir(t), 'image'), {
    layers: [
      {
        entries: [
          { name: 'a/', type: directory },
          { name: 'a/b/', type: directory },
          { name: 'a/b/one', content: 'x'.repeat(1500) },
          { name: 'a/two', type: 'link', linkname: 'a/b/one' },
          { name: 'three', content: 'x'.repeat(10) },
          { name: 'zero', type: symlink, linkname: 'three' },
        ],
      },
    ],
  });
  const { stdout } = await run('tree', '--size', image.reference);
  t.strictSame(stdout.split('\n').slice(0, 7), [
    '1.51 kB  /',
    '1.50 kB  ├── a',
    '1.50 kB  │   ├── b',
    '1.50 kB  │   │   └── one',
    '1.50 kB  │   └── two',
    '   10 B  ├── three',
    '         └── zero -> three',
  ]);
  const [root, a] = await json('tree', '--size', '--depth', '1', image.reference);
  t.match([root, a], [{ totalSize: 1510 }, { totalSize: 1500 }], 'all below counts, whatever is shown');
});
