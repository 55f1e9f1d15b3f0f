/**
 * Archives that others made to test their own readers with (NOTICE says whose they are), and what must come of each. The
 * sum is that of the listing, contents included (list.ts). "tarfile" says that Python's tarfile gives the same lines, from
 * which the expectation was taken; else the note says who differs. Errors are those that Go's archive/tar expects too.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
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
  ['libarchive/acl_pax_nfs4.tar', 3, 'e27c239da71a32c6', '', 'tarfile'],
  ['libarchive/acl_pax_posix1e.tar', 4, 'ea93b442c2574293', '', 'tarfile'],
  ['libarchive/gtar_1.tar', 2, '7c417081414d20c1', '', 'tarfile'],
  ['libarchive/gtar_2.tar', 1, 'ea822ca617462eed', '', 'tarfile'],
  ['libarchive/gtar_filename_cp866.tar', 2, 'b84ce81ca74686cb', '', 'tarfile'],
  ['libarchive/gtar_filename_eucjp.tar', 2, 'af8da18b90e23526', '', 'tarfile'],
  ['libarchive/gtar_filename_koi8r.tar', 2, '013a68a39e0885a6', '', 'tarfile'],
  [
    'libarchive/gtar_redundant_L.tar',
    1,
    'de4e5655e568679b',
    '',
    'as Go: the last long name counts; for tarfile the first',
  ],
  [
    'libarchive/gtar_sparse_1_13.tar',
    3,
    '3ea713b0dff3d36a',
    '',
    'tarfile; of the large file the places, not the contents',
  ],
  [
    'libarchive/gtar_sparse_1_17.tar',
    3,
    '3ea713b0dff3d36a',
    '',
    'tarfile; of the large file the places, not the contents',
  ],
  [
    'libarchive/gtar_sparse_1_17_posix00.tar',
    3,
    '3ea713b0dff3d36a',
    '',
    'tarfile; of the large file the places, not the contents',
  ],
  [
    'libarchive/gtar_sparse_1_17_posix01.tar',
    3,
    '3ea713b0dff3d36a',
    '',
    'tarfile; of the large file the places, not the contents',
  ],
  [
    'libarchive/gtar_sparse_1_17_posix10.tar',
    3,
    '3ea713b0dff3d36a',
    '',
    'tarfile; of the large file the places, not the contents',
  ],
  ['libarchive/gtar_sparse_1_17_posix10_modified.tar', 0, NOTHING, 'SPARSE_INVALID', 'tarfile'],
  ['libarchive/gtar_sparse_length.tar', 2, '0ef3d53ea7d56834', '', 'tarfile'],
  ['libarchive/gtar_sparse_reuse.tar', 1, '57159250c824a744', '', 'tarfile'],
  [
    'libarchive/gtar_sparse_skip_entry.tar',
    0,
    NOTHING,
    'SPARSE_INVALID',
    'segments of 4,100 bytes in 4,099 of data: GNU tar lists it, bsdtar finds it damaged',
  ],
  ['libarchive/pax_filename_encoding.tar', 2, '6ec566fde733ace3', '', 'tarfile'],
  ['libarchive/pax_xattr_header_all.tar', 1, '5a833d62e61c6a2c', '', 'tarfile'],
  ['libarchive/pax_xattr_header_libarchive.tar', 1, '5a833d62e61c6a2c', '', 'tarfile'],
  ['libarchive/pax_xattr_header_schily.tar', 1, '5a833d62e61c6a2c', '', 'tarfile'],
  ['libarchive/perl_archive_tar.tar', 1, '04b261f95516a6b8', '', 'tarfile'],
  ['libarchive/plexus_archiver_tar.tar', 1, '9f1481f06530112a', 'TAR_INVALID', 'tarfile'],
  [
    'libarchive/read_pax_empty_val_no_nl.tar',
    0,
    NOTHING,
    'TAR_INVALID',
    'a record without its newline, as Go; tarfile passes over it',
  ],
  ['libarchive/read_pax_xattr_rht_security_selinux.tar', 1, '45ff9d8e281a3569', '', 'tarfile'],
  ['libarchive/read_pax_xattr_schily.tar', 1, 'aadf495e7ce01d3a', '', 'tarfile'],
  [
    'libarchive/solaris_tar_acl.tar',
    0,
    NOTHING,
    'TAR_UNSUPPORTED',
    'type A, a Solaris ACL; tarfile takes it for a file',
  ],
  ['libarchive/star_acl_nfs4.tar', 3, 'e6e2302175c15648', '', 'tarfile'],
  ['libarchive/star_acl_posix1e.tar', 3, 'e91f946286ffb4c3', '', 'tarfile'],
  ['libarchive/tar_V_negative_size.tar', 0, NOTHING, 'TAR_INVALID', 'tarfile fails, too'],
  ['libarchive/tar_acl_oob_read.tar', 1, '6ee505f600bcab27', 'TAR_INVALID', 'tarfile'],
  ['libarchive/tar_concatenated.tar', 1, 'ebb228e8cef2bd2c', '', 'tarfile'],
  ['libarchive/tar_directory_1.tar', 2, 'c601788d0aa0dd83', '', 'tarfile'],
  ['libarchive/tar_empty_filename.tar', 1, '27867ac9aa6bf9fe', '', 'tarfile'],
  ['libarchive/tar_empty_pax.tar', 0, NOTHING, '', 'tarfile'],
  ['libarchive/tar_empty_with_gnulabel.tar', 0, NOTHING, '', 'a volume label is no file; tarfile gives an entry'],
  ['libarchive/tar_filename_koi8r.tar', 2, 'e4783ecd1909b8ef', '', 'tarfile'],
  ['libarchive/tar_hardlink_1.tar', 2, 'aca7ef908ba476b1', '', 'tarfile'],
  ['libarchive/tar_invalid_pax_size.tar', 0, NOTHING, 'TAR_INVALID', 'tarfile'],
  ['libarchive/tar_mac_metadata_1.tar', 2, 'efe27e33c2bc49ae', '', 'tarfile'],
  ['libarchive/tar_pax_g_large.tar', 0, NOTHING, 'TAR_TRUNCATED', 'tarfile'],
  ['libarchive/tar_pax_large_attr.tar.gz', 0, NOTHING, 'LIMIT_EXCEEDED', 'a PAX header of 8 MB'],
  ['libarchive/tar_pax_negative_time.tar', 1, 'd518112061db4e52', '', 'tarfile'],
  [
    'libarchive/tar_pax_sun_holesdata.tar',
    0,
    NOTHING,
    'SPARSE_INVALID',
    'holes as Solaris has them; tarfile and GNU tar leave them out of the file',
  ],
  ['libarchive/tar_pax_timestamps.tar', 0, NOTHING, 'TAR_INVALID', 'as Go; tarfile passes over the record'],
  [
    'libarchive/tar_timestamp_overflow.tar',
    1,
    'c8a67770464a16d8',
    '',
    'as Go: NULs before a number are passed over; for tarfile and GNU tar they end it',
  ],
  ['libarchive/ustar_filename_cp866.tar', 2, 'b84ce81ca74686cb', '', 'tarfile'],
  ['libarchive/ustar_filename_eucjp.tar', 2, 'af8da18b90e23526', '', 'tarfile'],
  ['libarchive/ustar_filename_koi8r.tar', 2, '013a68a39e0885a6', '', 'tarfile'],
  ['node-tar/bad-cksum.tar', 1, '7b049dc10846a053', 'TAR_INVALID', 'tarfile'],
  ['node-tar/body-byte-counts.tar', 4, '0269222c434c5c2e', '', 'tarfile'],
  ['node-tar/dir.tar', 1, 'ea5db76dace0bd96', '', 'tarfile'],
  ['node-tar/emptypax.tar', 2, 'ca5cf29151426335', '', 'tarfile'],
  ['node-tar/file.tar', 1, '7b049dc10846a053', '', 'tarfile'],
  [
    'node-tar/global-header.tar',
    1,
    '7b049dc10846a053',
    '',
    'as Go: global records are for who asks; tarfile applies them',
  ],
  ['node-tar/links-invalid.tar', 3, '01d106e0ca6b6417', '', 'tarfile'],
  ['node-tar/links-strip.tar', 5, 'c87f311839acd6c2', '', 'tarfile'],
  ['node-tar/links.tar', 3, '55e1a9cfc51801b1', '', 'tarfile'],
  ['node-tar/long-linkname.tar', 1, 'e290de0157455933', '', 'tarfile'],
  ['node-tar/long-paths.tar', 32, '7276d92c1d2a1348', '', 'tarfile'],
  ['node-tar/long-pax.tar', 1, '0f51af3f3f4c4a2a', '', 'tarfile'],
  ['node-tar/next-file-has-long.tar', 2, 'd683be4763dc3acd', '', 'tarfile'],
  ['node-tar/null-byte.tar', 2, 'ee02663435131a42', '', 'tarfile'],
  ['node-tar/path-missing.tar', 1, 'bd8bdc8fdd10c3d2', '', 'tarfile'],
  ['node-tar/trailing-slash-corner-case.tar', 3, '2c90a382a061b43d', '', 'tarfile'],
  ['node-tar/utf8.tar', 3, '72348239d9fb5e9f', '', 'tarfile'],
];

const directory = join(projectRoot, 'test/archives');

function read(file: string): Buffer {
  const bytes = readFileSync(join(directory, file));
  return file.endsWith('.gz') ? gunzipSync(bytes) : bytes;
}

t.test('every archive is in the table', async (t) => {
  const files = ['python', 'go', 'libarchive', 'node-tar'].flatMap((from) =>
    readdirSync(join(directory, from)).map((name) => `${from}/${name}`),
  );
  t.strictSame(table.map(([file]) => file).sort(), files.sort());
});

t.test('archives are read as the table says', async (t) => {
  for (const [file, entries, sum, code, note] of table) {
    const { lines, code: got } = listTar(read(file));
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
