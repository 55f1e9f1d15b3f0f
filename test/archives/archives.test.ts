/**
 * Archives that others made to test their own readers with (NOTICE says whose they are), and what must come of each. The
 * sum is that of the listing, contents included (list.ts). "tarfile" says that Python's tarfile gives the same lines, from
 * which the expectation was taken; else the note says who differs. Errors are those that Go's archive/tar expects too.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { projectRoot } from '../support/project.js';
import { listTar, sumOf } from './list.js';

type Row = readonly [file: string, entries: number, sum: string, code: string, note: string];

const NOTHING = 'e3b0c44298fc1c14';

const table: readonly Row[] = [
  [
    'python/recursion.tar',
    0,
    NOTHING,
    '',
    'a global header, damaged, of a file that ends: global headers are passed over',
  ],
  ['python/testtar.tar', 22, '675fd8a6d5252f64', 'METADATA_INVALID', 'uid 2^32 - 1 is no owner for chown(2)'],
  ['go/file-and-dir.tar', 2, '9d8677b4ba999be4', '', 'tarfile'],
  ['go/gnu-incremental.tar', 3, '19d05a5c4f60107c', '', 'as Go; tarfile takes the access time for a prefix'],
  ['go/gnu-long-nul.tar', 1, '32ee4fcb2817493e', '', 'tarfile'],
  ['go/gnu-multi-hdrs.tar', 1, '13b71ac7ffa073a2', '', 'as Go: the last long name counts; for tarfile the first'],
  ['go/gnu-nil-sparse-data.tar', 1, '1dc53a2c82d57d4d', '', 'tarfile'],
  ['go/gnu-nil-sparse-hole.tar', 1, 'bea1bd51003a64d0', '', 'tarfile'],
  ['go/gnu-not-utf8.tar', 1, 'dd97abdd9e23e1b1', '', 'tarfile'],
  ['go/gnu-sparse-big.tar', 1, '921c38945331fbf3', '', 'tarfile'],
  ['go/gnu-utf8.tar', 1, '1a9a1a0407ffb40c', '', 'tarfile'],
  ['go/gnu.tar', 2, 'ec8b0b7d30e95c68', '', 'tarfile'],
  ['go/hardlink.tar', 2, 'fba639a08db6e4f3', '', 'tarfile'],
  ['go/hdr-only.tar', 16, 'ce29aca4f16f9e96', '', 'tarfile; GNU tar believes the sizes of links'],
  ['go/invalid-go17.tar', 1, 'ebca13e97ce77ea6', '', 'tarfile'],
  ['go/issue10968.tar', 0, NOTHING, 'TAR_INVALID', 'tarfile'],
  ['go/issue11169.tar', 0, NOTHING, 'TAR_INVALID', 'tarfile: a record that is malformed in an archive that ends there'],
  ['go/issue12435.tar', 0, NOTHING, 'TAR_INVALID', 'tarfile'],
  ['go/neg-size.tar', 0, NOTHING, 'TAR_INVALID', 'tarfile'],
  ['go/nil-uid.tar', 1, '35ae5c236bd52a55', '', 'tarfile'],
  ['go/pax-bad-hdr-file.tar', 0, NOTHING, 'TAR_INVALID', 'as Go; tarfile passes over the record'],
  ['go/pax-bad-mtime-file.tar', 0, NOTHING, 'TAR_INVALID', 'as Go; tarfile passes over the record'],
  [
    'go/pax-global-records.tar',
    4,
    '161d4db695cac7d4',
    '',
    'as Go: global records are for who asks; tarfile applies them',
  ],
  [
    'go/pax-multi-hdrs.tar',
    1,
    'f82cd38a5a07bbef',
    '',
    'as Go: the last header counts, all of it; for tarfile the first',
  ],
  ['go/pax-nil-sparse-data.tar', 1, '1dc53a2c82d57d4d', '', 'as Go; tarfile 3.11 does not take it for sparse'],
  ['go/pax-nil-sparse-hole.tar', 1, 'bea1bd51003a64d0', '', 'as Go; tarfile 3.11 does not take it for sparse'],
  ['go/pax-nul-path.tar', 0, NOTHING, 'TAR_INVALID', 'as Go; tarfile gives a name with a NUL'],
  ['go/pax-nul-xattrs.tar', 0, NOTHING, 'TAR_INVALID', 'as Go; tarfile passes over the record'],
  ['go/pax-path-hdr.tar', 0, NOTHING, '', 'a header that describes no file, as GNU tar lists it'],
  ['go/pax-pos-size-file.tar', 1, 'a819caf4820d5cb6', '', 'tarfile'],
  ['go/pax-records.tar', 1, '12f8ed26fe8de7fb', '', 'tarfile'],
  ['go/pax-sparse-big.tar', 1, 'ed32d9ec9d8d4c23', '', 'as Go; tarfile 3.11 does not take it for sparse'],
  ['go/pax.tar', 2, 'f02c3f07ae5245e3', '', 'tarfile'],
  ['go/sparse-formats.tar', 5, '2d14124484bea676', '', 'tarfile'],
  ['go/star.tar', 2, 'cbc4a6312a769ab7', '', 'tarfile'],
  ['go/trailing-slash.tar', 1, '2b40280ffb609543', '', 'tarfile'],
  ['go/ustar-file-devs.tar', 1, '8edeffdd8232ed9d', '', 'tarfile'],
  ['go/ustar-file-reg.tar', 1, '3421ce360780ce53', '', 'tarfile'],
  ['go/ustar.tar', 1, '07428403338c2caf', '', 'tarfile'],
  ['go/v7.tar', 2, '61e752530eeb1dd8', '', 'tarfile'],
  ['go/writer-big-long.tar', 1, 'eecddd62e80e9ffb', 'TAR_TRUNCATED', 'tarfile'],
  ['go/writer-big.tar', 1, 'e30d63fbd313dad6', 'TAR_TRUNCATED', 'tarfile'],
  ['go/writer.tar', 3, '61799e5e832ed567', '', 'tarfile'],
  ['go/xattrs.tar', 2, 'e42bb3b874d7f82e', '', 'tarfile'],
];

const directory = join(projectRoot, 'test/archives');

t.test('every archive is in the table', async (t) => {
  const files = ['python', 'go'].flatMap((from) => readdirSync(join(directory, from)).map((name) => `${from}/${name}`));
  t.strictSame(table.map(([file]) => file).sort(), files.sort());
});

t.test('archives of Python and Go are read as the table says', async (t) => {
  for (const [file, entries, sum, code, note] of table) {
    const { lines, code: got } = listTar(readFileSync(join(directory, file)));
    t.strictSame([lines.length, sumOf(lines), got], [entries, sum, code], `${file}: ${note}`, { lines });
  }
});

t.test(
  "the rest of Python's archive, without the one entry that is refused, is read as tarfile reads it",
  async (t) => {
    const tar = readFileSync(join(directory, 'python/testtar.tar'));
    const start = 313_344;
    t.equal(tar.toString('latin1', start, start + 21), 'gnu/regtype-gnu-uid\0\0');
    const { lines, code } = listTar(Buffer.concat([tar.subarray(0, start), tar.subarray(start + 512 + 7168)]));
    t.strictSame([lines.length, sumOf(lines), code], [38, 'ab3cde348d6ad32e', '']);
  },
);
