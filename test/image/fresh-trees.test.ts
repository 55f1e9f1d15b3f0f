/** Trees that were just made are merged as those that are read back. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { mergeToStore } from '../../src/image/merge.js';
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
