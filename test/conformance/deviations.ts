/** Where a case asks for something else than the specification or common sense would say, and cases that are shown elsewhere. */

interface Deviation {
  readonly id: string;
  /** What one would expect. */
  readonly expected: string;
  /** What we do, and the case shows. */
  readonly here: string;
  readonly why: string;
}

export const deviations: readonly Deviation[] = [
  {
    id: 'M009b',
    expected: 'Linux takes attribute values of 65,536 bytes',
    here: 'METADATA_INVALID above 65,535',
    why: 'EROFS has 16 bits for the length of a value, and no file system that images are built on holds one as long.',
  },
  {
    id: 'T031',
    expected: 'times clamped to 64 bits',
    here: 'clamped to 53 bits, some 285 million years',
    why: 'A double holds no more exactly; no clock comes near.',
  },
  {
    id: 'Z003a',
    expected: 'a warning where media type and bytes disagree',
    here: 'no word',
    why: "The digest vouches for the bytes and Docker's type names no compression, so the warning would only teach to ignore warnings.",
  },
];

/** Cases of the same lists that are no trees: the test that has them, or why there is none. */
export const elsewhere: Readonly<Record<string, string>> = {
  Z017: 'test/mount/mount.test.ts',
  Z018: 'nothing here computes a ChainID',
};
