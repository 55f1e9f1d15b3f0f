/** Trees that were just made are merged as those that are read back. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { mergeToStore } from '../../src/image/merge.js';
import { keepTree, takeTree } from '../../src/layer/fresh-trees.js';
import { impliedDirectory } from '../../src/erofs/paths.js';
import { indexToc } from '../../src/layer/toc-pass.js';
import { makeEstargz } from '../support/estargz.js';
import type { Entry } from '../support/tar.js';
import { tempDir } from '../support/tmp.js';

const layers: readonly (readonly Entry[])[] = [
  [
    { name: 'usr/lib/z', content: 'z', uid: 5 },
    { name: 'usr/lib/a', content: Buffer.alloc(200_000, 'a') },
    { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
    { name: 'etc/passwd', content: 'root:x:0:0::/root:/bin/sh\n' },
    { name: 'usr/lib/hard', type: 'link', linkname: 'usr/lib/a' },
    { name: 'twice', content: 'first' },
    { name: 'twice/', type: 'directory' },
    { name: 'twice/below', content: 'x' },
  ],
  [
    { name: 'lib/by-the-link', content: 'b' },
    { name: 'usr/lib/.wh.z', content: '' },
    { name: 'usr/share/', type: 'directory', mode: 0o700 },
    { name: 'usr/share/.wh..wh..opq', content: '' },
    { name: 'later', type: 'link', linkname: 'usr/lib/a' },
  ],
];

for (const compat of ['spec', 'overlay'] as const) {
  t.test(`a tree that was just written is merged as the one that is read back (${compat})`, async (t) => {
    const directory = tempDir(t);
    const temporary = join(directory, 'temporary');
    const written = join(directory, 'layers');
    mkdirSync(written);
    const merge: { tree: string; addressSpace: number; whitelists: [] }[] = [];
    for (const [i, entries] of layers.entries()) {
      const { blob: bytes, annotations } = await makeEstargz(entries);
      const path = join(directory, `blob-${i}`);
      writeFileSync(path, bytes);
      const [digest = ''] = Object.values(annotations);
      const blob = { kind: 'file', path, offset: 0, size: bytes.length } as const;
      const layerDirectory = join(written, String(i));
      const { accounts } = indexToc({ toc: { format: 'estargz', digest }, blob, temporary, layerDirectory });
      t.equal(accounts.length, i === 0 ? 1 : 0, 'where /etc/passwd is');
      merge.push({ tree: join(layerDirectory, 'tree.erofs'), addressSpace: 2 ** 20, whitelists: [] });
    }
    const merged = (name: string): Buffer => {
      const path = join(directory, name);
      mergeToStore({ layers: merge, compat, temporary, path });
      return readFileSync(path);
    };
    const aside = join(directory, 'aside');
    renameSync(written, aside);
    const first = merged('first');
    renameSync(aside, written);
    t.ok(merged('again').equals(first));
  });
}

t.test('a tree that is too large to be kept leaves none of before', async (t) => {
  keepTree('/tree', impliedDirectory(), []);
  keepTree('/tree', impliedDirectory(), [Buffer.alloc(17 * 1024 * 1024)]);
  t.equal(takeTree('/tree'), undefined);
});

t.test('of account files that a table repeats, or makes large, little is fetched ahead', async (t) => {
  const accountsOf = async (entries: readonly Entry[]): Promise<number> => {
    const directory = tempDir(t);
    const { blob: bytes, annotations } = await makeEstargz(entries);
    const path = join(directory, 'blob');
    writeFileSync(path, bytes);
    const [digest = ''] = Object.values(annotations);
    const [temporary, layerDirectory] = [join(directory, 'temporary'), join(directory, 'layer')];
    const blob = { kind: 'file', path, offset: 0, size: bytes.length } as const;
    return indexToc({ toc: { format: 'estargz', digest }, blob, temporary, layerDirectory }).accounts.length;
  };
  const large = Buffer.alloc(70_000, 'x');
  const repeated = Array.from({ length: 50 }, (_, i) => ({
    name: i % 2 === 0 ? 'etc/passwd' : './etc/passwd',
    content: large,
  }));
  t.equal(await accountsOf(repeated), 1);
  t.equal(await accountsOf([...repeated, { name: 'etc/passwd', content: Buffer.alloc(2_000_000, 'y') }]), 0);
});
